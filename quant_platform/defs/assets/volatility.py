"""Volatility indices: those that are published, and those that our own strips of options give."""

from quant_platform.defs import option_plots as plots
from quant_platform.defs.table_asset import TableAsset

TABLES = (
    TableAsset("volatility/vix1d"),
    TableAsset("volatility/vix1d_regime", plot=plots.vix1d_regime),
    TableAsset("volatility/variance_strips"),
    TableAsset("volatility/vix1d_proxy", plot=plots.vix1d_proxy),
)
