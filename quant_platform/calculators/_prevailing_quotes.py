"""The quote that stood before each trade, and what a fold keeps of the quotes. What it says of a trade is elsewhere."""

import numpy as np
import polars as pl

from quant_platform.calculators._tape import (
    SEEN,
    Array,
    BySymbol,
    Ordered,
    first_at,
    framed,
    in_order,
    integers,
    is_positive,
    last_rows,
)
from quant_platform.contracts._schema import INSTANT

PREVAILING = ("bid_price", "bid_size", "ask_price", "ask_size")
NO_QUOTES = BySymbol.empty(
    {
        **SEEN,
        **dict.fromkeys(("ts_event", "ts_recv"), [SEEN["last_ts"]] * 2),
        **dict.fromkeys(PREVAILING, [np.nan] * 2),
    }
)
"""The last quotes of a symbol's last two instants, the later one second: before its trades stands the first."""

_KEY = ("symbol", "ts_event", "sequence")
_TIMES = ("ts_event", "ts_recv")
_MOST = 2**63 - 1


def new_quotes(quotes: pl.DataFrame, retained: BySymbol) -> Ordered:
    """Return the usable quotes by (symbol, ts_event, sequence) that come after those retained, as `in_order` does.

    A side with a size of zero is empty: its price and size are null.
    """
    columns = quotes.select(pl.col("symbol").cast(pl.String), *_TIMES, "sequence", *PREVAILING)
    return in_order(_usable(columns), "sequence", retained)


def retained_after(retained: BySymbol, fresh: Ordered) -> BySymbol:
    """Return what is retained after new quotes."""
    quotes, starts, symbols = fresh
    known = retained.including(symbols)
    places, last = known.at(symbols), last_rows(starts, quotes.height)
    ts = integers(quotes, "ts_event")
    before = first_at(ts, ts[last], starts, last) - 1
    is_fresh = before >= starts
    newest_earlier = (known.facts["ts_event"][places, 1] < ts[last]).astype(np.int64)
    rows = quotes[np.concatenate([np.maximum(before, 0), last])]
    facts = {"last_ts": ts[last], "last_tie": integers(quotes, "sequence")[last]}
    for name in (*_TIMES, *PREVAILING):
        values = integers(rows, name) if name in _TIMES else rows.get_column(name).to_numpy()
        first, second = np.split(values, 2)
        facts[name] = np.column_stack([np.where(is_fresh, first, known.facts[name][places, newest_earlier]), second])
    return known.changed(places, facts)


def with_quotes(
    tape: Ordered, retained: BySymbol, fresh: Ordered, *, allow_exact: bool, max_age_ns: int | None
) -> pl.DataFrame:
    """Return the trades with the quote that stood before each.

    Args:
        tape: The trades.
        retained: Quotes of earlier chunks.
        fresh: Quotes of this one.
        allow_exact: Whether a quote of the trade's own instant stands before it.
        max_age_ns: An older quote is not shown; None for any age.

    Returns:
        The trades with `PREVAILING`, null where there is no quote or an older one than allowed; `quote_age_ns`, null
        where there is none; and in `ts_recv` the later receipt of the trade's and the quote's.
    """
    kept = framed({name: retained.facts[name].ravel() for name in (*_TIMES, *PREVAILING)})
    kept = kept.with_columns(pl.col(_TIMES).cast(INSTANT))
    known = pl.concat([kept, fresh.rows.select(kept.columns)], rechunk=True)
    known = known if known.height else known.clear(1)
    place = _last_before(tape, retained, fresh, allow_exact=allow_exact)
    has_quote, place = place >= 0, np.maximum(place, 0)
    quotes = known[pl.Series(place, dtype=pl.UInt32)]
    age = integers(tape.rows, "ts_event") - quotes.drop_in_place("ts_event").to_physical().fill_null(0).to_numpy()
    is_shown = pl.Series(has_quote if max_age_ns is None else has_quote & (age <= max_age_ns))
    both = pl.max_horizontal("ts_recv", pl.when(is_shown).then(quotes.drop_in_place("ts_recv")))
    return tape.rows.with_columns(
        pl.when(pl.col("ts_recv").is_not_null()).then(both).alias("ts_recv"),
        pl.when(pl.Series(has_quote)).then(pl.Series(age)).alias("quote_age_ns"),
        *(pl.when(is_shown).then(column).alias(column.name) for column in quotes),
    )


def _usable(quotes: pl.DataFrame) -> pl.DataFrame:
    prices, sizes = pl.col("bid_price", "ask_price"), pl.col("bid_size", "ask_size")
    has_keys = not any(quotes.null_count().row(0, named=True)[name] for name in _KEY)
    if has_keys and all(is_positive(quotes.get_column(name)) for name in PREVAILING):
        return quotes
    kept = quotes.filter(
        pl.col(_KEY).is_not_null(),
        prices.is_null() | (prices > 0),
        sizes.is_null() | (sizes >= 0),
        pl.col(PREVAILING).is_null() | pl.col(PREVAILING).is_finite(),
    )
    stands = {side: pl.col(f"{side}_size").ne_missing(0) for side in ("bid", "ask")}
    return kept.with_columns(
        pl.when(stands[side]).then(f"{side}_{what}").alias(f"{side}_{what}")
        for side in stands
        for what in ("price", "size")
    )


def _last_before(tape: Ordered, retained: BySymbol, fresh: Ordered, *, allow_exact: bool) -> Array:
    """Return which quote stood before each trade: its place among the retained and then the fresh ones, -1 if none."""
    place = _last_fresh(tape, fresh, allow_exact=allow_exact)
    if not retained.places:
        return place
    left = np.flatnonzero(place < 0)
    place += 2 * len(retained.places)
    place[left] = -1
    known = retained.including(tape.symbols)
    row = known.at(tape.symbols)[np.searchsorted(tape.starts, left, side="right") - 1]
    ts = integers(tape.rows, "ts_event")[left]
    for instant in (0, 1):
        quote_ts = known.facts["ts_event"][row, instant]
        stood = (quote_ts > SEEN["last_ts"]) & ((quote_ts < ts) | (allow_exact & (quote_ts == ts)))
        place[left[stood]] = 2 * row[stood] + instant
    return place


def _last_fresh(tape: Ordered, fresh: Ordered, *, allow_exact: bool) -> Array:
    """Return the place of the last quote of the chunk before each trade, -1 where there is none."""
    if tape.rows.is_empty() or fresh.rows.is_empty():
        return np.full(tape.rows.height, -1)
    ts, quote_ts = integers(tape.rows, "ts_event"), integers(fresh.rows, "ts_event")
    if tape.symbols == fresh.symbols and len(tape.symbols) == 1:
        return _as_of(ts, quote_ts, allow_exact=allow_exact)
    code = {symbol: number for number, symbol in enumerate(sorted({*tape.symbols, *fresh.symbols}))}
    # One number orders all by symbol and time. Times before or after all of the other frame's need not be told apart.
    low = int(max(ts[tape.starts].min(), quote_ts[fresh.starts].min()))
    high = int(min(ts[last_rows(tape.starts, len(ts))].max(), quote_ts[last_rows(fresh.starts, len(quote_ts))].max()))
    span = max(high - low, 0) + 3
    if len(code) * span > _MOST:
        raise ValueError(f"{len(code)} symbols over {span} ns are more than one step can order: take shorter steps")

    def keys(times: Array, side: Ordered) -> Array:
        key = times - (low - 1)
        np.clip(key, 0, span - 1, out=key)
        codes = np.array([code[symbol] for symbol in side.symbols])
        key += np.repeat(codes * span, np.diff(side.starts, append=len(times)))
        return key

    place = _as_of(keys(ts, tape), keys(quote_ts, fresh), allow_exact=allow_exact)
    begins = dict(zip(fresh.symbols, fresh.starts, strict=True))
    first = np.array([begins.get(symbol, len(quote_ts)) for symbol in tape.symbols])
    place[place < np.repeat(first, np.diff(tape.starts, append=len(ts)))] = -1
    return place


def _as_of(keys: Array, quote_keys: Array, *, allow_exact: bool) -> Array:
    quotes = pl.DataFrame({"key": quote_keys}).with_row_index("place", offset=1)
    found = pl.DataFrame({"key": keys}).join_asof(
        quotes, on="key", allow_exact_matches=allow_exact, check_sortedness=False
    )
    place: Array = found.get_column("place").fill_null(0).to_numpy().astype(np.int64) - 1
    return place
