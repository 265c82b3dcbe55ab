"""Who initiated each trade: the venue's word, the quote rule, the tick rule, and Lee and Ready's mix of the last two.

Here a tape meets the quotes and gets its signs, once; what signed volume says is the business of other calculators.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from quant_platform.calculators._prevailing_quotes import (
    NO_QUOTES,
    PREVAILING,
    new_quotes,
    retained_after,
    with_quotes,
)
from quant_platform.calculators._tape import (
    SEEN,
    Array,
    BySymbol,
    Ordered,
    blocks,
    in_order,
    integers,
    last_rows,
    usable_trades,
)
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.enums import Signing, SignRule
from quant_platform.contracts.market import Trade

LOOKBACK_SESSIONS = 0

RULE = pl.Enum(SignRule)
SIGNED = pl.Schema(
    {
        **polars_schema(Trade),
        "rule": RULE,
        "quote_age_ns": pl.Int64(),
        **dict.fromkeys(PREVAILING, pl.Float64()),
    }
)
"""The signed tape: every trade with its side, the rule that gave it, and the quote that stood before it."""

_RULES = {
    Signing.AUTO: (SignRule.VENUE, SignRule.QUOTE, SignRule.TICK),
    Signing.VENUE: (SignRule.VENUE,),
    Signing.LEE_READY: (SignRule.QUOTE, SignRule.TICK),
    Signing.QUOTE: (SignRule.QUOTE,),
    Signing.TICK: (SignRule.TICK,),
}
_UNKNOWN = 2  # a direction that no row gets from one before it
_UNITS = 1e8  # prices are compared as whole numbers of 1e-8
_MS = 1_000_000


@dataclass(frozen=True)
class TradeSignParams:
    """Which rule signs, and which quotes it may use.

    Attributes:
        signing: `auto` (the venue's aggressor where it has one, else Lee and Ready), `venue`, `lee_ready` (the quote
            rule, and the tick rule where that says nothing), `quote`, `tick`.
        allow_exact: Whether a quote of the trade's own instant stands before it; else only strictly earlier ones do.
        max_quote_age_ms: An older quote is not used; None for any age.
    """

    signing: str = Signing.AUTO
    allow_exact: bool = False
    max_quote_age_ms: int | None = 5_000

    def __post_init__(self) -> None:
        if self.signing not in _RULES:
            raise ValueError(f"signing must be one of {', '.join(_RULES)}, was {self.signing}")
        if self.max_quote_age_ms is not None and self.max_quote_age_ms < 0:
            raise ValueError(f"max_quote_age_ms must be >= 0, was {self.max_quote_age_ms}")


@dataclass(frozen=True)
class State:
    """What the fold remembers of each symbol.

    Attributes:
        trades: How far the tape was folded, the last price, and the sign of its difference to the last different one.
        quotes: The last quotes of its last two instants.
    """

    trades: BySymbol
    quotes: BySymbol


_NO_TRADES = BySymbol.empty({**SEEN, "price": np.nan, "direction": np.int8(0)})
_DEFAULTS = TradeSignParams()


def initial() -> State:
    """Return the state before the first trade and quote."""
    return State(_NO_TRADES, NO_QUOTES)


def step(
    state: State, trades: pl.DataFrame, quotes: pl.DataFrame, params: TradeSignParams = _DEFAULTS
) -> tuple[State, pl.DataFrame]:
    """Sign a chunk of the tape.

    Cutting trades and quotes at one instant changes nothing: the outputs of all chunks are those of one pass. A chunk
    of trades may end within an instant; quotes may run ahead of the trades by one instant, but not by more.

    Args:
        state: What `initial` or the previous `step` returned, with the same parameters.
        trades: Contract `Trade`, any number of symbols, any row order. A row with a null in symbol, ts_event, trade_id
            or aggressor, or with a price or size that is null, NaN, infinite, zero or negative, is ignored; so is one
            that is not after all that earlier chunks brought, by (ts_event, trade_id) of its symbol.
        quotes: Contract `Quote`, any row order; `sequence` orders quotes of one instant. A quote with a null in symbol,
            ts_event or sequence, a price or size that is NaN, infinite or negative, or a price of zero, is ignored,
            and so is a late one as above. A side without a price or with a size of zero is empty.
        params: The rule, and the quotes that it may use.

    Returns:
        The next state, and `SIGNED`, sorted by (symbol, ts_event, trade_id). `aggressor` is +1, -1, or 0 where no rule
        applies: nothing is signed at random. `rule` says which rule it was. The prevailing quote is the last one before
        the trade: `quote_age_ns` is its age, null if there is none; its prices and sizes are null where there is none,
        where it is older than allowed, and on an empty side. `ts_recv` is the later of the trade's and that quote's.

        The quote rule compares 2 · price with bid + ask, as whole numbers of 1e-8. It says nothing at the midpoint, and
        where the book is crossed or has an empty side. The tick rule compares with the last different price of the
        symbol, and says nothing before there is one.

    Raises:
        ValueError: The symbols and times of one chunk are more than 63 bits can order.
    """
    tape = in_order(usable_trades(trades), "trade_id", state.trades)
    fresh = new_quotes(quotes, state.quotes)
    age_ms = params.max_quote_age_ms
    quoted = with_quotes(
        tape,
        state.quotes,
        fresh,
        allow_exact=params.allow_exact,
        max_age_ns=None if age_ms is None else age_ms * _MS,
    )
    known, signs = _signed(tape._replace(rows=quoted), state.trades, params.signing)
    return State(known, retained_after(state.quotes, fresh)), signs.select(SIGNED.names())


def signed(trades: pl.DataFrame, quotes: pl.DataFrame, params: TradeSignParams = _DEFAULTS) -> pl.DataFrame:
    """Return the signed tape of all trades: one `step` from `initial`."""
    return step(initial(), trades, quotes, params)[1]


def signed_at_quotes(tape: pl.DataFrame, params: TradeSignParams = _DEFAULTS) -> pl.DataFrame:
    """Sign trades that carry their prevailing quote already.

    Args:
        tape: Contract `Trade` with `bid_price` and `ask_price`, null where no quote is to be used, and any other
            columns; rows as in `step`.
        params: The rule. Which quotes may be used was decided when they were joined.

    Returns:
        The tape, sorted by (symbol, ts_event, trade_id), with `aggressor` and `rule` as `step` gives them.
    """
    return _signed(in_order(usable_trades(tape), "trade_id", _NO_TRADES), _NO_TRADES, params.signing)[1]


@np.errstate(over="ignore", invalid="ignore")  # a price beyond 1e300 is infinite in units, and compares as such
def _signed(tape: Ordered, trades: BySymbol, signing: str) -> tuple[BySymbol, pl.DataFrame]:
    """Return what is known after the tape, and the tape with `aggressor` and `rule`."""
    known = trades.including(tape.symbols)
    places, last = known.at(tape.symbols), last_rows(tape.starts, tape.rows.height)
    price, aggressor = (tape.rows.get_column(name).to_numpy() for name in ("price", "aggressor"))
    rules = _RULES[Signing(signing)]
    has_quote_rule = SignRule.QUOTE in rules and not (SignRule.VENUE in rules and aggressor.all())
    quote = tape.rows.select("bid_price", "ask_price") if has_quote_rule else pl.DataFrame()
    moves, beside_mid = _compared(price, *(column.to_numpy() for column in quote))
    opening = _order(_units(price[tape.starts]), _units(known.facts["price"][places]))
    moves[tape.starts] = np.where(opening == 0, known.facts["direction"][places], opening)
    found = {SignRule.VENUE: aggressor, SignRule.QUOTE: beside_mid, SignRule.TICK: _directions(moves, tape.starts)}
    sides, passed = np.zeros(len(price), np.int8), np.zeros(len(price), np.uint8)
    for rule in rules:
        sides += found[rule] * (sides == 0)
        passed += sides == 0
    after = {
        "last_ts": integers(tape.rows, "ts_event")[last],
        "last_tie": integers(tape.rows, "trade_id")[last],
        "price": price[last],
        "direction": found[SignRule.TICK][last],
    }
    named = pl.Series([*rules, SignRule.NONE], dtype=RULE).gather(pl.Series(passed))
    signed = tape.rows.with_columns(pl.col("symbol").set_sorted(), aggressor=pl.Series(sides), rule=named)
    return known.changed(places, after), signed


def _compared(price: Array, *quote: Array) -> tuple[Array, Array]:
    """Return the sign of each price's difference to the one before it, and to the midpoint of its quote.

    Args:
        price: By symbol and time.
        quote: Bids and asks, NaN on an empty side; nothing where they are not asked for.

    Returns:
        Two arrays of -1, 0 and 1. The second one is 0 also where the quote cannot say: it is crossed or has an empty
        side; and where none was asked for.
    """
    moves, beside_mid = np.zeros((2, len(price)), np.int8)
    for block in blocks(len(price)):
        units = _units(price[max(block.start - 1, 0) : block.stop])
        moves[max(block.start, 1) : block.stop] = _order(units[1:], units[:-1])
        if quote:
            bid, ask = (_units(column[block]) for column in quote)
            is_usable = (bid > 0) & (bid <= ask) & (ask < np.inf)
            beside_mid[block] = _order(2 * units[-len(bid) :], bid + ask) * is_usable
    return moves, beside_mid


def _directions(moves: Array, starts: Array) -> Array:
    """Return each row's move, or the last one before it of its symbol that is not 0."""
    directions = moves.copy()
    directions[starts[moves[starts] == 0]] = _UNKNOWN
    # A row without a move takes its neighbour's direction: each round reaches twice as far as all before.
    reach = 1
    while (is_open := directions[reach:] == 0).any():
        directions[reach:] += directions[:-reach] * is_open
        reach *= 2
    return np.where(directions == _UNKNOWN, np.int8(0), directions)


def _units(price: Array) -> Array:
    units: Array = np.rint(price * _UNITS)  # whole numbers in floats: exact below 2**53, and NaN stays what it is
    return units


def _order(one: Array, other: Array) -> Array:
    """Return 1 where one is greater than the other, -1 where it is less, else 0."""
    return (one > other).view(np.int8) - (one < other).view(np.int8)
