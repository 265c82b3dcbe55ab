"""The law of the signing fold: cutting trades and quotes anywhere changes nothing. Worked examples are unit tests."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators import trade_sign
from quant_platform.calculators.trade_sign import TradeSignParams
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Quote, Trade

MS = 1_000_000
SYMBOLS = st.sampled_from(["A", "B", "1000"])
INSTANTS = st.integers(0, 12)  # ms: often the same one
PRICES = st.integers(9, 12)
TRADES = st.lists(st.tuples(INSTANTS, SYMBOLS, PRICES, st.sampled_from([-1, 0, 1])), max_size=30)
QUOTES = st.lists(st.tuples(INSTANTS, SYMBOLS, PRICES, st.one_of(st.none(), PRICES)), max_size=30)
PARAMS = st.builds(
    TradeSignParams,
    signing=st.sampled_from(["auto", "lee_ready", "quote", "tick", "venue"]),
    allow_exact=st.booleans(),
    max_quote_age_ms=st.sampled_from([None, 0, 3]),
)


def framed(contract, rows):
    schema = polars_schema(contract)
    numbers = {name: pl.Int64 if dtype.is_temporal() else dtype for name, dtype in schema.items()}
    return pl.DataFrame(rows, schema=numbers, strict=False).cast(dict(schema))


def tape(rows):
    rows = sorted(enumerate(rows), key=lambda row: row[1][0])
    return framed(
        Trade,
        [
            {
                "ts_event": ms * MS,
                "ts_recv": ms * MS + 7 * number,
                "symbol": symbol,
                "venue": "v",
                "trade_id": number,
                "first_trade_id": number,
                "last_trade_id": number,
                "price": price / 10,
                "size": 1.0,
                "aggressor": aggressor,
            }
            for number, (ms, symbol, price, aggressor) in rows
        ],
    ).sort("ts_event", "trade_id")


def book(rows):
    rows = sorted(enumerate(rows), key=lambda row: row[1][0])
    return framed(
        Quote,
        [
            {
                "ts_event": ms * MS,
                "ts_recv": ms * MS + 5 * number,
                "symbol": symbol,
                "venue": "v",
                "bid_price": bid / 10,
                "bid_size": 1.0 + number,
                "ask_price": ask and ask / 10,
                "ask_size": 2.0,
                "sequence": number,
            }
            for number, (ms, symbol, bid, ask) in rows
        ],
    ).sort("ts_event", "sequence")


@settings(max_examples=150, deadline=None)
@given(st.data(), TRADES, QUOTES, PARAMS)
def test_cutting_trades_and_quotes_at_an_instant_changes_nothing(data, trade_rows, quote_rows, params):
    trades, quotes = tape(trade_rows), book(quote_rows)
    cuts = sorted(data.draw(st.lists(INSTANTS, max_size=4)))
    state, outputs = trade_sign.initial(), []
    for start, stop in zip([-1, *cuts], [*cuts, 99], strict=True):
        is_in = (pl.col("ts_event").to_physical() > start * MS) & (pl.col("ts_event").to_physical() <= stop * MS)
        state, signed = trade_sign.step(state, trades.filter(is_in), quotes.filter(is_in), params)
        outputs.append(signed)
    by_cuts = pl.concat(outputs).sort("symbol", "ts_event", "trade_id")
    assert_frame_equal(by_cuts, trade_sign.signed(trades, quotes, params), check_exact=True)


@settings(max_examples=150, deadline=None)
@given(st.data(), TRADES, QUOTES, PARAMS)
def test_a_cut_within_an_instant_changes_nothing(data, trade_rows, quote_rows, params):
    trades, quotes = tape(trade_rows), book(quote_rows)
    place = data.draw(st.integers(0, trades.height))
    times = trades["ts_event"].to_physical().to_list()
    last, following = (times[place - 1] if place else -1), (times[place] if place < len(times) else 99 * MS)
    at = pl.col("ts_event").to_physical()
    # Quotes up to the last trade's instant have come; those of the next trade's instant may have.
    newest = quotes.filter(at <= (following if data.draw(st.booleans()) else last))
    state, first = trade_sign.step(trade_sign.initial(), trades[:place], newest, params)
    _, second = trade_sign.step(state, trades[place:], quotes[newest.height :], params)
    by_cut = pl.concat([first, second]).sort("symbol", "ts_event", "trade_id")
    assert_frame_equal(by_cut, trade_sign.signed(trades, quotes, params), check_exact=True)
