"""The order-flow table of the daily market report: what it shows a symbol, and why a value is missing."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from quant_platform.contracts.enums import Level, Status, VpinMethod
from quant_platform.contracts.microstructure import (
    FlowClusters,
    HiddenOrder,
    OrderBookImbalance,
    ParticipantFlow,
    Sweep,
    Toxicity,
    Vpin,
)
from quant_platform.reports import numbers
from quant_platform.reports.market_day import DailyMarket, absence, no_trades
from quant_platform.reports.market_order_flow import CLUSTERS, SHARES
from quant_platform.reports.page import Cell, Column, Table

_JUDGED = 0.95
_SUMS: Mapping[str, str] = {Status.NAN: "sums overflow"}
_WORDS: Mapping[str, Mapping[str, str]] = {
    Vpin.table: {
        Status.NO_DATA: "no bucket size: no earlier session says how much trades",
        Status.ZERO_VOLUME: "nothing traded yet",
    },
    OrderBookImbalance.table: {
        Status.NO_DATA: "the book was empty",
        Status.NO_DEPTH: "the feed has no depth",
        Status.INVALID_INPUT: "prices or sizes of the book are no numbers",
        Status.ONE_SIDED: "one side of the book was empty",
        Status.CROSSED: "the book was crossed",
        Status.ZERO_SIZE: "the touch had no size",
    },
    HiddenOrder.table: {
        Status.NO_DATA: "no quotes before the trades",
        Status.ONE_SIDED: "one side of the book was empty",
        Status.CROSSED: "the book was crossed",
    },
    FlowClusters.table: {Status.TOO_FEW: "too few trades for clusters", **_SUMS},
    ParticipantFlow.table: _SUMS,
    Toxicity.table: _SUMS,
}
_COLUMNS = (
    Column("Symbol", is_number=False),
    Column("VPIN", "0 to 1", "Mean |bought - sold| ÷ bucket size after the day's last trade; microstructure/vpin"),
    Column("VPIN range", "low to high", "Lowest and highest VPIN of the day; microstructure/vpin"),
    Column("CDF", "0 to 1", "Share of earlier sessions' VPINs that are no higher; microstructure/vpin"),
    Column("Level", "of CDF", "Where the CDF stands against its thresholds; microstructure/vpin", is_number=False),
    Column(
        "Toxicity",
        "mean / max",
        "Blend of VPIN, one-sidedness and large trades, 0 to 1, day's; microstructure/toxicity",
    ),
    Column("Toxic", "minutes", "Minutes that ended with toxicity at level high; microstructure/toxicity"),
    Column(
        "Imbalance",
        "mean |l5|",
        "Mean |bid - ask| ÷ (bid + ask) of sizes over five levels, 0 to 1; of the touch alone where the feed has no "
        "depth; microstructure/order_book_imbalance",
    ),
    Column(
        "OFI",
        "base units",
        "Order flow imbalance at the touch, summed; + is buying; microstructure/order_book_imbalance",
    ),
    Column("Sweeps", "buy / sell", "One side trading quickly through several prices; microstructure/sweeps"),
    Column("Swept", "of volume", "Share of the day's volume in sweeps; microstructure/sweeps"),
    Column(
        "Hidden (exp.)",
        "of volume",
        "Experimental: share of the day's volume that had not been displayed; trades without a quote before them count "
        "as displayed; microstructure/hidden_orders",
    ),
    Column(
        "Institutions",
        "of notional",
        "Mean share of the latest trades, minute by minute, by rules of thumb; microstructure/participant_flow",
    ),
    Column(
        "Retail",
        "of notional",
        "Mean share of the latest trades, minute by minute, by rules of thumb; microstructure/participant_flow",
    ),
    Column(
        "Cluster",
        "of trades",
        "Largest cluster: its mean share of the latest trades, minute by minute; microstructure/flow_clusters",
        is_number=False,
    ),
)
_REMARK = (
    "VPIN, CDF and level are those after the day's last trade. Imbalance says how lopsided the book was, whichever "
    "side was the heavier. Hidden volume (experimental), institutions, retail and clusters are rules of thumb, not "
    "facts of the tape. Definitions: docs/data_dictionary.md, under microstructure/."
)


def order_flow_rows(day: DailyMarket) -> pl.DataFrame:
    """Return one row per symbol, in the report's order, with null where there is nothing to say.

    Returns:
        `symbol vpin vpin_low vpin_high vpin_cdf vpin_level vpin_method is_vpin_warm toxicity_mean toxicity_max
        toxicity_high_minutes imbalance_l5 imbalance_l1 ofi sweeps_bought sweeps_sold swept_volume_share
        hidden_volume_share hidden_judged_share institutional_notional_share retail_notional_share flow_cluster
        flow_cluster_share`, as in `OrderFlow`. Shares of volume are of the five-minute bars'. The cluster is the
        largest one.
    """
    traded = day.bars_5m.group_by("symbol").agg(traded=pl.col("volume").sum()).filter(pl.col("traded") > 0)
    built = day.coverage.filter(pl.col("table") == Sweep.table, pl.col("status") == "ok")["symbol"].to_list()
    # No row is no sweep only where somebody looked for one.
    is_none = pl.col("symbol").is_in(built) & pl.col("traded").is_not_null()
    swept = {
        name: pl.when(pl.col(name).is_null() & is_none).then(0).otherwise(pl.col(name))
        for name in ("sweeps_bought", "sweeps_sold", "swept_volume")
    }
    share = pl.max_horizontal(f"{name}_share" for name in CLUSTERS)
    largest = [pl.when(pl.col(f"{name}_share") == share).then(pl.lit(name)) for name in CLUSTERS]
    return (
        pl.DataFrame({"symbol": day.symbols}, schema={"symbol": pl.String})
        .join(day.order_flow.numbers, on="symbol", how="left", maintain_order="left")
        .join(traded, on="symbol", how="left", maintain_order="left")
        .with_columns(**swept)
        .select(
            "symbol",
            "vpin",
            "vpin_low",
            "vpin_high",
            "vpin_cdf",
            "vpin_level",
            "vpin_method",
            "is_vpin_warm",
            "toxicity_mean",
            "toxicity_max",
            "toxicity_high_minutes",
            "imbalance_l5",
            "imbalance_l1",
            "ofi",
            "sweeps_bought",
            "sweeps_sold",
            (pl.col("swept_volume") / pl.col("traded")).alias("swept_volume_share"),
            (pl.col("hidden_volume") / pl.col("traded")).alias("hidden_volume_share"),
            "hidden_judged_share",
            *SHARES,
            pl.coalesce(largest).alias("flow_cluster"),
            share.alias("flow_cluster_share"),
        )
    )


def order_flow_reasons(day: DailyMarket, symbol: str) -> dict[str, str]:
    """Return, for each column of `order_flow_rows`, the reason that applies where this symbol's value is null."""
    found = day.order_flow.numbers.filter(pl.col("symbol") == symbol)
    known: dict[str, Any] = found.row(0, named=True) if found.height else {}
    has_row = day.daily.filter(pl.col("symbol") == symbol, pl.col("trading_date") == day.date).height
    silent = None if has_row else no_trades(day, symbol)

    def why(table: str, status: str) -> str:
        if known.get(status):
            return _WORDS[table].get(known[status], f"{table} does not say")
        nothing = silent if table != OrderBookImbalance.table else "no book and no quotes on this date"
        return absence(day, symbol, table) or nothing or f"{table} has no rows on this date"

    def of_volume(name: str, otherwise: str) -> str:
        no_bars = absence(day, symbol, "market/bars_5m") or "no five-minute bars to compare with"
        return no_bars if known.get(name) is not None else otherwise

    vpin, book = why(Vpin.table, "vpin_status"), why(OrderBookImbalance.table, "book_status")
    standing = "too few earlier sessions"
    if known.get("vpin") is None:
        standing = vpin
    elif known["vpin_method"] == VpinMethod.SIMPLE_IMBALANCE:
        standing = "too few full buckets: VPIN is of all volume since the open"
    toxicity = why(Toxicity.table, "toxicity_status")
    sweeps, hidden = why(Sweep.table, ""), why(HiddenOrder.table, "hidden_status")
    participants, clusters = why(ParticipantFlow.table, "participant_status"), why(FlowClusters.table, "cluster_status")
    return {
        **dict.fromkeys(("vpin", "vpin_low", "vpin_high", "vpin_method", "is_vpin_warm"), vpin),
        **dict.fromkeys(("vpin_cdf", "vpin_level"), standing),
        **dict.fromkeys(("toxicity_mean", "toxicity_max", "toxicity_high_minutes"), toxicity),
        "imbalance_l5": why(OrderBookImbalance.table, "depth_status"),
        **dict.fromkeys(("imbalance_l1", "ofi"), book),
        **dict.fromkeys(("sweeps_bought", "sweeps_sold"), sweeps),
        "swept_volume_share": of_volume("swept_volume", sweeps),
        "hidden_volume_share": of_volume("hidden_volume", hidden),
        "hidden_judged_share": hidden,
        **dict.fromkeys(SHARES, participants),
        **dict.fromkeys(("flow_cluster", "flow_cluster_share"), clusters),
    }


def order_flow_table(day: DailyMarket, rows: pl.DataFrame) -> Table:
    """Return one line per symbol from the rows of `order_flow_rows`."""
    lines = tuple(_line(row, order_flow_reasons(day, row["symbol"])) for row in rows.iter_rows(named=True))
    return Table("Order flow", _COLUMNS, lines, "The report covers no symbols.", _REMARK)


def _line(row: Mapping[str, Any], why: Mapping[str, str]) -> tuple[Cell, ...]:
    def share(name: str, places: int = 1) -> Cell:
        return numbers.percent(row[name], places, why[name])

    def value(name: str, places: int = 3) -> Cell:
        return numbers.fixed(row[name], places, why[name])

    def whole(name: str) -> Cell:
        return numbers.whole(row[name], why[name])

    def pair(first: Cell, second: Cell, between: str) -> Cell:
        return first if first.reason else Cell(f"{first.text}{between}{second.text}")

    has_few_buckets = row["vpin_method"] == VpinMethod.SIMPLE_IMBALANCE
    is_cold = row["vpin_cdf"] is not None and not row["is_vpin_warm"]
    level = row["vpin_level"]
    depth = value("imbalance_l5", 2) if row["imbalance_l5"] is not None else value("imbalance_l1", 2)
    is_touch = row["imbalance_l5"] is None and row["imbalance_l1"] is not None
    judged = row["hidden_judged_share"]
    is_sparse = judged is not None and judged < _JUDGED
    cluster = (row["flow_cluster"] or "").replace("_", " ")
    return (
        Cell(row["symbol"], style="name"),
        _noted(value("vpin"), "too few full buckets: of all volume since the open" if has_few_buckets else ""),
        pair(value("vpin_low"), value("vpin_high"), "–"),
        _noted(value("vpin_cdf", 2), "earlier sessions are missing: not warm yet" if is_cold else ""),
        Cell(level, style="warn" if level == Level.HIGH else "") if level else numbers.missing(why["vpin_level"]),
        pair(value("toxicity_mean", 2), value("toxicity_max", 2), " / "),
        whole("toxicity_high_minutes"),
        _noted(depth, f"mean |l1|, the touch alone: {why['imbalance_l5']}" if is_touch else ""),
        numbers.large(row["ofi"], why["ofi"], is_signed=True),
        pair(whole("sweeps_bought"), whole("sweeps_sold"), " / "),
        share("swept_volume_share"),
        _noted(
            share("hidden_volume_share"), f"only {judged:.0%} of trades had a quote before them" if is_sparse else ""
        ),
        *(share(name) for name in SHARES),
        pair(Cell(cluster) if cluster else numbers.missing(why["flow_cluster"]), share("flow_cluster_share", 0), " "),
    )


def _noted(cell: Cell, note: str) -> Cell:
    return Cell(cell.text, note, cell.style) if note and not cell.reason else cell
