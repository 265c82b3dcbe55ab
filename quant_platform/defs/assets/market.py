"""The market's own tables: the tape, the quotes, the books, the holes in the tape, and time bars."""

from quant_platform.defs import plots
from quant_platform.defs.table_asset import TableAsset

TABLES = (
    TableAsset("market/trades", kinds=("binance", "parquet"), plot=plots.candles),
    TableAsset("market/quotes", kinds=("binance", "parquet"), plot=plots.mids),
    TableAsset("market/book"),
    TableAsset("market/gaps"),
    TableAsset("market/bars_1s", plot=plots.candles),
    TableAsset("market/bars_1m", plot=plots.candles),
    TableAsset("market/bars_5m", plot=plots.candles),
)
