"""How toxic the flow is for who makes the market: VPIN and what the last trades say, as one number."""

import json
from dataclasses import dataclass

import numpy as np
import polars as pl

from quant_platform.calculators._trade_windows import Array, TradeWindows, no_trades, range_sums
from quant_platform.calculators.participants import (
    COLUMNS,
    INSTITUTIONAL,
    Hits,
    InstitutionalParams,
    MarkedWindows,
    described,
    hit_count,
    institutional_score,
    windows_for_hits,
)
from quant_platform.contracts.enums import Aggressor, Level
from quant_platform.contracts.microstructure import Toxicity

LOOKBACK_SESSIONS = 1

_BLENDED = ("vpin", "aggressor_ratio", "large_trade_ratio")
_SIDES = {"buy": Aggressor.BUYER, "sell": Aggressor.SELLER, "unclassified": Aggressor.UNKNOWN}
_OPTION = r"^[A-Z.]{1,6} *\d{6}[CP]\d{8}$|-\d{1,2}[A-Z]{3}\d{2}-[\dd]+-[CP]$"
"""Names of option series: OSI's, and Deribit's."""
_DIGITS = 9  # a blend is rounded before it is held against a threshold: 0.6 · 0.5 + … may miss it by its last bit


@dataclass(frozen=True, kw_only=True)
class ToxicityParams:
    """What is blended, and when it is much.

    Attributes:
        window_trades: Most trades in a window.
        sample_s: Width of the intervals in seconds, each of which gives one row.
        weights: Of VPIN, aggressor ratio and large-trade ratio.
        large_trade_notional: Price · size from which a trade is large, in quote currency.
        large_trade_contracts: Size from which a trade of an option is large too.
        moderate: Blend from which the level is moderate.
        high: Blend from which the level is high.
        confident_trades: Trades from which confidence is not lower for want of trades.
        institutional: What makes a trade look institutional.
    """

    window_trades: int = 200
    sample_s: int = 60
    weights: tuple[float, float, float] = (0.5, 0.3, 0.2)
    large_trade_notional: float = 250_000.0
    large_trade_contracts: float = 250.0
    moderate: float = 0.55
    high: float = 0.70
    confident_trades: int = 40
    institutional: InstitutionalParams = INSTITUTIONAL

    def __post_init__(self) -> None:
        for name in ("window_trades", "sample_s", "confident_trades"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, was {getattr(self, name)}")
        for name in ("large_trade_notional", "large_trade_contracts"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, was {getattr(self, name)}")
        if not min(self.weights) > 0:
            raise ValueError(f"weights must be > 0, were {self.weights}")
        if not 0 < self.moderate <= self.high <= 1:
            raise ValueError(f"0 < moderate <= high <= 1 must hold, were {self.moderate} and {self.high}")


@dataclass(frozen=True)
class State:
    """The trades that later windows need: some `window_trades` of each symbol."""

    tail: pl.DataFrame


_DEFAULTS = ToxicityParams()


def initial() -> State:
    """Return the state before the first trade."""
    return State(no_trades(*COLUMNS))


def step(
    state: State,
    trades: pl.DataFrame,
    vpin: pl.DataFrame,
    params: ToxicityParams = _DEFAULTS,
    *,
    windows: MarkedWindows | None = None,
) -> tuple[State, pl.DataFrame]:
    """Fold a chunk of the signed tape into the state, and return the toxicity after each interval that it touched.

    Cutting the tape anywhere changes nothing: of all outputs, the last row per symbol and ts_open is the row of one
    pass over the whole tape.

    Args:
        state: What `initial` or the previous `step` returned, with the same parameters.
        trades: The signed tape, any number of symbols, any row order. A row with a null in what the tape requires, or
            with a price or size that is NaN, infinite, zero or negative, is ignored, and so is one that is not later,
            by (ts_event, trade_id), than what came of its symbol in earlier chunks. A row is one trade, also on an
            aggTrades tape.
        vpin: What VPIN's fold returned for the same trades and `sample_s`, one row per symbol and interval:
            `symbol ts_open vpin ts_known`. Where a row or its value is missing, the other weights count alone.
        params: The window, the weights and the thresholds.
        windows: What `windows_for_hits` gives for this state, these trades and these params, where it was asked.

    Returns:
        The next state, and one row per symbol and interval: contract `Toxicity`, sorted by symbol and ts_open, over the
        last `window_trades` trades up to the last one in the interval. A trade crosses the spread where it trades at
        or through the quote of the other side; trades without a quote before them, or with a crossed one, are left out
        of that ratio. Values are null where sums overflow (`nan`).

    Raises:
        ValueError: A usable trade has no `ts_recv`.
    """
    marked = windows or windows_for_hits(
        state.tail, trades, params.window_trades, params.sample_s, params.institutional
    )
    whole = marked.windows
    venues = whole.rows.get_column("venue").rle().struct.field("value").unique().drop_nulls().sort().to_list()
    values = marked.columns(lambda block, hits: _ratios(block, hits, params) | _venue_volumes(block, venues))
    known = _vpin_at(whole.samples, vpin)
    is_option = pl.col("symbol").str.contains(_OPTION)
    rows = whole.samples.hstack(values).with_columns(
        known["vpin"],
        large_trade_ratio=pl.when(is_option).then("large_option_ratio").otherwise("large_trade_ratio"),
        venue_mix=_venue_mix(venues),
    )
    rows = blend(rows, params)
    ts_known = pl.max_horizontal("ts_known", known["vpin_known"])
    return State(whole.tail), described(Toxicity, whole, rows).with_columns(ts_known)


def blend(rows: pl.DataFrame, params: ToxicityParams = _DEFAULTS) -> pl.DataFrame:
    """Return the rows with `toxicity_adjusted`, its level and the confidence.

    Args:
        rows: `vpin aggressor_ratio large_trade_ratio`, each in [0, 1] or null, and `trade_count`.
        params: Weights, thresholds, and the trades wanted.

    Returns:
        `toxicity_adjusted` is the mean of those that are not null by their weights, null where all are, and so is its
        level. `confidence` is min(1, trades/wanted) · the share of the weights whose input is not null.
    """
    inputs = dict(zip(_BLENDED, params.weights, strict=True))
    weighted = pl.sum_horizontal(pl.col(name) * weight for name, weight in inputs.items())
    present = pl.sum_horizontal(pl.col(name).is_not_null() * weight for name, weight in inputs.items())
    enough = pl.min_horizontal(pl.lit(1.0), pl.col("trade_count") / params.confident_trades)
    blended = pl.col("toxicity_adjusted")
    return rows.with_columns(
        toxicity_adjusted=pl.when(present > 0).then(weighted / present),
        confidence=enough * present / sum(params.weights),
    ).with_columns(toxicity_adjusted_level=level(blended, moderate=params.moderate, high=params.high))


def level(value: pl.Expr, *, moderate: float, high: float) -> pl.Expr:
    """Return how far a value stands above its thresholds, each of which belongs to the level above; null for null."""
    rounded = value.round(_DIGITS)
    return (
        pl.when(rounded >= high)
        .then(pl.lit(Level.HIGH))
        .when(rounded >= moderate)
        .then(pl.lit(Level.MODERATE))
        .when(rounded.is_not_null())
        .then(pl.lit(Level.LOW))
    )


@np.errstate(all="ignore")  # no quoted volume is zero, sums may overflow: null in the end
def _ratios(windows: TradeWindows, marked: Hits, params: ToxicityParams) -> dict[str, Array]:
    price, size, side = (windows.column(name) for name in ("price", "size", "aggressor"))
    bid, ask = windows.column("bid_price"), windows.column("ask_price")
    notional = price * size
    is_large = notional >= params.large_trade_notional
    is_quoted = bid <= ask
    is_crossing = is_quoted & (((side > 0) & (price >= ask)) | ((side < 0) & (price <= bid)))

    def total(values: Array) -> Array:
        return range_sums(values, windows.start, windows.stop)

    volume = total(size)
    volumes = {f"{name}_volume": total(size * (side == sign)) for name, sign in _SIDES.items()}
    bought, sold = volumes["buy_volume"], volumes["sell_volume"]
    return {
        **volumes,
        "is_finite": np.isfinite(total(notional)) & np.isfinite(volume),
        "aggressor_ratio": np.where(bought + sold > 0, np.abs(bought - sold) / volume, np.nan),
        "large_trade_ratio": total(size * is_large) / volume,
        "large_option_ratio": total(size * (is_large | (size >= params.large_trade_contracts))) / volume,
        "spread_cross_ratio": total(size * is_crossing) / total(size * is_quoted),
        "institutional_score": institutional_score(marked, marked.entries.of(notional), params.institutional),
        "dark_venue_hits": hit_count(marked, marked.dark_venue, marked.is_venue_known),
    }


def _vpin_at(samples: pl.DataFrame, vpin: pl.DataFrame) -> pl.DataFrame:
    """Return `vpin vpin_known` of each sample, null where there is none."""
    key = ("symbol", "ts_open")
    known = vpin.filter(pl.col("vpin").is_finite()).select(*key, "vpin", vpin_known="ts_known")
    return samples.select(key).join(known.unique(key, keep="last"), on=key, how="left", maintain_order="left")


def _venue_volumes(windows: TradeWindows, venues: list[str]) -> dict[str, Array]:
    """Return the volume of each venue and side in each window, named `venue/side`."""
    size, side = windows.column("size"), windows.column("aggressor")
    volumes = {}
    for venue in venues:
        there = size * (windows.rows.get_column("venue") == venue).fill_null(False).to_numpy()
        for name, sign in _SIDES.items():
            volumes[f"{venue}/{name}"] = range_sums(there * (side == sign), windows.start, windows.stop)
    return volumes


def _venue_mix(venues: list[str]) -> pl.Expr:
    """Return the volumes as JSON, of the venues that have any; null where none has."""
    entries = []
    for venue in venues:
        sides = [pl.col(f"{venue}/{name}").alias(name) for name in _SIDES]
        entry = pl.concat_str(pl.lit(json.dumps(venue) + ":"), pl.struct(sides).struct.json_encode())
        entries.append(pl.when(pl.sum_horizontal(sides) > 0).then(entry))
    if not entries:
        return pl.lit(None, pl.String)
    mix = pl.concat_str(pl.lit("{"), pl.concat_str(entries, separator=",", ignore_nulls=True), pl.lit("}"))
    return pl.when(pl.any_horizontal(entry.is_not_null() for entry in entries)).then(mix)
