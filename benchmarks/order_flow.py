"""Claim: one call of every order-flow calculator on 500 symbols and their last 1,000 trades fits a live cycle."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _harness import Measurement, Result, Verdict, Worker, interleaved

SYMBOLS = 500
TRADES = 1_000
LIMIT_MS = 250
TRADES_PER_S = 40  # of each symbol: 20,000 of all
BUCKETS = 60  # that a symbol's trades fill: VPIN has its 50
_START_NS = 1_723_118_400_000_000_000  # 2024-08-08 12:00 UTC, a whole minute
_TICK = 0.01

Job = Callable[[], int]


class Market(NamedTuple):
    """The last trades of all symbols, and the books of the same time; rows by symbol and time."""

    trades: Any
    quotes: Any
    books: Any


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Time one call of each calculator from its initial state, each in a process of its own."""
    del folder
    symbols = SYMBOLS // 10 if is_quick else SYMBOLS
    workers: dict[str, Worker] = {}
    try:
        for name in CALLS:
            workers[name] = Worker(sys.executable, "order_flow", "one_call", calculator=name, symbols=symbols)
            workers[name].run()
        seconds = interleaved({name: worker.run for name, worker in workers.items()}, rounds)
    finally:
        for worker in workers.values():
            worker.close()
    together = [sum(values) for values in zip(*seconds.values(), strict=True)]
    timed = [
        Measurement(name=name, values=[1_000 * s for s in values])
        for name, values in {"all together": together, **seconds}.items()
    ]
    return Result(
        title=f"Order flow: {symbols} symbols x {TRADES:,} trades, one call of each calculator",
        unit="ms",
        how="From the initial state, all symbols in one frame in memory. Every calculator is a process of its own that "
        "stays up: imports and two runs come before the clock.",
        measurements=timed,
        verdicts=[
            Verdict(
                claim="ms for one call of each calculator",
                measured=timed[0].median,
                floor=LIMIT_MS,
                is_more_better=False,
            )
        ],
        notes=[
            f"Simulated: {TRADES // TRADES_PER_S} s of {TRADES_PER_S} trades/s of each symbol, orders of several fills",
            "flow_clusters and hidden_orders use all cores; so does Polars in all",
            "Two quotes and one book of five levels a trade; rows are sorted by symbol and time",
            "The signed tape that most take is made before the clock starts; closing_auction has one row a symbol",
        ],
    )


def one_call(calculator: str, symbols: int) -> Job:
    """Return a calculator's call on all it needs, as a number of rows."""
    return CALLS[calculator](market(symbols))


def market(symbols: int) -> Market:
    """Return seeded trades, quotes and books: a random walk of the mid, and orders that take one price or some."""
    import polars as pl

    from quant_platform.contracts._schema import polars_schema
    from quant_platform.contracts.market import Book, Quote, Trade

    rng = np.random.default_rng(7)
    shape = (symbols, TRADES)
    names = np.repeat([f"S{k:03}" for k in range(symbols)], 2 * TRADES)
    quote_ns = (
        _START_NS + np.arange(2 * TRADES) * (1_000_000_000 // TRADES_PER_S // 2) + np.zeros((symbols, 1), np.int64)
    )
    bid_ticks = 10_000 + np.cumsum(rng.choice([-1, 0, 1], p=[0.1, 0.8, 0.1], size=quote_ns.shape), axis=1)

    def frame(contract: Any, columns: dict[str, Any], rows_per_symbol: int) -> pl.DataFrame:
        schema = polars_schema(contract)
        flat = {name: np.asarray(values).ravel() for name, values in columns.items()}
        every = 2 * TRADES // rows_per_symbol
        return (
            pl.DataFrame(flat)
            .with_columns(symbol=pl.Series(names[::every]), venue=pl.lit("simulated"))
            .with_columns(ts_recv=pl.col("ts_event") + 50_000_000)
            .select(pl.col(name).cast(dtype) for name, dtype in schema.items())
        )

    def sizes(shape: tuple[int, ...]) -> Any:
        return np.ceil(np.exp(rng.normal(2.6, 1.6, shape))) / 10

    quotes = {
        "ts_event": quote_ns,
        "sequence": np.broadcast_to(np.arange(2 * TRADES), quote_ns.shape),
        "bid_price": bid_ticks * _TICK,
        "bid_size": sizes(quote_ns.shape),
        "ask_price": (bid_ticks + 1) * _TICK,
        "ask_size": sizes(quote_ns.shape),
        "is_ts_event_assumed": np.zeros(quote_ns.shape, bool),
    }
    is_order = rng.random(shape) < 0.4
    is_order[:, 0] = True
    place = np.broadcast_to(np.arange(TRADES), shape)
    order = np.maximum.accumulate(np.where(is_order, place, 0), axis=1)
    side = np.take_along_axis(np.where(rng.random(shape) < 0.5, 1, -1), order, axis=1)
    depth = np.minimum(place - order, 4) * np.take_along_axis(rng.random(shape) < 0.2, order, axis=1)
    touch = np.take_along_axis(bid_ticks, 2 * order, axis=1) + (side > 0)
    trades = {
        "ts_event": np.take_along_axis(quote_ns, 2 * order, axis=1) + 3_000_000,
        "trade_id": place,
        "first_trade_id": place,
        "last_trade_id": place,
        "price": (touch + side * depth) * _TICK,
        "size": sizes(shape),
        "aggressor": side,
    }
    books = {"ts_event": quote_ns[:, ::2], "sequence": place}
    for level in range(5):
        books |= {
            f"bid_price_{level + 1}": (bid_ticks[:, ::2] - level) * _TICK,
            f"bid_size_{level + 1}": sizes(shape),
            f"ask_price_{level + 1}": (bid_ticks[:, ::2] + 1 + level) * _TICK,
            f"ask_size_{level + 1}": sizes(shape),
        }
    return Market(frame(Trade, trades, TRADES), frame(Quote, quotes, 2 * TRADES), frame(Book, books, TRADES))


def _signed(market: Market) -> Any:
    from quant_platform.calculators import trade_sign

    return trade_sign.signed(market.trades, market.quotes)


def _trade_sign(market: Market) -> Job:
    from quant_platform.calculators import trade_sign

    return lambda: trade_sign.step(trade_sign.initial(), market.trades, market.quotes)[1].height


def _vpin(market: Market) -> Job:
    from quant_platform.calculators import vpin

    trades, sizes = _signed(market), _bucket_sizes(market)
    return lambda: vpin.step(vpin.initial(), trades, sizes)[1].samples.height


def _bucket_sizes(market: Market) -> Any:
    import polars as pl

    return market.trades.group_by("symbol").agg(bucket_size=pl.col("size").sum() / BUCKETS)


def _order_book(market: Market) -> Job:
    from quant_platform.calculators import order_book

    return lambda: order_book.step(order_book.initial(), market.books)[1].height


def _toxicity(market: Market) -> Job:
    from quant_platform.calculators import toxicity, vpin

    trades = _signed(market)
    values = vpin.step(vpin.initial(), trades, _bucket_sizes(market))[1].samples
    return lambda: toxicity.step(toxicity.initial(), trades, values)[1].height


def _hidden_orders(market: Market) -> Job:
    from quant_platform.calculators import hidden_orders

    trades = _signed(market)
    return lambda: hidden_orders.step(hidden_orders.initial(), trades, market.quotes)[1].height


def _closing_auction(market: Market) -> Job:
    import polars as pl

    from quant_platform.calculators import closing_auction

    inputs = market.trades.group_by("symbol").agg(
        pl.col("ts_event").last(),
        ts_known=pl.col("ts_recv").last(),
        ts_close=pl.col("ts_event").last() + pl.duration(minutes=30),
        window_volume=pl.col("size").sum(),
        mid=pl.col("price").last(),
        l5=pl.lit(0.25),
        gex_net=pl.lit(None, pl.Float64),
    )
    return lambda: closing_auction.closing_imbalance(inputs).height


def _of_the_signed_tape(name: str) -> Callable[[Market], Job]:
    def prepared(market: Market) -> Job:
        calculator = import_module(f"quant_platform.calculators.{name}")
        trades = _signed(market)
        return lambda: calculator.step(calculator.initial(), trades)[1].height

    return prepared


CALLS: dict[str, Callable[[Market], Job]] = {
    "trade_sign": _trade_sign,
    "vpin": _vpin,
    "order_book": _order_book,
    "toxicity": _toxicity,
    "participants": _of_the_signed_tape("participants"),
    "sweeps": _of_the_signed_tape("sweeps"),
    "hidden_orders": _hidden_orders,
    "flow_clusters": _of_the_signed_tape("flow_clusters"),
    "closing_auction": _closing_auction,
}
