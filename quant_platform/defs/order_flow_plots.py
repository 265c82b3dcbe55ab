"""Small pictures of the order-flow tables, one function a table, for `TableAsset.plot`."""

from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from quant_platform.defs.plots import DOWN, LINE, UP, panels, uprights
from quant_platform.storage.lake import Lake

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from polars.lazyframe.group_by import LazyGroupBy

_PALE = "#b9c2cc"
_WIDE = 1.6


def signed_trades(lake: Lake, table: str, day: date) -> str:
    """Return volume bought less volume sold, five minutes at a time, one panel a symbol."""
    net = (pl.col("size") * pl.col("aggressor")).sum()
    rows = _slots(lake, table, day, "ts_event").agg(net=net).collect()
    return panels(rows, lambda axes, hours, part: _signed_bars(axes, hours, part["net"]))


def vpin(lake: Lake, table: str, day: date) -> str:
    """Return VPIN, and how high it stands among those of earlier sessions, one panel a symbol."""
    rows = lake.scan(table, None, day, day).select("symbol", "ts_open", "vpin", "cdf").drop_nulls("vpin").collect()
    return panels(
        rows,
        lambda axes, hours, part: _lines(axes, hours, part, {"vpin": LINE, "cdf": _PALE}),
        nothing="No VPIN is known on this date.",
    )


def vpin_buckets(lake: Lake, table: str, day: date) -> str:
    """Return each bucket's imbalance at its end, buyers up and sellers down, one panel a symbol."""
    signed = (pl.col("buy_volume") - pl.col("sell_volume")) / pl.col("bucket_size")
    rows = lake.scan(table, None, day, day).select("symbol", ts_open="ts_end", signed=signed).collect()
    return panels(
        rows,
        lambda axes, hours, part: _signed_bars(axes, hours, part["signed"]),
        nothing="No bucket was filled on this date.",
    )


def order_book_imbalance(lake: Lake, table: str, day: date) -> str:
    """Return the mean imbalance of five levels, else of the touch, by five minutes, one panel a symbol."""
    rows = _slots(lake, table, day).agg(imbalance=pl.coalesce("l5", "l1").mean()).drop_nulls().collect()
    return panels(
        rows,
        lambda axes, hours, part: _signed_bars(axes, hours, part["imbalance"]),
        nothing="No book is known on this date.",
    )


def toxicity(lake: Lake, table: str, day: date) -> str:
    """Return toxicity over the last trades of each interval, one panel a symbol."""
    rows = lake.scan(table, None, day, day).select("symbol", "ts_open", toxicity="toxicity_adjusted").drop_nulls()
    return panels(rows.collect(), lambda axes, hours, part: _lines(axes, hours, part, {"toxicity": LINE}))


def participant_flow(lake: Lake, table: str, day: date) -> str:
    """Return the shares of notional by participant, stacked, by five minutes, one panel a symbol."""
    return _stacked_shares(lake, table, day, ("institutional", "retail", "unclassified"), "_notional_share")


def flow_clusters(lake: Lake, table: str, day: date) -> str:
    """Return the shares of trades by cluster, stacked, by five minutes, one panel a symbol."""
    return _stacked_shares(lake, table, day, ("momentum", "mean_reversion", "hedging"), "_share")


def sweeps(lake: Lake, table: str, day: date) -> str:
    """Return the number of sweeps by five minutes, of buyers up and of sellers down, one panel a symbol."""
    side = pl.col("side")
    rows = _slots(lake, table, day, "ts_end").agg(bought=(side == 1).sum(), sold=-(side == -1).sum().cast(pl.Int64))
    return panels(rows.collect(), _draw_sweeps, nothing="No sweeps on this date.")


def hidden_orders(lake: Lake, table: str, day: date) -> str:
    """Return the volume that had not been displayed, by five minutes, one panel a symbol."""
    volume = pl.col("hidden_volume")
    rows = _slots(lake, table, day, "ts_event").agg(pl.when(volume.count() > 0).then(volume.sum())).drop_nulls()
    return panels(
        rows.collect(),
        lambda axes, hours, part: uprights(axes, hours, 0, part["hidden_volume"], color=LINE, linewidth=_WIDE),
        nothing="No trade could be held against a quote on this date.",
    )


def _slots(lake: Lake, table: str, day: date, time: str = "ts_open") -> "LazyGroupBy":
    rows = lake.scan(table, None, day, day)
    return rows.group_by("symbol", ts_open=pl.col(time).dt.truncate("5m"), maintain_order=True)


def _stacked_shares(lake: Lake, table: str, day: date, names: tuple[str, ...], suffix: str) -> str:
    shares = [f"{name}{suffix}" for name in names]
    rows = _slots(lake, table, day).agg(pl.col(shares).mean()).drop_nulls(shares).collect()

    def draw(axes: "Axes", hours: pl.Series, part: pl.DataFrame) -> None:
        labels = [name.replace("_", " ") for name in names]
        axes.stackplot(hours, [part[share] for share in shares], labels=labels, colors=(LINE, "#8fb0dc", _PALE))
        axes.set_ylim(0, 1)
        _legend(axes)

    return panels(rows, draw)


def _draw_sweeps(axes: "Axes", hours: pl.Series, part: pl.DataFrame) -> None:
    uprights(axes, hours, 0, part["bought"], color=UP, linewidth=_WIDE, label="buy")
    uprights(axes, hours, 0, part["sold"], color=DOWN, linewidth=_WIDE, label="sell")
    _legend(axes)


def _lines(axes: "Axes", hours: pl.Series, part: pl.DataFrame, colours: dict[str, str]) -> None:
    for name, colour in colours.items():
        axes.plot(hours, part[name], color=colour, linewidth=0.8, label=name.replace("_", " "))
    axes.set_ylim(0, None)
    _legend(axes)


def _signed_bars(axes: "Axes", hours: pl.Series, values: pl.Series) -> None:
    for chosen, color in ((values >= 0, UP), (values < 0, DOWN)):
        uprights(axes, hours.filter(chosen), 0, values.filter(chosen), color=color, linewidth=_WIDE)


def _legend(axes: "Axes") -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=3, fontsize=6, frameon=False)
