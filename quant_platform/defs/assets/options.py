"""Option chains and what follows from them: greeks, dealers' exposures, skew, the surface."""

from quant_platform.defs import option_plots as plots
from quant_platform.defs.table_asset import TableAsset

TABLES = (
    TableAsset("options/chain"),
    TableAsset("options/chain_quality"),
    TableAsset("options/greeks"),
    TableAsset("options/gamma_exposure", plot=plots.gamma_exposure),
    TableAsset("options/dealer_flow", plot=plots.dealer_flow),
    TableAsset("options/skew", plot=plots.skew),
    TableAsset("options/exposure_history", plot=plots.exposure_history),
    TableAsset("options/vol_surface", plot=plots.vol_surface),
)
