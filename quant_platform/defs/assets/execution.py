"""The desk: its decisions, orders and fills, what they cost, how well they were executed, and by whom."""

from quant_platform.defs import execution_plots as plots
from quant_platform.defs.table_asset import TableAsset

TABLES = (
    TableAsset("execution/decisions"),
    TableAsset("execution/orders"),
    TableAsset("execution/fills"),
    TableAsset("execution/tca_fills", plot=plots.markouts),
    TableAsset("execution/tca_orders", plot=plots.shortfall),
    TableAsset("execution/quality", plot=plots.quality),
    TableAsset("execution/quality_trend", plot=plots.quality_trend),
    TableAsset("execution/impact", plot=plots.impact),
    TableAsset("execution/impact_fit", plot=plots.impact_laws),
    TableAsset("execution/venue_scorecard", plot=plots.venues),
    TableAsset("execution/algo_scorecard", plot=plots.algos),
)
