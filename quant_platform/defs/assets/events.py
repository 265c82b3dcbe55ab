"""Events: what other systems tell of the desk's trading, and what the platform tells of it."""

from quant_platform.contracts.events import TOLD_EVENTS, TradeExecuted, TradingDecision
from quant_platform.contracts.events_out import TcaReport
from quant_platform.defs import execution_plots as plots
from quant_platform.defs.assets.tca_report import KEY as DAILY_TCA
from quant_platform.defs.table_asset import TableAsset

TABLES = (
    TableAsset(TradeExecuted.table),
    TableAsset(TradingDecision.table),
    *(TableAsset(contract.table) for contract in TOLD_EVENTS),
    TableAsset("events/out/execution_cost_prediction"),
    TableAsset("events/out/decision_outcome_analysis"),
    TableAsset("events/out/performance_attribution", plot=plots.waterfall),
    TableAsset("events/out/strategy_performance"),
    TableAsset("events/out/model_performance_feedback"),
    TableAsset(TcaReport.table, reads=(DAILY_TCA,)),
)
