"""Order flow: the signed tape, and what it and the book say of who trades and how one-sidedly."""

from quant_platform.defs import order_flow_plots as plots
from quant_platform.defs.table_asset import TableAsset

TABLES = (
    TableAsset("microstructure/signed_trades", plot=plots.signed_trades),
    TableAsset("microstructure/vpin_buckets", plot=plots.vpin_buckets),
    TableAsset("microstructure/vpin", plot=plots.vpin),
    TableAsset("microstructure/order_book_imbalance", plot=plots.order_book_imbalance),
    TableAsset("microstructure/toxicity", plot=plots.toxicity),
    TableAsset("microstructure/participant_flow", plot=plots.participant_flow),
    TableAsset("microstructure/sweeps", plot=plots.sweeps),
    TableAsset("microstructure/hidden_orders", plot=plots.hidden_orders),
    TableAsset("microstructure/flow_clusters", plot=plots.flow_clusters),
    TableAsset("microstructure/closing_imbalance"),
    TableAsset("microstructure/unusual_activity"),
)
