"""What the order flow says: signed volume, imbalance, toxicity, participants, sweeps, hidden orders, clusters."""

from typing import ClassVar

from quant_platform.contracts._schema import Contract, choice, count, flag, identifier, instant, real, sign, text
from quant_platform.contracts.enums import (
    AuctionSide,
    ImbalanceState,
    Level,
    OptionActivity,
    OptionFlow,
    Signing,
    SignRule,
    Status,
    VpinMethod,
)


class SignedTrade(Contract):
    """The tape with each trade's side and the quote that stood before it: what all order-flow metrics read."""

    table: ClassVar[str] = "microstructure/signed_trades"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "trade_id")

    ts_event = instant("The venue's time of the trade.")
    symbol = text("The platform's unique name of the instrument.")
    venue = text("Where it traded.")
    trade_id = identifier("The venue's id; in an aggTrades row the first id of the aggregate.")
    last_trade_id = identifier("Last id of the prints in this row.")
    price = real("Price of the trade.", unit="quote currency", min_exclusive=0)
    size = real("Quantity traded.", unit="base units", min_exclusive=0)
    aggressor = sign("+1 buyer-initiated, -1 seller-initiated, 0 where no rule could tell.")
    rule = choice("Which rule gave the side.", SignRule)
    quote_age_ns = count("Age of the quote before the trade; null where there was none.", nullable=True)
    bid_price = real("Best bid before the trade; null where none is usable.", unit="quote currency", nullable=True)
    bid_size = real("Quantity at that bid.", unit="base units", nullable=True, min=0)
    ask_price = real("Best offer before the trade; null where none is usable.", unit="quote currency", nullable=True)
    ask_size = real("Quantity at that offer.", unit="base units", nullable=True, min=0)
    ts_known = instant("Receipt of the trade, or of the quote before it where that came later.")


class VpinBucket(Contract):
    """A full volume bucket, and the raw VPIN up to it."""

    table: ClassVar[str] = "microstructure/vpin_buckets"
    sorted_by: ClassVar[tuple[str, ...]] = ("bucket",)

    symbol = text("The platform's unique name of the instrument.")
    bucket = count("Number of the bucket in its fold, from 1, the sessions of the warm-up included.")
    ts_start = instant("Time of the first trade that has volume in the bucket.")
    ts_end = instant("Time of the trade that filled it.")
    last_trade_id = identifier("Last id of the trade that filled it.")
    bucket_size = real("Volume of a bucket.", unit="base units", min_exclusive=0)
    buy_volume = real("Volume bought; of unknown side, half.", unit="base units", min=0)
    sell_volume = real("Volume sold; of unknown side, half.", unit="base units", min=0)
    imbalance = real("|buy - sell| ÷ bucket size.", unit="1", min=0, max=1)
    vpin = real("Mean imbalance of the last `n_buckets` up to this one.", unit="1", nullable=True, min=0, max=1)
    n_buckets = count("Buckets that VPIN takes the mean of.")
    signing = choice("How volume got its side.", Signing)
    bar_s = real("Width of the bars by which `bvc` signs; else null.", unit="s", nullable=True, min_exclusive=0)
    status = choice("Why `vpin` is null.", Status)
    ts_known = instant("Latest receipt of the trades used.")


class Vpin(Contract):
    """Volume-synchronised probability of informed trading after each interval's last trade, and how high it stands."""

    table: ClassVar[str] = "microstructure/vpin"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_open",)
    is_revised: ClassVar[bool] = True

    ts_open = instant("Start of the interval; the row stands after its last trade.")
    ts_event = instant("Time of the last trade used.")
    symbol = text("The platform's unique name of the instrument.")
    last_trade_id = identifier("Last id of the last trade used.")
    vpin = real("Mean imbalance of the last full buckets, or as `method` says.", unit="1", nullable=True, min=0, max=1)
    cdf = real("Share of earlier sessions' bucket VPINs that are no higher.", unit="1", nullable=True, min=0, max=1)
    level = choice("How high `cdf` stands; levels of another method are others.", Level, nullable=True)
    bucket_size = real("Volume of a bucket, frozen at the open.", unit="base units", nullable=True, min_exclusive=0)
    n_buckets = count("Buckets that VPIN takes the mean of.")
    buckets_filled = count("Full buckets since the fold began, the sessions of the warm-up included.")
    method = choice("What `vpin` is: of full buckets, or of all volume since the open.", VpinMethod, nullable=True)
    signing = choice("How volume got its side.", Signing)
    bar_s = real("Width of the bars by which `bvc` signs; else null.", unit="s", nullable=True, min_exclusive=0)
    is_warm = flag("Whether the earlier session was folded, and the reference sessions were all there.")
    status = choice("Why `vpin` is null.", Status)
    ts_known = instant("Latest receipt of the trades used.")


class OrderBookImbalance(Contract):
    """Which side of the book is the heavier, at the last update of each interval that has one."""

    table: ClassVar[str] = "microstructure/order_book_imbalance"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_open",)
    is_revised: ClassVar[bool] = True

    ts_open = instant("Start of the interval [ts_open, ts_open + sample).")
    ts_event = instant("Venue time of the update that the row stands for, the interval's last.")
    symbol = text("The platform's unique name of the instrument.")
    sequence = identifier("The venue's id of that update.")
    l1 = real("(bid size - ask size)/(bid size + ask size) at the touch.", unit="1", nullable=True, min=-1, max=1)
    l5 = real("The same of the sizes summed over up to five levels a side.", unit="1", nullable=True, min=-1, max=1)
    levels_used = count("Levels that both sides have, at most 5; 0 where `l5` is null.")
    pressure_ratio = real(
        "Bid size ÷ ask size over five levels; null where no size is offered.", unit="1", nullable=True, min=0
    )
    micro_price = real(
        "(ask·bid size + bid·ask size)/(bid size + ask size): a size-weighted mid, not Stoikov's estimator.",
        unit="quote currency",
        nullable=True,
        min_exclusive=0,
    )
    velocity = real(
        "Change of `l5` since the newest row that is at least the lookback older; null where none is.",
        unit="per s",
        nullable=True,
    )
    state = choice("How far |l5| is from 0.", ImbalanceState, nullable=True)
    ofi = real(
        "Order flow imbalance, summed over the interval's updates; null where the book before is not known.",
        unit="base units",
        nullable=True,
    )
    status = choice("Why `l1`, `micro_price` and `ofi` are null.", Status)
    depth_status = choice("Why `l5`, `pressure_ratio`, `velocity` and `state` are null; `no_depth` on quotes.", Status)
    ts_known = instant("Latest receipt of what the row used.")


class Toxicity(Contract):
    """How one-sided and how large the last trades are, blended with VPIN; one row an interval with a trade."""

    table: ClassVar[str] = "microstructure/toxicity"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_open",)
    is_revised: ClassVar[bool] = True

    ts_open = instant("Start of the interval; the row stands after its last trade.")
    ts_event = instant("Time of the last trade used.")
    symbol = text("The platform's unique name of the instrument.")
    last_trade_id = identifier("Last id of the last trade used.")
    trade_count = count("Trades in the window.")
    vpin = real("VPIN of the same instant; null where it is not known.", unit="1", nullable=True, min=0, max=1)
    aggressor_ratio = real(
        "|buy volume - sell volume| ÷ volume; null where no trade has a side.", unit="1", nullable=True, min=0, max=1
    )
    large_trade_ratio = real("Share of volume in large trades.", unit="1", nullable=True, min=0, max=1)
    spread_cross_ratio = real(
        "Share of volume at or through the far quote, of what has a quote; null where nothing has.",
        unit="1",
        nullable=True,
        min=0,
        max=1,
    )
    toxicity_adjusted = real(
        "Weighted mean of VPIN, aggressor ratio and large-trade ratio, of those that are known.",
        unit="1",
        nullable=True,
        min=0,
        max=1,
    )
    toxicity_adjusted_level = choice("Where it stands against the thresholds.", Level, nullable=True)
    confidence = real(
        "Share of the trades wanted, at most 1, times the weight of what is known.",
        unit="1",
        nullable=True,
        min=0,
        max=1,
    )
    institutional_score = real("As in participant_flow.", unit="1", nullable=True, min=0, max=1)
    dark_venue_hits = count("Trades printed by a dark venue; null where the feed has none.", nullable=True)
    buy_volume = real("Volume of buyer-initiated trades.", unit="base units", nullable=True, min=0)
    sell_volume = real("Volume of seller-initiated trades.", unit="base units", nullable=True, min=0)
    unclassified_volume = real("Volume of trades without a known side.", unit="base units", nullable=True, min=0)
    venue_mix = text(
        "JSON: for each venue, by name, its `buy`, `sell` and `unclassified` volume; null where no trade has a venue.",
        nullable=True,
    )
    status = choice("Why values are null.", Status)
    ts_known = instant("Latest receipt of what the row used.")


class ParticipantFlow(Contract):
    """Who may be behind the last trades, by rules of thumb; one row an interval with a trade."""

    table: ClassVar[str] = "microstructure/participant_flow"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_open",)
    is_revised: ClassVar[bool] = True

    ts_open = instant("Start of the interval; the row stands after its last trade.")
    ts_event = instant("Time of the last trade used.")
    symbol = text("The platform's unique name of the instrument.")
    last_trade_id = identifier("Last id of the last trade used.")
    trade_count = count("Trades in the window.")
    institutional_notional_share = real("Share of notional.", unit="1", nullable=True, min=0, max=1)
    institutional_trade_count = count("Trades that any of the four rules hits.", nullable=True)
    institutional_aggressor_ratio = real(
        "|buy - sell| ÷ all volume of these; null where none has a side.", unit="1", nullable=True, min=0, max=1
    )
    institutional_net_notional = real("Bought less sold.", unit="quote currency", nullable=True)
    retail_notional_share = real("Share of notional.", unit="1", nullable=True, min=0, max=1)
    retail_trade_count = count("Small aggressive trades that no rule hits.", nullable=True)
    retail_aggressor_ratio = real(
        "|buy - sell| ÷ all volume of these; null where none has a side.", unit="1", nullable=True, min=0, max=1
    )
    retail_net_notional = real("Bought less sold.", unit="quote currency", nullable=True)
    unclassified_notional_share = real("Share of notional.", unit="1", nullable=True, min=0, max=1)
    unclassified_trade_count = count("All other trades.", nullable=True)
    notional_hits = count("Trades of a large notional.", nullable=True)
    dark_venue_hits = count("Trades printed by a dark venue; null where the feed has none.", nullable=True)
    time_cluster_hits = count("Trades in a quick series of one side at one price.", nullable=True)
    passive_hits = count("Trades in a series against one resting quote; null without quotes.", nullable=True)
    institutional_score = real(
        "Notional-weighted mean of the weighted rules that hit, of those that can be told.",
        unit="1",
        nullable=True,
        min=0,
        max=1,
    )
    status = choice("Why values are null.", Status)
    ts_known = instant("Latest receipt of what the row used.")


class Sweep(Contract):
    """One side trading quickly through several prices; one row a sweep."""

    table: ClassVar[str] = "microstructure/sweeps"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_start", "first_trade_id")

    ts_start = instant("Time of the first trade.")
    ts_end = instant("Time of the last trade.")
    symbol = text("The platform's unique name of the instrument.")
    first_trade_id = identifier("Id of the first trade: with the symbol, the key.")
    last_trade_id = identifier("Last id of the last trade.")
    value = count("1: a sweep. 0 is only seen live: the newest trade ends a run that is none.")
    side = sign("Side of the aggressor; 0 where `value` is 0.")
    trade_count = count("Trades.")
    price_levels = count("Different prices.")
    volume = real("Sum of sizes.", unit="base units", nullable=True, min_exclusive=0)
    notional = real("Sum of price · size.", unit="quote currency", nullable=True, min_exclusive=0)
    status = choice("Why volume and notional are null.", Status)
    ts_known = instant("Latest receipt of the trades used.")


class HiddenOrder(Contract):
    """An execution held against the quote before it: was there more than was shown? Experimental."""

    table: ClassVar[str] = "microstructure/hidden_orders"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "trade_id")
    is_revised: ClassVar[bool] = True

    ts_event = instant("The venue's time of the trade.")
    symbol = text("The platform's unique name of the instrument.")
    trade_id = identifier("The venue's id of the trade.")
    hidden = flag("Whether `inside_spread`, `excess_size`, `iceberg` or `dark_venue` holds.", nullable=True)
    hidden_volume = real("Volume that had not been displayed.", unit="base units", nullable=True, min=0)
    inside_spread = flag("The price lay between bid and ask.", nullable=True)
    excess_size = flag("With it the event took more at the best price than was displayed there.", nullable=True)
    refill = flag(
        "The displayed size came back after the event; null where it took nothing at the best price, and while it is "
        "not known.",
        nullable=True,
    )
    refill_count = count("Refills of that price until now, while its side trades at no other one.", nullable=True)
    iceberg = flag("Whether the price has been refilled often enough to be one.", nullable=True)
    dark_venue = flag("Printed by a dark venue; null where the feed has none.", nullable=True)
    experimental = flag("Always true: these are rules of thumb, not facts of the tape.")
    status = choice("Why values are null.", Status)
    ts_known = instant("Latest receipt of what the row used.")


class FlowClusters(Contract):
    """Three clusters of each symbol's last trades, one row an interval in which it traded: a guess at who trades.

    Means and centroids of an empty cluster are null.
    """

    table: ClassVar[str] = "microstructure/flow_clusters"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_open",)
    is_revised: ClassVar[bool] = True

    ts_open = instant("Start of the interval; the row stands after its last trade.")
    ts_event = instant("Time of the last trade used.")
    symbol = text("The platform's unique name of the instrument.")
    last_trade_id = identifier("Last id of the last trade used.")
    samples = count("Trades in the window.")
    clusters_used = count("Clusters that hold a trade.", nullable=True)
    fallback = flag("Whether fewer than three trades differed, so that one cluster holds all.", nullable=True)
    momentum_share = real("Share of trades in its cluster.", unit="1", nullable=True, min=0, max=1)
    mean_reversion_share = real("Share of trades in its cluster.", unit="1", nullable=True, min=0, max=1)
    hedging_share = real("Share of trades in its cluster.", unit="1", nullable=True, min=0, max=1)
    institutional_share = real("Share of trades in clusters of large size.", unit="1", nullable=True, min=0, max=1)
    retail_share = real("Share of trades in the other clusters.", unit="1", nullable=True, min=0, max=1)
    momentum_trade_count = count("Trades in its cluster.", nullable=True)
    momentum_mean_size = real("Mean size.", unit="base units", nullable=True, min=0)
    momentum_mean_notional = real("Mean price · size.", unit="quote currency", nullable=True, min=0)
    momentum_mean_direction = real("Mean aggressor.", unit="1", nullable=True, min=-1, max=1)
    momentum_mean_abs_return = real("Mean |return since the trade before|.", unit="1", nullable=True, min=0)
    mean_reversion_trade_count = count("Trades in its cluster.", nullable=True)
    mean_reversion_mean_size = real("Mean size.", unit="base units", nullable=True, min=0)
    mean_reversion_mean_notional = real("Mean price · size.", unit="quote currency", nullable=True, min=0)
    mean_reversion_mean_direction = real("Mean aggressor.", unit="1", nullable=True, min=-1, max=1)
    mean_reversion_mean_abs_return = real("Mean |return since the trade before|.", unit="1", nullable=True, min=0)
    hedging_trade_count = count("Trades in its cluster.", nullable=True)
    hedging_mean_size = real("Mean size.", unit="base units", nullable=True, min=0)
    hedging_mean_notional = real("Mean price · size.", unit="quote currency", nullable=True, min=0)
    hedging_mean_direction = real("Mean aggressor.", unit="1", nullable=True, min=-1, max=1)
    hedging_mean_abs_return = real("Mean |return since the trade before|.", unit="1", nullable=True, min=0)
    momentum_centroid_size = real("Mean standardised log(1 + size).", unit="1", nullable=True)
    momentum_centroid_direction = real("Mean standardised aggressor.", unit="1", nullable=True)
    momentum_centroid_return = real("Mean standardised return.", unit="1", nullable=True)
    momentum_centroid_notional = real("Mean standardised log(1 + notional).", unit="1", nullable=True)
    momentum_centroid_sweep = real("Mean standardised sweep flag.", unit="1", nullable=True)
    momentum_centroid_gap = real("Mean standardised log(1 + seconds since the last).", unit="1", nullable=True)
    mean_reversion_centroid_size = real("Mean standardised log(1 + size).", unit="1", nullable=True)
    mean_reversion_centroid_direction = real("Mean standardised aggressor.", unit="1", nullable=True)
    mean_reversion_centroid_return = real("Mean standardised return.", unit="1", nullable=True)
    mean_reversion_centroid_notional = real("Mean standardised log(1 + notional).", unit="1", nullable=True)
    mean_reversion_centroid_sweep = real("Mean standardised sweep flag.", unit="1", nullable=True)
    mean_reversion_centroid_gap = real("Mean standardised log(1 + seconds since the last).", unit="1", nullable=True)
    hedging_centroid_size = real("Mean standardised log(1 + size).", unit="1", nullable=True)
    hedging_centroid_direction = real("Mean standardised aggressor.", unit="1", nullable=True)
    hedging_centroid_return = real("Mean standardised return.", unit="1", nullable=True)
    hedging_centroid_notional = real("Mean standardised log(1 + notional).", unit="1", nullable=True)
    hedging_centroid_sweep = real("Mean standardised sweep flag.", unit="1", nullable=True)
    hedging_centroid_gap = real("Mean standardised log(1 + seconds since the last).", unit="1", nullable=True)
    status = choice("Why values are null.", Status)
    ts_known = instant("Latest receipt of the trades used.")


class ClosingImbalance(Contract):
    """What the closing auction may bring, estimated in the session's last hour."""

    table: ClassVar[str] = "microstructure/closing_imbalance"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event",)

    ts_event = instant("When the estimate was made.")
    symbol = text("The platform's unique name of the instrument.")
    minutes_to_close = real("Minutes until the session ends; null where none is on.", unit="min", nullable=True, min=0)
    projected_volume = real("Volume expected in the auction.", unit="base units", nullable=True, min=0)
    imbalance_notional = real("Expected unpaired amount.", unit="quote currency", nullable=True, min=0)
    paired_notional = real("Expected paired amount.", unit="quote currency", nullable=True, min=0)
    imbalance_ratio = real("Imbalance ÷ (imbalance + paired).", unit="1", nullable=True, min=0, max=1)
    side = choice("Which side has more to do.", AuctionSide, nullable=True)
    estimated = flag("True: estimated from the tape and the book; false: published by the exchange.")
    status = choice("Why values are null.", Status)
    ts_known = instant("Latest receipt of what the row used.")


class UnusualActivity(Contract):
    """How unusual the volume of an option chain is against its open interest, one row a snapshot."""

    table: ClassVar[str] = "microstructure/unusual_activity"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event",)

    ts_event = instant("Time of the snapshot.")
    symbol = text("The platform's unique name of the underlying.")
    score = real("Weighted mean of the parts, each full at 1.", unit="1", nullable=True, min=0, max=1)
    classification = choice("What the score means; without one, why.", OptionActivity)
    volume_oi_ratio = real("Volume ÷ open interest of the chain.", unit="1", nullable=True, min=0)
    max_contract_ratio = real(
        "Volume ÷ max(open interest, 1) of the most active contract.", unit="1", nullable=True, min=0
    )
    large_notional_count = count("Contracts whose traded value is large.", nullable=True)
    high_ratio_count = count("Contracts whose volume is high against their open interest.", nullable=True)
    call_volume = real("Of calls.", unit="contracts", nullable=True, min=0)
    put_volume = real("Of puts.", unit="contracts", nullable=True, min=0)
    dominant_flow = choice("Which side has most of the volume.", OptionFlow, nullable=True)
    contracts_used = count("Contracts that count.")
    contracts_skipped = count("Contracts that do not.")
    status = choice("Why values are null.", Status)
    ts_known = instant("When the snapshot was known.")
