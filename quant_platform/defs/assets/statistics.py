"""Statistics of prices."""

from quant_platform.defs import plots
from quant_platform.defs.table_asset import TableAsset

TABLES = (TableAsset("statistics/price_statistics", plot=plots.bands),)
