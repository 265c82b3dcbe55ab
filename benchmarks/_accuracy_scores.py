"""Recorded days of which the truth is known, and how near our estimators come to it. Page and plots are elsewhere."""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import polars as pl

from quant_platform.calculators import bars, hidden_orders, trade_sign, vpin
from quant_platform.contracts.enums import Signing, VpinMethod
from quant_platform.feeds import binance_csv, lobster
from quant_platform.feeds.binance_archive import fetch_day
from quant_platform.feeds.recorded import RecordedError, Wanted

LOBSTER_DATE, BINANCE_DATE = dt.date(2012, 6, 21), dt.date(2024, 8, 8)
TRADES, QUOTES = "market/trades", "market/quotes"

LATENESS_NS = (0, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000, 2_000_000_000, 5_000_000_000)
BUCKETS_PER_DAY = (100, 250, 500)
BAR_SECONDS = (1, 10, 60, 300)
LAST_TRADES = 1_000
_CUT_EVERY = 25
_Z = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True)
class Day:
    """A recorded symbol-day.

    Attributes:
        tape: Contract `Trade`, without its sides.
        quotes: Contract `Quote`.
        truth: `trade_id side is_hidden`, as the exchange has it.
    """

    tape: pl.DataFrame
    quotes: pl.DataFrame
    truth: pl.DataFrame

    @property
    def true_tape(self) -> pl.DataFrame:
        """The tape with its sides."""
        return self.tape.drop("aggressor").join(self.truth.select("trade_id", aggressor="side"), on="trade_id")


@dataclass(frozen=True)
class Rule:
    """A way of signing: parameters, and how late the quotes are made to come."""

    params: trade_sign.TradeSignParams
    late_ns: int = 0


@dataclass(frozen=True)
class Share:
    """So many of so many."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        """The share itself."""
        return self.hits / self.of

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        square = _Z**2 / self.of
        middle = (self.value + square / 2) / (1 + square)
        half = _Z * math.sqrt(self.value * (1 - self.value) / self.of + square / (4 * self.of)) / (1 + square)
        return middle - half, middle + half


@dataclass(frozen=True)
class SignScore:
    """How often a rule is right; a trade without a sign is not. `by_volume` weighs each trade by its size."""

    signed: Share
    right: Share
    visible: Share
    hidden: Share
    by_volume: float
    hidden_by_volume: float


@dataclass(frozen=True)
class HiddenScore:
    """What a rule flags, against what the exchange marked. `volume` is the share of hidden volume that it finds."""

    precision: Share
    recall: Share
    volume: float


@dataclass(frozen=True)
class VpinScore:
    """VPINs from estimated signs against those from true signs, bucket by bucket; `volume` is what is on its side."""

    mean: float
    volume: float
    correlation: float
    difference: float


@dataclass(frozen=True)
class CutScore:
    """VPIN of the last trades alone, against the fold: relative differences where the former exists."""

    buckets: float
    has_vpin: Share
    mean: float
    p95: float
    worst: float


def _rule(
    signing: str = Signing.LEE_READY, *, age_ms: int | None = None, exact: bool = False, late_ns: int = 0
) -> Rule:
    return Rule(trade_sign.TradeSignParams(signing=signing, allow_exact=exact, max_quote_age_ms=age_ms), late_ns)


STRICT = _rule()
OWN_INSTANT = _rule(exact=True)
TICK = _rule(Signing.TICK)
RULES: Mapping[str, Rule] = {
    "Lee–Ready, quote strictly earlier": STRICT,
    "the same, no quote older than 5 s": Rule(trade_sign.TradeSignParams(signing=Signing.LEE_READY)),
    "quote rule alone, quote strictly earlier": _rule(Signing.QUOTE),
    "tick rule alone": TICK,
    "Lee–Ready, quote of the same instant allowed": OWN_INSTANT,
    "Lee–Ready, quotes 1 ms late": _rule(late_ns=1_000_000),
    "Lee–Ready, quotes 100 ms late": _rule(late_ns=100_000_000),
    "Lee–Ready, quotes 1 s late": _rule(late_ns=1_000_000_000),
    "Lee–Ready, quotes 5 s late": _rule(late_ns=5_000_000_000),
}


def lobster_day(data: Path, symbol: str) -> Day:
    """Return a recorded day of NASDAQ's book.

    Raises:
        RecordedError: The folder has no such day.
    """
    folder = data / "lobster_20120621"
    wanted = {t: Wanted(table=t, symbol=symbol, venue_symbol=symbol, date=LOBSTER_DATE) for t in (TRADES, QUOTES)}
    recording = lobster.find(folder, wanted[TRADES])
    if recording is None:
        raise RecordedError(f"{folder} has no {symbol} of {LOBSTER_DATE}. Copy the sample file there.")
    truth = lobster.executions(recording.own[0]).select("trade_id", "is_hidden", side="aggressor")
    trades, quotes = (lobster.read_day(recording, wanted[table]).rows for table in (TRADES, QUOTES))
    return _day(trades, quotes, truth)


def binance_day(data: Path, symbol: str) -> Day:
    """Return the recorded minutes of a perpetual future; the venue gives each trade's side."""
    instrument = SimpleNamespace(symbol=symbol, venue_symbol=symbol, feed="binance_usdm", tape="trades")
    tables = []
    with TemporaryDirectory(prefix="accuracy-") as landing:
        for table in (TRADES, QUOTES):
            archive = (data / "archive").resolve().as_uri()
            day = fetch_day(archive, instrument, table, BINANCE_DATE, landing=Path(landing))
            if day is None:
                raise RecordedError(f"{archive} has no {table} of {symbol} on {BINANCE_DATE}. Copy the files there.")
            tables.append(binance_csv.read_day(day, instrument, BINANCE_DATE).rows)
    trades, quotes = tables
    return _day(trades, quotes, trades.select("trade_id", is_hidden=pl.lit(value=False), side="aggressor"))


def _day(trades: pl.DataFrame, quotes: pl.DataFrame, truth: pl.DataFrame) -> Day:
    tape = trades.with_columns(ts_recv="ts_event", aggressor=pl.lit(0, pl.Int8))
    return Day(tape, quotes.with_columns(ts_recv="ts_event"), truth)


def signed(day: Day, rule: Rule) -> pl.DataFrame:
    """Return the tape as the rule signs it, with the truth beside it."""
    time = pl.col("ts_event")
    late = day.quotes.with_columns((time.to_physical() + rule.late_ns).cast(day.quotes.schema["ts_event"]))
    return trade_sign.signed(day.tape, late, rule.params).join(day.truth, on="trade_id", maintain_order="left")


def sign_score(tape: pl.DataFrame) -> SignScore:
    """Return how a tape of `signed` compares with the truth."""
    is_right, is_hidden, size = pl.col("aggressor") == pl.col("side"), pl.col("is_hidden"), pl.col("size")
    hidden = tape.filter(is_hidden)
    return SignScore(
        _share(tape, pl.col("aggressor") != 0),
        _share(tape, is_right),
        _share(tape.filter(~is_hidden), is_right),
        _share(hidden, is_right),
        tape.select(size.filter(is_right).sum() / size.sum()).item(),
        hidden.select(size.filter(is_right).sum() / size.sum()).item(),
    )


def depth_in_spread(tape: pl.DataFrame) -> pl.DataFrame:
    """Return the hidden executions that have a quote before them, with `depth`, and whether the sign `is_right`.

    `depth` is how deep the aggressor went into the book: 1 at the best price of the other side, 0 at the midpoint, -1
    at the best price of its own.
    """
    price, bid, ask = (pl.col(name).mul(1e4).round() for name in ("price", "bid_price", "ask_price"))
    depth = pl.col("side") * (2 * price - bid - ask) / (ask - bid)
    rows = tape.filter("is_hidden").select(depth=depth, is_right=pl.col("aggressor") == pl.col("side"))
    return rows.drop_nulls("depth")


def by_depth(depths: pl.DataFrame) -> dict[str, tuple[Share, Share]]:
    """Return for each part of the spread its share of the hidden executions, and how often their sign is right."""
    depth = pl.col("depth")
    parts = {
        "at the other side's best price, or beyond": depth >= 1,
        "between the midpoint and there": (depth > 0) & (depth < 1),
        "at the midpoint": depth == 0,
        "on the aggressor's own side of the midpoint": depth < 0,
    }
    return {name: (_share(depths, at), _share(depths.filter(at), pl.col("is_right"))) for name, at in parts.items()}


def hidden_scores(day: Day) -> dict[str, HiddenScore]:
    """Return the scores of the rules for hidden orders, on the tape as Lee and Ready sign it."""
    judged = hidden_orders.hidden_orders(signed(day, STRICT), day.quotes)
    rows = judged.join(day.truth, on="trade_id").join(day.tape.select("trade_id", "size"), on="trade_id")
    flags = {
        name: pl.col(name).fill_null(value=False) for name in ("inside_spread", "excess_size", "iceberg", "refill")
    }
    rules = {
        "`inside_spread`": flags["inside_spread"],
        "`excess_size`": flags["excess_size"],
        "either of these two": flags["inside_spread"] | flags["excess_size"],
        "`iceberg`": flags["iceberg"],
        "`hidden`: any of the three": pl.col("hidden").fill_null(value=False),
        "`refill`: evidence, no verdict": flags["refill"],
    }
    hidden = pl.col("size").filter("is_hidden").sum()
    return {
        name: HiddenScore(
            _share(rows.filter(flag), pl.col("is_hidden")),
            _share(rows.filter("is_hidden"), flag),
            rows.select(pl.col("size").filter(flag & pl.col("is_hidden")).sum() / hidden).item(),
        )
        for name, flag in rules.items()
    }


def vpin_buckets(day: Day, buckets_per_day: int) -> dict[str, pl.DataFrame]:
    """Return the buckets of a day by how its volume is signed; the first are those of the true signs."""
    symbol, volume = day.tape["symbol"][0], day.tape["size"].sum()
    sizes = pl.DataFrame({"symbol": [symbol], "bucket_size": [volume / buckets_per_day]})
    tapes = {
        "true signs": day.true_tape,
        "Lee–Ready, quote strictly earlier": signed(day, STRICT),
        "Lee–Ready, quote of the same instant allowed": signed(day, OWN_INSTANT),
        "tick rule": signed(day, TICK),
    }
    found = {name: vpin.vpin(tape, sizes).buckets for name, tape in tapes.items()}
    for seconds in BAR_SECONDS:
        closes = bars.bars(day.tape, bars.BarParams(width_s=seconds))
        params = vpin.VpinParams(signing=Signing.BVC, bar_s=seconds)
        known = sizes.join(vpin.price_change_std(closes), on="symbol")
        found[f"bulk volume, bars of {seconds} s"] = vpin.vpin(day.tape, known, params).buckets
    return found


def vpin_score(true: pl.DataFrame, estimated: pl.DataFrame) -> VpinScore:
    """Return how the buckets of estimated signs compare with the same ones of true signs."""
    other = estimated.select("bucket", estimated="vpin", bought="buy_volume")
    both = true.join(other, on="bucket", maintain_order="left")
    error = both.select(((pl.col("bought") - pl.col("buy_volume")).abs() / pl.col("bucket_size")).mean()).item()
    known = both.drop_nulls(["vpin", "estimated"])
    ours, truth = known["estimated"].to_numpy(), known["vpin"].to_numpy()
    difference = float(np.abs(ours - truth).mean())
    return VpinScore(float(ours.mean()), 1 - error, float(np.corrcoef(ours, truth)[0, 1]), difference)


def cut_vpins(day: Day, trades_per_bucket: float) -> pl.DataFrame:
    """Return VPIN at every 25th trade, folded over the tape, and from nothing but the last 1,000 trades.

    Returns:
        `ts_event fold cut buckets`; `cut` is null where 1,000 trades do not fill the buckets of a VPIN.
    """
    tape = day.true_tape.sort("ts_event", "trade_id")
    size = trades_per_bucket * tape["size"].mean()
    ends = np.arange(LAST_TRADES, tape.height + 1, _CUT_EVERY)
    names = [f"until {end:06d}" for end in ends]
    # One window, one symbol: so all of them are one call.
    rows = (ends[:, None] - np.arange(LAST_TRADES, 0, -1)).ravel()
    windows = tape[rows].with_columns(symbol=pl.Series(names).gather(np.repeat(np.arange(len(ends)), LAST_TRADES)))
    folded = vpin.vpin(tape, _sizes([tape["symbol"][0]], size)).buckets.select("last_trade_id", fold="vpin")
    cut = vpin.vpin(windows, _sizes(names, size)).samples.group_by("symbol", maintain_order=True).last()
    is_vpin = pl.col("method") == VpinMethod.BUCKETS
    return (
        cut.sort("last_trade_id")
        .join_asof(folded, on="last_trade_id")
        .select("ts_event", "fold", cut=pl.when(is_vpin).then("vpin"), buckets="buckets_filled")
    )


def cut_score(cuts: pl.DataFrame) -> CutScore:
    """Return how far the values of `cut_vpins` lie apart."""
    apart = cuts.select(((pl.col("cut") - pl.col("fold")).abs() / pl.col("fold")).drop_nulls()).to_series().to_numpy()
    mean, p95, worst = (apart.mean(), np.quantile(apart, 0.95), apart.max()) if len(apart) else (math.nan,) * 3
    return CutScore(
        cuts["buckets"].mean(), _share(cuts, pl.col("cut").is_not_null()), float(mean), float(p95), float(worst)
    )


def _sizes(symbols: Sequence[str], size: float) -> pl.DataFrame:
    return pl.DataFrame({"symbol": symbols, "bucket_size": [size] * len(symbols)})


def _share(rows: pl.DataFrame, condition: pl.Expr) -> Share:
    return Share(rows.filter(condition).height, rows.height)
