"""Prices of the market that an order is held against: interval VWAP and TWAP, participation prices, mids, sessions.

What an order has paid against them is computed elsewhere. All figures come for any number of windows at once: two
lookups in time a window, and at most two nodes a level of a tree of sums.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from quant_platform.calculators._price_tape import NEVER, PriceTape, mids, ordered_quotes, prints
from quant_platform.calculators._tape import Array, framed, integers, symbol_starts
from quant_platform.calculators._timeline import Timeline
from quant_platform.contracts._schema import INSTANT
from quant_platform.contracts.execution import PARTICIPATION_RATES, PriceBasis

LOOKBACK_SESSIONS = 1

SESSIONS = pl.Schema({"symbol": pl.String(), "ts_open": INSTANT, "ts_close": INSTANT, "is_over": pl.Boolean()})
"""Sessions [ts_open, ts_close) of each symbol, which do not overlap; `is_over` once its tape is complete."""

_S = 1e9


@dataclass(frozen=True)
class Market:
    """Trades and mids in order, to be asked about any number of windows.

    Attributes:
        trades: The tape.
        mids: Middles of quotes that have two sides and do not cross.
    """

    trades: PriceTape
    mids: PriceTape


@dataclass(frozen=True)
class Sessions:
    """Sessions by symbol and time.

    Attributes:
        rows: `SESSIONS`, by symbol and ts_open.
        opens: Where instants fall among the openings.
        closes: Where they fall among the closes.
    """

    rows: pl.DataFrame
    opens: Timeline
    closes: Timeline

    def opened_by(self, symbols: pl.Series, instants: Array) -> Array:
        """Return the symbol's last session that opened at or before each instant, -1 where there is none."""
        place = self.opens.place(symbols)
        row = self.opens.rows_until(place, instants) - 1
        return np.where(row >= self.opens.begin(place), row, -1)

    def not_closed_by(self, symbols: pl.Series, instants: Array) -> Array:
        """Return the symbol's first session that closes after each instant, -1 where there is none."""
        place = self.closes.place(symbols)
        row = self.closes.rows_until(place, instants)
        return np.where(row < self.closes.end(place), row, -1)


def market(trades: pl.DataFrame, quotes: pl.DataFrame) -> Market:
    """Put trades and quotes in order.

    Args:
        trades: Contract `Trade`, any number of symbols, any row order. A row with a null in symbol, ts_event, trade_id
            or aggressor, or with a price or size that is null, NaN, infinite, zero or negative, is ignored. An id of a
            symbol and instant counts once.
        quotes: Contract `Quote`, any row order; `sequence` orders quotes of one instant. A quote with a null in symbol,
            ts_event or sequence, a price or size that is NaN, infinite or negative, or a price of zero, is ignored. A
            side without a price or with a size of zero is empty.

    Raises:
        ValueError: A row has no ts_recv, or the symbols and times are more than 63 bits can order.
    """
    return Market(prints(trades), market_mids(quotes))


def market_mids(quotes: pl.DataFrame) -> PriceTape:
    """Return the mids of `market` alone, of contract `Quote`.

    Raises:
        ValueError: As `market` does.
    """
    return mids(ordered_quotes(quotes))


def ordered_sessions(sessions: pl.DataFrame) -> Sessions:
    """Put sessions in order.

    Args:
        sessions: `SESSIONS`, any number of symbols, any row order; the same session twice counts once. Rows with a null
            are ignored.
    """
    rows = sessions.select(SESSIONS.names()).cast(SESSIONS).drop_nulls()
    rows = rows.sort(SESSIONS.names()).unique(["symbol", "ts_open"], keep="last", maintain_order=True)
    starts, symbols = symbol_starts(rows)
    opens, closes = (Timeline.of(integers(rows, name), starts, symbols) for name in ("ts_open", "ts_close"))
    return Sessions(rows, opens, closes)


def interval_benchmarks(windows: pl.DataFrame, tapes: Market) -> pl.DataFrame:
    """Return what the market traded at in each window [ts_start, ts_end).

    Args:
        windows: `symbol ts_start ts_end`, no nulls, any row order; other columns are ignored. Windows may overlap, lie
            across sessions, or be of unknown symbols.
        tapes: What `market` returns.

    Returns:
        Row by row as the windows: `market_volume` in base units, 0 where nothing traded. `vwap_price`: Σ price · size ÷
        Σ size of the trades in the window; null where nothing traded. `twap_price`: the last known price integrated
        over the window ÷ its length; the price that prevails at ts_start is the last one at or before it; null where
        there is none and where the window has no length. `twap_basis`: `mid`, or `trade` where no mid prevails at
        ts_start. `has_reached_end`: whether trades or quotes of the symbol go on at or after ts_end; where they do not,
        the figures are of what there is so far. `ts_known`: the latest receipt of what was used, null if nothing was.
    """
    start, end = integers(windows, "ts_start"), integers(windows, "ts_end")
    of_trades, of_mids = (tape.timeline.place(windows.get_column("symbol")) for tape in (tapes.trades, tapes.mids))
    first, stop = (tapes.trades.timeline.rows_before(of_trades, each) for each in (start, end))
    volume, vwap = tapes.trades.volume_average(first, stop)
    by_mids = tapes.mids.time_average(of_mids, start, end)
    has_mid = ~np.isnan(by_mids.price)
    twap = by_mids if has_mid.all() else by_mids.where(has_mid, tapes.trades.time_average(of_trades, start, end))
    basis = pl.when(pl.Series(has_mid)).then(pl.lit(PriceBasis.MID)).otherwise(pl.lit(PriceBasis.TRADE))
    return framed({"market_volume": volume, "vwap_price": vwap.price, "twap_price": twap.price}).with_columns(
        twap_basis=pl.when(pl.col("twap_price").is_not_null()).then(basis),
        has_reached_end=pl.Series(tapes.trades.reaches(of_trades, end) | tapes.mids.reaches(of_mids, end)),
        ts_known=instants("ts_known", np.maximum(vwap.known, twap.known)),
    )


def participation_prices(
    windows: pl.DataFrame, tapes: Market, rates: Mapping[str, float] = PARTICIPATION_RATES
) -> pl.DataFrame:
    """Return the market's VWAP from ts_start until `quantity` is a given share of what has traded since.

    Args:
        windows: `symbol ts_start ts_end quantity`, no nulls, any row order. Trades from ts_end on do not count. No
            quantity, a NaN or one that is not > 0, has no price.
        tapes: What `market` returns.
        rates: The shares, each in (0, 1], by the name that its column carries.

    Returns:
        Row by row as the windows: `pwp_{name}_price` of each rate; the trade that completes the volume is split; null
        where less than that has traded by ts_end. `ts_known`: the latest receipt of what was used, null if nothing was.
    """
    place = tapes.trades.timeline.place(windows.get_column("symbol"))
    first, stop = (tapes.trades.timeline.rows_before(place, integers(windows, name)) for name in ("ts_start", "ts_end"))
    quantity = windows.get_column("quantity").to_numpy()
    amounts = np.concatenate([np.nan_to_num(quantity, nan=0.0, posinf=0.0) / rate for rate in rates.values()])
    found = tapes.trades.participation(np.tile(first, len(rates)), np.tile(stop, len(rates)), amounts)
    prices = found.price.reshape(len(rates), -1)
    known = found.known.reshape(len(rates), -1).max(axis=0)
    columns = {f"pwp_{name}_price": price for name, price in zip(rates, prices, strict=True)}
    return framed(columns).with_columns(instants("ts_known", known))


def last_mids(moments: pl.DataFrame, tape: PriceTape) -> pl.DataFrame:
    """Return the last mid at or before each moment, whatever its age.

    Args:
        moments: `symbol ts_event`, no nulls, any row order.
        tape: The mids of a `Market`.

    Returns:
        Row by row as the moments: `mid_price age_s ts_known`, null where no mid is known.
    """
    ts = integers(moments, "ts_event")
    row = tape.last(tape.timeline.place(moments.get_column("symbol")), ts)
    mid = tape.at(row)
    age = np.where(row >= 0, (ts - tape.ts[row]) / _S, np.nan)
    return framed({"mid_price": mid.price, "age_s": age}).with_columns(instants("ts_known", mid.known))


def session_prices(sessions: Sessions, tape: PriceTape) -> pl.DataFrame:
    """Return the first and last mid of each session, and the last one of the session before.

    Args:
        sessions: What `ordered_sessions` returns. The session before is the row before of the symbol.
        tape: The mids of a `Market`.

    Returns:
        Row by row as `sessions.rows`: `open_price`, null where the session has no mid; `close_price`, null there and
        while the session is not over; `prev_close_price`; and when each was known: `open_known`; `close_known` and
        `prev_close_known`, never before the close.
    """
    symbols, is_over = sessions.rows.get_column("symbol"), sessions.rows.get_column("is_over").to_numpy()
    closes, place = integers(sessions.rows, "ts_close"), tape.timeline.place(symbols)
    first = tape.timeline.rows_before(place, integers(sessions.rows, "ts_open"))
    stop = tape.timeline.rows_before(place, closes)
    opening = tape.at(np.where(first < stop, first, -1))
    closing = tape.at(np.where((first < stop) & is_over, stop - 1, -1))
    prices = framed({"open_price": opening.price, "close_price": closing.price}).with_columns(
        instants("open_known", opening.known),
        instants("close_known", np.where(closing.known > NEVER, np.maximum(closing.known, closes), NEVER)),
        symbol=symbols,
    )
    before = (pl.col(name).shift().over("symbol").alias(f"prev_{name}") for name in ("close_price", "close_known"))
    return prices.with_columns(before).drop("symbol")


def instants(name: str, known: Array) -> pl.Series:
    """Return integer ns as a column of times, null for NEVER."""
    return pl.Series(name, known).replace(NEVER, None).cast(INSTANT)
