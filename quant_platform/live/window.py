"""What came of the market and may be stepped: trades, quotes and books of all symbols, each row once, in order.

Which keys there are is `_window_keys`' business, what an entry must be `_window_rows`'. No metric is computed here.

**Trades** go in the order of their ids, without a hole. Where ids are missing the rows behind wait: the collector lands
what it publishes before it does, so the landing is looked through at once, and again after two seconds, when the
collector may have asked the venue. What is not there by then is given up: the symbol has a gap. A trade that comes
after that is dropped; when all have come the symbol can be repaired, by being opened again.

**Quotes and books** go by time and update id. The numbers of the entries tell what a Stream lost: quotes are looked for
like trades, and what comes after them waits; books are not, since a book stands on all before it.

**Trades and quotes** belong together: a trade wants the quote that stood strictly before it, and a fold remembers the
last two instants of the quotes. So

- a trade waits until a quote of its time or later was read, 50 ms have passed since it was written, or it was read
  before the latest `take`; it does not wait where the symbol has no quotes;
- a quote waits for all trades of its time or earlier that wait, and while trades are missing for all that came after
  the last trade. Where no trade waits it goes if a trade of its time or later was read, if the symbol's market has
  gone on by 250 ms since, or if it was read before the latest `take`: the venue sends trades and quotes on lines of
  their own, and a batch of the collector may end between a quote and an earlier trade that comes later.

A trade that nevertheless comes after quotes of two instants that are not before it goes: it meets no quote, or none
that stands in the lake before it. That is counted, and told as a gap of the quotes.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import polars as pl
import redis

from quant_platform.contracts._schema import Contract, polars_schema
from quant_platform.contracts.market import Book, Quote, Trade
from quant_platform.live._window_keys import Keys
from quant_platform.live._window_refill import Found, Lack, Refills
from quant_platform.live._window_rows import CODE, TABLES, Notices, Rows
from quant_platform.live._window_tape import LEAST, Array, OrderedTrades, Tape, integers, up_to_first
from quant_platform.live._window_updates import Instants, Loss, Updates, joined
from quant_platform.settings import Settings

_WRITTEN_NS = 50_000_000
_APART_NS = 250_000_000  # recorded: trades come up to 24 ms after later quotes, and 212 ms where quotes have no time
_LIMIT_ROWS = 1_000_000
_KEPT_ROWS = 900_000
_NEVER = 2**62
_NO_ENDS: Mapping[str, int] = MappingProxyType({})
_Waiting = Tape | Updates


class Chunk(NamedTuple):
    """What may be stepped: contract frames, sorted by symbol and as the contract says; `ts_recv` is never null."""

    trades: pl.DataFrame
    quotes: pl.DataFrame
    books: pl.DataFrame


class Position(NamedTuple):
    """How far a symbol has been folded when it is opened; None where nothing was. Quotes and books: ns, sequence."""

    last_trade_id: int | None
    last_quote: tuple[int, int] | None
    last_book: tuple[int, int] | None


class Window:
    """The market's rows from Redis to the folds. One thread uses it.

    Args:
        settings: The instruments, and where the landing is.
        symbols: Those that are read.

    Attributes:
        counts: Since the start. Entries: `malformed`, keys of `wrong_type`; rows: `duplicates`, `refilled`, `dropped`
            because too many waited; trades: `late`, `gaps` that were given up, `out_of_order` (of an earlier time than
            one before them), `overtaken` by quotes; `late_quotes`, `late_books`, `lost_quotes`, `lost_books`.
        heard_s: By symbol, when a row of any kind was last read, by the monotonic clock.

    Raises:
        SettingsError: A symbol is not configured.
    """

    def __init__(self, settings: Settings, symbols: Sequence[str], *, limit_rows: int = _LIMIT_ROWS) -> None:
        self._names = sorted(set(symbols))
        self._codes = {name: code for code, name in enumerate(self._names)}
        self._limit_rows = limit_rows
        self._notices = Notices()
        self.counts: Counter[str] = self._notices.counts
        self.heard_s: dict[str, float] = {}
        venues = [settings.instrument(name).feed for name in self._names]
        self._rows = {table: Rows(table, self._names, venues, self._notices) for table in TABLES}
        self._keys = Keys(self._names, self._notices)
        self._refills = Refills(settings, self._notices)
        self._tape = Tape(self._names, self._notices)
        self._quotes, self._books = (Updates(table, self._names, self._notices) for table in (Quote, Book))
        self._parts: dict[type[Contract], _Waiting] = {Trade: self._tape, Quote: self._quotes, Book: self._books}
        self._held: dict[type[Contract], list[pl.DataFrame]] = {table: [] for table in TABLES}
        self._is_held = np.zeros(len(self._names), bool)
        self._adopted: set[int] = set()
        self._losses: dict[int, Loss] = {}
        self._dropped_id: dict[int, int] = {}
        self._quote_gap: dict[int, int] = {}
        self._book_gap: dict[int, int] = {}
        self._reads, self._fresh_from = 0, 1
        self._market, self._trade_read, self._quote_read = np.full((3, len(self._names)), LEAST)
        self._instants = Instants(len(self._names))

    def read(self, client: redis.Redis) -> None:
        """Read what came into what waits.

        Raises:
            redis.RedisError: Nothing is lost by it: the next call goes on.
        """
        now_ns, now_s = time.time_ns(), time.monotonic()
        entries = self._keys.read(client, now_ns, now_s)
        self._reads += 1
        for table, rows in self._rows.items():
            if entries[table].payloads:
                self._arrived(table, rows.decoded(entries[table], now_ns, now_s), now_s)
        if sum(rows.height for rows in self._all_waiting()) > self._limit_rows:
            self._drop_oldest(now_s)

    def hold(self, symbols: Iterable[str]) -> None:
        """Let the rows of these symbols wait from now on, until they are adopted."""
        codes = [self._codes[symbol] for symbol in symbols]
        self._is_held[codes] = True
        self._adopted.difference_update(codes)
        for code in codes:
            self._refills.forget(self._names[code])
            self._quote_gap.pop(code, None)
            self._book_gap.pop(code, None)
        for table, part in self._parts.items():
            is_held = self._is_held[integers(part.waiting, CODE)]
            self._held[table].append(part.waiting.filter(is_held))
            part.waiting = part.waiting.filter(~is_held)

    def adopt(self, symbol: str, position: Position) -> None:
        """Go on with a symbol behind a position: what is not after it is dropped, and the symbol has no gap."""
        code, last_quote = self._codes[symbol], position.last_quote
        self._tape.adopt(code, position.last_trade_id, self._dropped_id.pop(code, None))
        self._quotes.adopt(code, last_quote)
        self._books.adopt(code, position.last_book)
        self._instants.adopt(code, last_quote[0] if last_quote else LEAST)
        self._refills.forget(symbol)
        if last_quote is not None:
            self._quote_read[code] = max(self._quote_read[code], last_quote[0])
            if (loss := self._losses.pop(code, None)) and last_quote < loss.after:
                is_later = loss.before < last_quote
                self._losses[code] = loss._replace(before=last_quote, entries=0) if is_later else loss
        self._is_held[code] = False
        self._adopted.add(code)

    def take(self, now_ns: int, until: Mapping[str, int] = _NO_ENDS) -> Chunk:
        """Return what may be stepped now, and forget it.

        Args:
            now_ns: Our clock, UTC ns.
            until: By symbol, ns: its rows of that time or later wait, and so do trades with a greater id than theirs.
        """
        now_s = time.monotonic()
        self._move_adopted()
        self._add_refills(now_s)
        ends = np.full(len(self._names), _NEVER)
        for symbol, end in until.items():
            ends[self._codes[symbol]] = end
        tape = self._tape.ordered(now_s)
        is_missing, lost_from = self._lacking(tape, now_s)
        codes, ts = tape.codes, tape.ts
        is_early = (self._quote_read[codes] < ts) & (self._quote_read[codes] > LEAST)
        is_early &= integers(tape.rows, "read") >= self._fresh_from
        is_early &= now_ns - integers(tape.rows, "ts_written") <= _WRITTEN_NS
        is_free = up_to_first(codes, is_missing | is_early | (ts >= ends[codes]) | (ts > lost_from[0][codes]))
        trades = self._tape.released(tape, is_free, now_s)
        is_overtaken = self._instants.are_behind(codes, ts) & is_free
        self.counts["overtaken"] += int(is_overtaken.sum())
        self._quote_gap.update(zip(codes[is_overtaken].tolist(), ts[is_overtaken].tolist(), strict=True))
        bounds = self._bounds(tape, is_free, is_missing)
        quotes = self._free_quotes(ends, bounds, lost_from)
        books = self._books.ordered()
        books_free = self._books.released(books, up_to_first(books.codes, books.ts >= ends[books.codes]))
        self.counts["refilled"] += sum(int(rows["is_refill"].sum()) for rows in (trades, quotes))
        self._fresh_from = self._reads + 1
        by_time = trades.sort(CODE, *Trade.sorted_by)  # the others are in that order
        frames = ((Trade, by_time), (Quote, quotes), (Book, books_free))
        return Chunk(*(rows.select(polars_schema(table).names()) for table, rows in frames))

    def has_gap(self, symbol: str) -> bool:
        """Whether trades are missing since the symbol was adopted."""
        return bool(self._tape.has_gap[self._codes[symbol]])

    def repairable(self) -> list[str]:
        """Return the symbols with a gap of which all trades came since: an opening will find them."""
        return [self._names[code] for code in self._tape.repairable()]

    def market_ns(self, symbol: str) -> int | None:
        """Return the symbol's market time: the greatest ts_event read, ns."""
        return None if (ts := int(self._market[self._codes[symbol]])) == LEAST else ts

    def quote_gap_ns(self, symbol: str) -> int | None:
        """Return the market time, ns, up to which a trade may have met another quote than the one before it."""
        return self._quote_gap.get(self._codes[symbol])

    def book_gap_ns(self, symbol: str) -> int | None:
        """Return the market time, ns, of the first book after those that were lost last."""
        return self._book_gap.get(self._codes[symbol])

    def close(self) -> None:
        """End the thread that looks into the landing."""
        self._refills.close()

    def _arrived(self, table: type[Contract], rows: pl.DataFrame, now_s: float) -> None:
        codes, ts = integers(rows, CODE), integers(rows, "ts_event")
        np.maximum.at(self._market, codes, ts)
        if table is not Book:
            np.maximum.at(self._trade_read if table is Trade else self._quote_read, codes, ts)
        for code in np.unique(codes).tolist():
            self.heard_s[self._names[code]] = now_s
        part = self._parts[table]
        if isinstance(part, Updates):
            numbered = rows.filter(~pl.col(CODE).is_in(listed)) if (listed := self._keys.listed(table)) else rows
            for code, loss in part.losses(numbered, now_s).items():
                self._lost(table, code, loss)
        rows = _like(part.waiting, rows, read=self._reads, read_s=now_s, is_refill=False)
        is_held = self._is_held[codes]
        if is_held.any():
            self._held[table].append(rows.filter(is_held))
            rows = rows.filter(~is_held)
        part.waiting = pl.concat([part.waiting, rows])

    def _lost(self, table: type[Contract], code: int, loss: Loss) -> None:
        if table is Book:
            self._book_gap[code] = loss.after[0]
        else:
            self._losses[code] = joined(self._losses.get(code), loss)

    def _move_adopted(self) -> None:
        if not self._adopted:
            return
        for table, part in self._parts.items():
            held = pl.concat([part.waiting.clear(), *self._held[table]])
            is_adopted = pl.col(CODE).is_in(self._adopted)
            part.waiting = pl.concat([part.waiting, part.new(held.filter(is_adopted))])
            self._held[table] = [held.filter(~is_adopted)]
        self._adopted.clear()

    def _add_refills(self, now_s: float) -> None:
        for symbol, (seen_s, found) in self._refills.done(now_s).items():
            code = self._codes[symbol]
            for table, rows in found.items():
                part = self._parts[table]
                named = rows.with_columns(pl.lit(code, pl.Int64).alias(CODE), ts_written=pl.lit(0, pl.Int64))
                new = _like(part.waiting, named, read=self._reads, read_s=seen_s, is_refill=True)
                part.waiting = pl.concat([part.waiting, new])
            if code in self._losses and _between(self._losses[code], found) >= self._losses[code].entries:
                del self._losses[code]

    def _lacking(self, tape: OrderedTrades, now_s: float) -> tuple[Array, Array]:
        """Have the landing looked through for what is lacking, and give quotes up that are not there.

        Returns:
            Per trade, whether ids before it are missing that may still come; and ts_event and sequence by code, after
            which quotes are.
        """
        is_missing, lost_from = np.zeros(len(tape.codes), bool), np.full((2, len(self._names)), _NEVER)
        ids: dict[int, tuple[int, int]] = {}
        seen: dict[int, set[float]] = {}
        for place in tape.jumps.tolist():
            code, seen_s = int(tape.codes[place]), float(tape.rows["read_s"][place])
            first, last = int(tape.expected[place]), int(tape.rows["first_trade_id"][place]) - 1
            ids[code] = ids.get(code, (first, last))[0], last
            seen.setdefault(code, set()).add(seen_s)
            is_missing[place] = not self._refills.is_over(self._names[code], seen_s, now_s)
        for code, loss in list(self._losses.items()):
            if self._is_held[code]:
                continue
            if self._refills.is_over(self._names[code], loss.seen_s, now_s):
                self._quote_gap[code] = loss.after[0]
                self._notices.say("quotes missing", self._names[code], now_s, at_least=loss.entries)
                del self._losses[code]
                continue
            lost_from[:, code] = loss.before
            seen.setdefault(code, set()).add(loss.seen_s)
        for code, times in seen.items():
            lost = self._losses.get(code)
            lack = Lack(ids.get(code), (lost.before[0], lost.after[0]) if lost else None)
            for seen_s in times:
                self._refills.ask(self._names[code], lack, seen_s, now_s)
        return is_missing, lost_from

    def _bounds(self, tape: OrderedTrades, is_free: Array, is_missing: Array) -> Array:
        """Return by code the time before which quotes may go, once the free trades went."""
        bounds = np.full(len(self._names), _NEVER)
        is_first = ~is_free & np.append(True, is_free[:-1] | (np.diff(tape.codes) != 0))[: len(is_free)]
        holed = tape.codes[is_first & is_missing]
        bounds[holed] = self._tape.last_ts[holed] + 1
        np.minimum.at(bounds, tape.codes[~is_free], tape.ts[~is_free])
        return bounds

    def _free_quotes(self, ends: Array, bounds: Array, lost_from: Array) -> pl.DataFrame:
        quotes = self._quotes.ordered()
        codes, ts = quotes.codes, quotes.ts
        lost_ts, lost_sequence = lost_from[:, codes]
        is_lost = (ts > lost_ts) | ((ts == lost_ts) & (integers(quotes.rows, "sequence") > lost_sequence))
        is_near = (ts > self._trade_read[codes]) & (ts > self._market[codes] - _APART_NS)
        is_near &= integers(quotes.rows, "read") >= self._fresh_from
        is_free = up_to_first(codes, is_lost | is_near | (ts >= bounds[codes]) | (ts >= ends[codes]))
        self._instants.add(codes[is_free], ts[is_free])
        return self._quotes.released(quotes, is_free)

    def _all_waiting(self) -> Iterator[pl.DataFrame]:
        for table, part in self._parts.items():
            yield part.waiting
            yield from self._held[table]

    def _drop_oldest(self, now_s: float) -> None:
        """Let the rows go that were read first; what the landing has of them is read again when it is their turn."""
        reads = np.sort(np.concatenate([integers(rows, "read") for rows in self._all_waiting()]))
        last = int(reads[-self._limit_rows * 9 // 10])
        last -= int(reads[0] < last)  # the rows of that read stay, if there are older ones
        for table, part in self._parts.items():
            frames = [part.waiting, *self._held[table]]
            self._dropped(table, pl.concat(rows.filter(pl.col("read") <= last) for rows in frames), now_s)
            part.waiting, *self._held[table] = (rows.filter(pl.col("read") > last) for rows in frames)

    def _dropped(self, table: type[Contract], rows: pl.DataFrame, now_s: float) -> None:
        self.counts["dropped"] += rows.height
        ident = table.sorted_by[1]
        spans = (
            rows.sort(CODE, *table.sorted_by)
            .group_by(CODE, maintain_order=True)
            .agg(
                pl.col("ts_event", ident).first().to_physical().name.prefix("first_"),
                pl.col("ts_event", ident).last().to_physical().name.prefix("last_"),
                pl.len(),
            )
        )
        for code, first_ts, first, last_ts, last, count in spans.iter_rows():
            self._notices.say("too many rows wait: the oldest were dropped", self._names[code], now_s, rows=count)
            if table is Trade:
                self._dropped_id[code] = min(first, self._dropped_id.get(code, first))
                self._tape.expect(code, first)
            else:
                self._lost(table, code, Loss((first_ts, first - 1), (last_ts, last + 1), count, now_s))


def _between(loss: Loss, found: Found) -> int:
    """Return how many quotes of a loss were found."""
    quotes = found.get(Quote, pl.DataFrame())
    keys = quotes.select(pl.col("ts_event").to_physical(), "sequence").iter_rows() if quotes.height else ()
    return sum(loss.before < key < loss.after for key in keys)


def _like(waiting: pl.DataFrame, rows: pl.DataFrame, *, read: int, read_s: float, is_refill: bool) -> pl.DataFrame:
    facts = {"read": pl.lit(read, pl.Int64), "read_s": pl.lit(read_s), "is_refill": pl.lit(is_refill)}
    return rows.with_columns(**facts).select(waiting.columns)
