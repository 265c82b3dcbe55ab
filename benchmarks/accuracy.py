"""`make accuracy`: hold the estimators against recorded days of known truth, and write docs/accuracy.md."""

import math
import os
import sys
from pathlib import Path

import _accuracy_page
import _accuracy_plots
import _accuracy_scores as scores
import polars as pl
from _harness import ROOT

STOCKS, FUTURES = ("AAPL", "AMZN"), ("BTCUSDT", "ETHUSDT")
TRADES_PER_BUCKET = (5, 10, 15)
PLATFORM_BUCKETS_PER_DAY = 50
TICK_SIZE = 0.01
DRAWN_SYMBOL, DRAWN_BUCKETS, DRAWN_TRADES = "AMZN", scores.BUCKETS_PER_DAY[1], TRADES_PER_BUCKET[1]


def main() -> None:
    """Score, draw and write."""
    named = os.environ.get("QP_REAL_DATA")
    data = Path(named) if named else ROOT.parent / "shared" / "data"
    if not data.is_dir():
        sys.exit(f"There is no recorded market data at {data}: set QP_REAL_DATA to its folder.")
    write(data, ROOT / "docs")


def write(data: Path, docs: Path) -> None:
    """Write the page and its pictures."""
    stocks = {symbol: scores.lobster_day(data, symbol) for symbol in STOCKS}
    futures = {symbol: scores.binance_day(data, symbol) for symbol in FUTURES}
    strict = {symbol: scores.signed(day, scores.STRICT) for symbol, day in stocks.items()}
    depths = {symbol: scores.depth_in_spread(tape) for symbol, tape in strict.items()}
    buckets = {
        symbol: {number: scores.vpin_buckets(day, number) for number in scores.BUCKETS_PER_DAY}
        for symbol, day in stocks.items()
    }
    cuts = {symbol: _cuts(day) for symbol, day in stocks.items()}
    found = _accuracy_page.Scores(
        facts={symbol: _facts(day, strict[symbol]) for symbol, day in stocks.items()},
        signs=_signs(stocks),
        depths={symbol: scores.by_depth(rows) for symbol, rows in depths.items()},
        hidden={symbol: scores.hidden_scores(day) for symbol, day in stocks.items()},
        vpins={
            symbol: {
                number: {name: scores.vpin_score(signs["true signs"], rows) for name, rows in signs.items()}
                for number, signs in by_number.items()
            }
            for symbol, by_number in buckets.items()
        },
        cuts={
            symbol: {trades: scores.cut_score(rows) for trades, rows in by_size.items()}
            for symbol, by_size in cuts.items()
        },
        venue_signs=_signs(futures),
    )
    docs.joinpath("accuracy.md").write_text(_accuracy_page.page(found), encoding="utf-8")
    images = docs / "images"
    _accuracy_plots.signing(_right_by_lateness(stocks, futures), depths, images / "accuracy_signing.svg")
    drawn = {symbol: by_number[DRAWN_BUCKETS] for symbol, by_number in buckets.items()}
    _accuracy_plots.vpin_over_the_day(drawn, images / "accuracy_vpin.svg")
    _accuracy_plots.cut(DRAWN_SYMBOL, cuts[DRAWN_SYMBOL][DRAWN_TRADES], DRAWN_TRADES, images / "accuracy_cut.svg")


def _facts(day: scores.Day, strict: pl.DataFrame) -> _accuracy_page.Facts:
    orders = strict.group_by("ts_event", "side").len()["len"].cast(pl.Float64)
    return _accuracy_page.Facts(
        executions=day.tape.height,
        orders=orders.len(),
        widening=math.sqrt((orders**2).sum() / orders.sum()),
        hidden=day.truth["is_hidden"].sum(),
        shares=day.tape["size"].sum(),
        quotes=day.quotes.height,
        spread_ticks=strict.select((pl.col("ask_price") - pl.col("bid_price")).mean()).item() / TICK_SIZE,
    )


def _signs(days: dict[str, scores.Day]) -> dict[str, dict[str, scores.SignScore]]:
    return {
        symbol: {name: scores.sign_score(scores.signed(day, rule)) for name, rule in scores.RULES.items()}
        for symbol, day in days.items()
    }


def _cuts(day: scores.Day) -> dict[float, pl.DataFrame]:
    sizes = (*TRADES_PER_BUCKET, day.tape.height / PLATFORM_BUCKETS_PER_DAY)
    return {trades: scores.cut_vpins(day, trades) for trades in sizes}


def _right_by_lateness(stocks: dict[str, scores.Day], futures: dict[str, scores.Day]) -> dict[str, list[float]]:
    rules = [scores.OWN_INSTANT, *(scores.Rule(scores.STRICT.params, late_ns) for late_ns in scores.LATENESS_NS)]
    right: dict[str, list[float]] = {}
    for symbol, day in stocks.items():
        found = [scores.sign_score(scores.signed(day, rule)) for rule in rules]
        right[f"{symbol} visible"] = [score.visible.value for score in found]
        right[f"{symbol} hidden"] = [score.hidden.value for score in found]
    for symbol, day in futures.items():
        right[symbol] = [scores.sign_score(scores.signed(day, rule)).right.value for rule in rules]
    return right


if __name__ == "__main__":
    main()
