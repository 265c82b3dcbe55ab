"""Small pictures of the tables of options and volatility, one function a table, for `TableAsset.plot`.

A symbol has a line of panels; what is drawn of one snapshot is drawn of the newest.
"""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from quant_platform.contracts.enums import Exposure, Status, VolRegime
from quant_platform.defs.option_panels import dates_below, gamma_panels, grid, lines_over_time, short_bars
from quant_platform.defs.plots import DOWN, LINE, UP, panels, picture
from quant_platform.reports.strike_steps import by_steps
from quant_platform.storage.lake import Lake

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_VALUES = ("gex_gross", "gex_net", "dex_net")
_MOST_SNAPSHOTS = 48
_REGIME_DAYS = 90
_POINTS = 41
_MOST_SLICES, _K_SHOWN = 12, 0.4
_FLOWS = {
    "vanna_net_notional_per_vol_pt": "vanna, net per vol point",
    "charm_net_notional_per_day": "charm, net per day",
    "notional_per_pct_move": "hedging per +1 %, calls + puts",
}
_EXPOSURES = dict(zip(Exposure, ("#8fb0dc", LINE, UP, "#c98a1b", "#7a4fa3", DOWN), strict=True))
_REGIMES = {
    VolRegime.BENIGN: UP,
    VolRegime.NORMAL: LINE,
    VolRegime.ELEVATED: "#c98a1b",
    VolRegime.SHOCK: DOWN,
    None: "#b9c2cc",
}
_no_chain = "No chain of options is known on this date."
_of_chain = pl.col("strike").is_null() & pl.col("expiry").is_null()


def gamma_exposure(lake: Lake, table: str, day: date) -> str:
    """Return gamma by strike beside spot and zero gamma; gamma and delta by strike and expiry, and over the date."""
    rows = lake.scan(table, None, day, day).filter(pl.col("status") == Status.OK)
    chains = rows.filter(_of_chain).select("symbol", "ts_event", "underlying_price", "zero_gamma").collect()
    if chains.is_empty():
        return _no_chain
    shown = chains.group_by("symbol", maintain_order=True).map_groups(_thinned)
    newest = shown.group_by("symbol").agg(pl.col("ts_event").last()).lazy()
    spots = shown.group_by("symbol").agg(spot=pl.col("underlying_price").last()).lazy()
    by_strike = rows.filter(pl.col("strike").is_not_null() & pl.col("expiry").is_null())
    by_expiry = rows.filter(pl.col("expiry").is_not_null()).join(newest, on=["symbol", "ts_event"], how="semi")
    over_time = by_strike.join(shown.lazy(), on=["symbol", "ts_event"], how="semi")
    frames = pl.collect_all(
        [
            by_steps(over_time, spots, by=("ts_event",), values=_VALUES),
            by_steps(by_expiry, spots, by=("expiry",), values=_VALUES),
        ]
    )
    return picture(gamma_panels(shown, *frames))


def dealer_flow(lake: Lake, table: str, day: date) -> str:
    """Return what hedgers trade as volatility, time and the underlying move, by expiry."""

    def draw(row: Sequence["Axes"], part: pl.DataFrame) -> None:
        for axes, (column, title) in zip(row, _FLOWS.items(), strict=True):
            short_bars(axes, part[column])
            dates_below(axes, part["expiry"])
            axes.set_title(title, loc="right", fontsize=7, y=1)

    rows = _newest(lake, table, day).filter(pl.col("expiry").is_not_null()).collect()
    return _lines(rows, len(_FLOWS), draw)


def skew(lake: Lake, table: str, day: date) -> str:
    """Return the skew of each expiry, and that of the nearest over the date."""
    headlines = lake.scan(table, None, day, day).filter(pl.col("expiry").is_null()).drop_nulls("skew").collect()

    def draw(row: Sequence["Axes"], part: pl.DataFrame) -> None:
        symbol = part["symbol"][0]
        row[0].plot(range(part.height), part["skew"] * 100, color=LINE, linewidth=1, marker="o", markersize=2.5)
        dates_below(row[0], part["expiry"])
        row[0].set_title("put less call at one delta, vol points, by expiry", loc="right", fontsize=7, y=1)
        lines_over_time(row[1], headlines.filter(pl.col("symbol") == symbol), pl.col("skew") * 100)
        row[1].set_title("of the nearest expiry, UTC", loc="right", fontsize=7, y=1)

    rows = _newest(lake, table, day).filter(pl.col("expiry").is_not_null()).drop_nulls("skew").collect()
    return _lines(rows, 2, draw, nothing="No skew is known on this date.")


def exposure_history(lake: Lake, table: str, day: date) -> str:
    """Return how far each exposure stands from its mean, in standard deviations, over the date."""
    rows = (
        lake.scan(table, None, day, day)
        .drop_nulls("z_score")
        .select("symbol", "exposure", "z_score", ts_open="ts_event")
    )

    def draw(axes: "Axes", hours: pl.Series, part: pl.DataFrame) -> None:
        for exposure, colour in _EXPOSURES.items():
            own = part["exposure"] == exposure
            axes.plot(
                hours.filter(own),
                part["z_score"].filter(own),
                color=colour,
                linewidth=0.9,
                label=exposure.replace("_", " "),
            )
        for level in (-2, 0, 2):
            axes.axhline(level, color="#b9c2cc", linewidth=0.6, linestyle="-" if level == 0 else "--")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=6, fontsize=6, frameon=False)

    return panels(rows.collect(), draw, nothing="No exposure has a z-score on this date.")


def vol_surface(lake: Lake, table: str, day: date) -> str:
    """Return the volatility of fitted slices where they are quoted, near to far; one with arbitrage is dashed."""

    def draw(row: Sequence["Axes"], part: pl.DataFrame) -> None:
        import matplotlib as mpl

        is_flagged = part["arbitrage"].fill_null(value=False) | part["calendar_arbitrage"].fill_null(value=False)
        chosen = sorted({round(at) for at in np.linspace(0, part.height - 1, min(_MOST_SLICES, part.height))})
        for at, colour in zip(chosen, mpl.colormaps["viridis"](np.linspace(0, 0.9, len(chosen))), strict=True):
            of = part.row(at, named=True)
            style = {"color": colour, "linewidth": 1, "linestyle": "--" if is_flagged[at] else "-"}
            row[0].plot(*_slice(of), label=f"{of['expiry']:%d %b %y}", **style)
        row[0].legend(loc="upper right", fontsize=6, frameon=False, ncols=3)
        title = (
            "volatility in % against log(strike ÷ forward), where quoted; "
            f"{is_flagged.sum()} of {part.height} slices have arbitrage: dashed"
        )
        row[0].set_title(title, loc="right", fontsize=7, y=1)

    is_near = (pl.col("k_low") < _K_SHOWN) & (pl.col("k_high") > -_K_SHOWN)
    rows = _newest(lake, table, day).filter((pl.col("status") == Status.OK) & is_near).collect()
    return _lines(rows, 1, draw, nothing="No slice of a surface was fitted on this date.")


def vix1d_proxy(lake: Lake, table: str, day: date) -> str:
    """Return our own index over the short horizon, over the date."""
    rows = (
        lake.scan(table, None, day, day).drop_nulls("vix1d_proxy").select("symbol", "vix1d_proxy", ts_open="ts_event")
    )
    return panels(
        rows.collect(),
        lambda axes, hours, part: axes.plot(
            hours, part["vix1d_proxy"], color=LINE, linewidth=1, marker=".", markersize=3
        ),
        nothing="No strips of options enclose the horizon on this date.",
    )


def vix1d_regime(lake: Lake, table: str, day: date) -> str:
    """Return the readings of each source over the last weeks, coloured by their regime."""
    rows = lake.scan(table, None, day - timedelta(days=_REGIME_DAYS), day).drop_nulls("value").collect()

    def draw(row: Sequence["Axes"], part: pl.DataFrame) -> None:
        row[0].plot(part["ts_event"], part["value"], color="#dfe3e8", linewidth=0.8, zorder=1)
        for regime, colour in _REGIMES.items():
            own = part.filter(pl.col("regime").eq_missing(regime))
            if own.height:
                label = regime.lower() if regime else "not known"
                row[0].scatter(own["ts_event"], own["value"], s=6, color=colour, label=label, zorder=2)
        row[0].legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=5, fontsize=6, frameon=False)

    named = rows.with_columns(symbol=pl.format("{} of {}", "symbol", "source"))
    return _lines(named.sort("symbol", "ts_event"), 1, draw, nothing="No reading is known up to this date.")


def _newest(lake: Lake, table: str, day: date) -> pl.LazyFrame:
    is_newest = pl.col("ts_event") == pl.col("ts_event").max().over("symbol")
    return lake.scan(table, None, day, day).filter(is_newest)


def _thinned(snapshots: pl.DataFrame) -> pl.DataFrame:
    """Return at most so many snapshots of a symbol, evenly spaced, the newest among them."""
    return snapshots.reverse().gather_every(-(-snapshots.height // _MOST_SNAPSHOTS)).reverse()


def _slice(of: dict[str, Any]) -> tuple[Any, Any]:
    k = np.linspace(max(of["k_low"], -_K_SHOWN), min(of["k_high"], _K_SHOWN), _POINTS)
    away = k - of["m"]
    variance = of["a"] + of["b"] * (of["rho"] * away + np.sqrt(away**2 + of["s"] ** 2))
    return k, 100 * np.sqrt(np.maximum(variance, 0) / of["years"])


def _lines(
    rows: pl.DataFrame,
    columns: int,
    draw: Callable[[Sequence["Axes"], pl.DataFrame], None],
    *,
    nothing: str = _no_chain,
) -> str:
    """Draw a line of panels a symbol; return the picture as Markdown."""
    if rows.is_empty():
        return nothing
    parts = rows.partition_by("symbol", as_dict=True)
    figure, lines = grid([str(symbol) for (symbol,) in sorted(parts)], [1.0] * columns, height=1.9)
    for row, (_, part) in zip(lines, sorted(parts.items()), strict=True):
        draw(row, part)
    return picture(figure)
