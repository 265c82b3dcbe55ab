"""What the live writer served, and how far it was from the batch."""

from quant_platform.defs import live_plots as plots
from quant_platform.defs.table_asset import TableAsset

TABLES = (
    TableAsset("live/values"),
    TableAsset("live/parity", plot=plots.differences),
)
