"""Statistics of prices and quotes."""

from quant_platform.defs import plots
from quant_platform.defs.table_asset import TableAsset

TABLES = (
    TableAsset("statistics/liquidity", plot=plots.spreads),
    TableAsset("statistics/price_statistics", plot=plots.bands),
)
