"""The folds of all symbols, stepped at each family's own interval. When, and what is written of it, is the writer's.

A family is what shares an update interval. It steps its symbols in turn, so that each cycle has its share of the work;
the rows of the others wait. All symbols of one call stand in one frame.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import polars as pl
import structlog

from quant_platform.calculators import (
    flow_clusters,
    hidden_orders,
    order_book,
    participants,
    states,
    sweeps,
    toxicity,
    trade_sign,
    vpin,
)
from quant_platform.contracts._schema import contract_of, empty
from quant_platform.live._auctions import Auctions
from quant_platform.live.hours import Served
from quant_platform.live.opening import (
    BOOK,
    CLUSTERS,
    HIDDEN,
    PARTICIPANTS,
    QUOTES,
    SWEEPS,
    TAPE,
    TOXICITY,
    VPIN,
    Opened,
    newest,
)
from quant_platform.live.window import Chunk
from quant_platform.pipeline import order_flow
from quant_platform.pipeline.sessions import ALWAYS_OPEN
from quant_platform.settings import CAPTURED_FEEDS, Settings
from quant_platform.storage import redis_keys
from quant_platform.storage.redis_keys import Key

CLOSING = "microstructure/closing_imbalance"
KEYS: Mapping[str, Mapping[Key, str]] = {
    "vpin": {redis_keys.VPIN: VPIN},
    "flow_toxicity": {
        redis_keys.TOXICITY: TOXICITY,
        redis_keys.INSTITUTIONAL_FLOW: PARTICIPANTS,
        redis_keys.RETAIL_FLOW: PARTICIPANTS,
    },
    "order_book": {redis_keys.OBI: BOOK},
    "sweep_detection": {redis_keys.SWEEP: SWEEPS, redis_keys.HIDDEN: HIDDEN},
    "flow_clustering": {redis_keys.FLOW_CLUSTERS: CLUSTERS},
    "moc": {redis_keys.MOC: CLOSING},
}
"""Each family's keys, and the table whose newest row a key shows."""

_LOG = structlog.get_logger()
_FAILURES = 16  # of a family in one cycle: halving finds one bad symbol among thousands with fewer
_DEPTH_COMES_WITHIN_S = 10
_NS = 1_000_000_000
_Stepped = tuple[dict[str, Any], dict[str, pl.DataFrame]]


class _Waiting:
    """Rows of a stream that a family has not stepped yet."""

    def __init__(self) -> None:
        self._frames: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        if rows.height:
            self._frames.append(rows)

    def take(self, symbols: Sequence[str]) -> pl.DataFrame | None:
        """Return the rows of these symbols, and forget them; None where there are none."""
        if not self._frames:
            return None
        rows = pl.concat(self._frames, rechunk=True)
        is_taken = rows["symbol"].is_in(symbols)
        self._frames = []
        if not is_taken.all():
            self.add(rows.filter(~is_taken))
            rows = rows.filter(is_taken)
        return rows if rows.height else None


class _Family(NamedTuple):
    """How a family steps.

    Attributes:
        step: From the rows of its streams to the states and the tables' rows after them; it changes nothing.
        streams: What it reads, an empty frame each.
    """

    step: Callable[[Mapping[str, pl.DataFrame]], _Stepped]
    streams: Mapping[str, pl.DataFrame]


class Engine:
    """The folds of symbols for which the same parameters hold.

    A family that raises for some symbols goes on for the others: these miss what came, until they are opened again.
    """

    def __init__(self, settings: Settings, symbols: Sequence[str]) -> None:
        """Start without a symbol: each is adopted when it has been opened."""
        instruments = {symbol: settings.instrument(symbol) for symbol in symbols}
        any_one = instruments[symbols[0]]
        self.symbols = sorted(symbols)
        self.errors: Counter[str] = Counter()
        self._analytics = settings.analytics
        self._vpin_params = order_flow.vpin_params(settings)
        self._toxicity_params = order_flow.toxicity_params(settings, any_one)
        self._participant_params = order_flow.participant_params(settings, any_one)
        self._hidden_params = order_flow.hidden_order_params(settings, any_one)
        self._has_depth: set[str] = set()
        # Where depth is captured it comes soon after the quotes, which stand in for it where it does not.
        self._quotes_from = {symbol: 0 for symbol, one in instruments.items() if one.feed not in CAPTURED_FEEDS}
        self._has_close = {symbol for symbol, one in instruments.items() if one.calendar != ALWAYS_OPEN}
        self._states: dict[str, Any] = {
            TAPE: trade_sign.initial(),
            VPIN: order_flow.VpinState(
                vpin.initial(),
                pl.DataFrame(schema={"symbol": pl.String, "bucket_size": pl.Float64}),
                vpin.reference(empty(contract_of("microstructure/vpin_buckets"))),
            ),
            TOXICITY: toxicity.initial(),
            PARTICIPANTS: participants.initial(),
            SWEEPS: sweeps.initial(),
            HIDDEN: hidden_orders.initial(),
            CLUSTERS: flow_clusters.initial(),
            BOOK: order_book.initial(),
        }
        tape, quotes = {TAPE: trade_sign.SIGNED.to_frame()}, {QUOTES: empty(contract_of(QUOTES))}
        books = {"market/book": empty(contract_of("market/book"))}
        self._families = {
            "vpin": _Family(self._vpin, tape),
            "flow_toxicity": _Family(self._toxicity, {**tape, VPIN: empty(contract_of(VPIN))}),
            "order_book": _Family(self._order_book, {**books, **quotes}),
            "sweep_detection": _Family(self._sweeps, {**tape, **quotes}),
            "flow_clustering": _Family(self._clusters, tape),
        }
        self._waiting = {
            name: {stream: _Waiting() for stream in family.streams} for name, family in self._families.items()
        }
        self._newest: dict[str, pl.DataFrame] = {}
        self._closed: dict[str, list[pl.DataFrame]] = defaultdict(list)
        self._lost: dict[str, set[str]] = defaultdict(set)
        self._failing: dict[str, set[str]] = defaultdict(set)
        self._has_missed_books: set[str] = set()  # of the session that is on, before the next one
        self._books_missed_to: dict[str, int] = {}  # market time, ns
        self._quotes_missed_to: dict[str, int] = {}  # trade ids
        of_toxicity, of_participants = (
            (params.window_trades, params.sample_s, params.institutional)
            for params in (self._toxicity_params, self._participant_params)
        )
        self._one_window = of_toxicity if of_toxicity == of_participants else None
        self._longest_window = max(self._toxicity_params.window_trades, self._participant_params.window_trades)
        self._auctions = Auctions(settings.analytics.closing_auction)

    def adopt(self, opened: Opened, served: Served, *, is_roll: bool) -> None:
        """Go on from where a symbol was opened, whatever was known of it before.

        Args:
            opened: The symbol.
            served: Its session.
            is_roll: Whether its books were read up to the session's open, and so none of the session's is missed.
        """
        symbol = opened.symbol
        for table, state in opened.states.items():
            self._states[table] = states.replaced(self._states[table], [symbol], state)
        self._states[BOOK] = states.replaced(self._states[BOOK], [symbol], order_book.initial())
        self._books_missed_to.pop(symbol, None)
        self._quotes_missed_to.pop(symbol, None)
        if not is_roll:
            self._has_missed_books.add(symbol)
        for streams in self._waiting.values():
            for waiting in streams.values():
                waiting.take([symbol])
        for table, rows in opened.rows.items():
            instant = pl.col(contract_of(table).sorted_by[0]).to_physical()
            of_the_date = rows.filter(instant >= served.start_ns)
            self._newest[table] = pl.concat([self._others(table, symbol), of_the_date.tail(1)], rechunk=True)
        for lost in (*self._lost.values(), *self._failing.values()):
            lost.discard(symbol)
        if symbol in self._has_close:
            self._auctions.open(symbol, opened.trades, served.end_ns)

    def feed(self, chunk: Chunk) -> None:
        """Take in what came of adopted symbols, signed: each family steps it when its turn comes."""
        if chunk.trades.height or chunk.quotes.height:
            self._feed_tape(chunk)
        self._feed_books(chunk)
        if self._has_close:
            self._guarded_auctions(lambda: self._auctions.add(chunk))

    def run(
        self, family: str, symbols: Sequence[str], market_ns: Mapping[str, int], gex_net: Mapping[str, float | None]
    ) -> None:
        """Step a family for these symbols.

        Args:
            family: An update interval's name.
            symbols: Those whose turn it is.
            market_ns: The market's time of each symbol, UTC ns.
            gex_net: Net gamma exposure of the newest chain, in quote currency per 1 %, of symbols that have one.
        """
        if family == "moc":
            self._estimate(symbols, market_ns, gex_net)
            return
        if family == "flow_toxicity":
            self.run("vpin", symbols, market_ns, gex_net)  # of the same cycle
        arrived = {stream: waiting.take(symbols) for stream, waiting in self._waiting[family].items()}
        found = {stream: rows for stream, rows in arrived.items() if rows is not None}
        if not found:
            return
        left = [_FAILURES]
        missed = self._stepped(family, {**self._families[family].streams, **found}, left)
        if missed or self._failing[family]:
            stepped = {symbol for rows in found.values() for symbol in rows["symbol"].unique()}
            self._failing[family] = self._failing[family] - stepped | missed
        if missed:
            self.errors[family] += 1
            self._lost[family] |= missed

    def missed(self, family: str, key: Key, rows: pl.DataFrame) -> set[str]:
        """Return the symbols whose value lacks something that came, or should have come, after they were opened.

        Args:
            family: An update interval's name.
            key: One of its keys.
            rows: What it shows.
        """
        lost = self._lost[family] | (self._lost["vpin"] if family == "flow_toxicity" else set())
        if key is redis_keys.OBI:
            reached, needed = rows["ts_event"].to_physical(), self._books_missed_to
        elif key is redis_keys.HIDDEN or family == "flow_toxicity":
            reached, needed = rows["trade_id" if key is redis_keys.HIDDEN else "last_trade_id"], self._quotes_missed_to
        else:
            return lost
        return lost | {s for s, at in zip(rows["symbol"], reached, strict=True) if at <= needed.get(s, -1)}

    def books_missed(self, symbol: str, at_ns: int) -> None:
        """Note that books of a symbol are missing before an instant of market time."""
        params = self._analytics.order_book
        self._books_missed_to[symbol] = at_ns + int((params.sample_s + params.velocity_lookback_s) * _NS)

    def quotes_missed(self, symbol: str) -> None:
        """Note that the last trades of a symbol may not have met the quote that stood before them."""
        tape = self._states[TAPE].trades
        if symbol in tape.places:
            last_id = int(tape.facts["last_tie"][tape.places[symbol]])
            self._quotes_missed_to[symbol] = last_id + self._longest_window

    def shown(self, key: Key, family: str, symbols: Sequence[str]) -> pl.DataFrame:
        """Return the newest row of each of these symbols for a key; none of those that have none, or failed last."""
        if self._failing[family]:
            symbols = [symbol for symbol in symbols if symbol not in self._failing[family]]
        if key is not redis_keys.SWEEP:
            return self._shown(KEYS[family][key], symbols)
        state = self._states[SWEEPS]
        if len(symbols) < len(self.symbols):
            state = replace(state, tail=state.tail.filter(pl.col("symbol").is_in(symbols)))
        return sweeps.latest(state, self._analytics.sweep_detection)

    def closed(self, table: str) -> pl.DataFrame:
        """Return a table's rows that nothing revises any more, since the last call, each symbol's in order of time."""
        frames = self._closed.pop(table, [])
        return pl.concat(frames) if frames else empty(contract_of(table))

    def _estimate(
        self, symbols: Sequence[str], market_ns: Mapping[str, int], gex_net: Mapping[str, float | None]
    ) -> None:
        if self._has_close:
            books = self._shown(BOOK, symbols)
            self._guarded_auctions(
                lambda: self._keep(CLOSING, self._auctions.estimates(symbols, market_ns, books, gex_net))
            )

    def _guarded_auctions(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # it is not the other families' trouble
            self.errors["moc"] += 1
            self._failing["moc"] = set(self.symbols)
            _LOG.error("closing auctions were not estimated", error=repr(error))
        else:
            self._failing["moc"] = set()

    def _feed_tape(self, chunk: Chunk) -> None:
        readers = {family: streams for family, streams in self._waiting.items() if TAPE in streams}
        try:
            self._states[TAPE], tape = trade_sign.step(
                self._states[TAPE], chunk.trades, chunk.quotes, self._analytics.trade_sign
            )
        except Exception as error:  # noqa: BLE001  # what no reader of the tape gets is not the order book's trouble
            names = sorted({name for rows in chunk[:2] for name in rows["symbol"].unique()})
            _LOG.error("trades were not signed", symbols=names[:5], count=len(names), error=repr(error))
            for family in readers:
                self.errors[family] += 1
                self._lost[family] |= set(names)
                self._failing[family] |= set(names)
            return
        for streams in readers.values():
            streams[TAPE].add(tape)
        self._waiting["sweep_detection"][QUOTES].add(chunk.quotes)

    def _feed_books(self, chunk: Chunk) -> None:
        waiting = self._waiting["order_book"]
        if chunk.books.height:
            with_books = set(chunk.books["symbol"].unique())
            if new := sorted(with_books - self._has_depth):  # until now there were only quotes
                self._has_depth |= with_books
                self._states[BOOK] = states.replaced(self._states[BOOK], new, order_book.initial())
            for symbol in with_books & self._has_missed_books:
                first = chunk.books.filter(pl.col("symbol") == symbol)["ts_event"].to_physical()[0]
                self.books_missed(symbol, first)
            self._has_missed_books -= with_books
        if len(self._has_depth) < len(self.symbols) and chunk.quotes.height:
            waiting[QUOTES].add(self._in_place_of_depth(chunk.quotes))
        waiting["market/book"].add(chunk.books)

    def _in_place_of_depth(self, quotes: pl.DataFrame) -> pl.DataFrame:
        """Return the quotes of symbols without depth, from some seconds after their first one on."""
        instant, known = pl.col("ts_event").to_physical(), sorted(self._has_depth)
        quotes = quotes.filter(~pl.col("symbol").is_in(known))
        if quotes.is_empty():
            return quotes
        for symbol, first_ns in quotes.group_by("symbol").agg(instant.min()).rows():
            self._quotes_from.setdefault(symbol, first_ns + _DEPTH_COMES_WITHIN_S * _NS)
        return quotes.filter(instant >= pl.col("symbol").replace_strict(self._quotes_from, return_dtype=pl.Int64))

    def _stepped(self, family: str, inputs: Mapping[str, pl.DataFrame], left: list[int]) -> set[str]:
        """Step a family; where that fails, by halves. Return the symbols that were left out."""
        try:
            new_states, found = self._families[family].step(inputs)
        except Exception as error:  # noqa: BLE001  # one family's, at best one symbol's, trouble is not the others'
            left[0] -= 1
            names = sorted({name for rows in inputs.values() for name in rows["symbol"].unique()})
            if len(names) <= 1 or left[0] <= 0:
                _LOG.error("a calculator failed", family=family, symbols=names[:5], count=len(names), error=repr(error))
                return set(names)
            missed: set[str] = set()
            for half in (names[: len(names) // 2], names[len(names) // 2 :]):
                some = {stream: rows.filter(pl.col("symbol").is_in(half)) for stream, rows in inputs.items()}
                missed |= self._stepped(family, some, left)
            return missed
        self._states |= new_states
        for table, rows in found.items():
            self._keep(table, rows)
        return set()

    def _vpin(self, inputs: Mapping[str, pl.DataFrame]) -> _Stepped:
        state, params = self._states[VPIN], self._vpin_params
        fold, rows = vpin.step(state.fold, inputs[TAPE], state.sizes, params)
        samples = vpin.standardised(rows.samples, state.reference, params)
        return {VPIN: replace(state, fold=fold)}, {VPIN: samples}

    def _toxicity(self, inputs: Mapping[str, pl.DataFrame]) -> _Stepped:
        tape, state, windows = inputs[TAPE], self._states[TOXICITY], None
        if self._one_window:  # then the tails are the same, too
            windows = participants.windows_for_hits(state.tail, tape, *self._one_window)
        toxic, values = toxicity.step(state, tape, inputs[VPIN], self._toxicity_params, windows=windows)
        who, flows = participants.step(self._states[PARTICIPANTS], tape, self._participant_params, windows=windows)
        return {TOXICITY: toxic, PARTICIPANTS: who}, {TOXICITY: values, PARTICIPANTS: flows}

    def _order_book(self, inputs: Mapping[str, pl.DataFrame]) -> _Stepped:
        state, params = self._states[BOOK], self._analytics.order_book
        state, rows = order_book.step(state, inputs["market/book"], params)
        state, of_quotes = order_book.step(state, inputs[QUOTES], params)
        return {BOOK: state}, {BOOK: pl.concat([rows, of_quotes])}

    def _sweeps(self, inputs: Mapping[str, pl.DataFrame]) -> _Stepped:
        tape = inputs[TAPE]
        swept, rows = sweeps.step(self._states[SWEEPS], tape, self._analytics.sweep_detection)
        hid, orders = hidden_orders.step(self._states[HIDDEN], tape, inputs[QUOTES], self._hidden_params)
        return {SWEEPS: swept, HIDDEN: hid}, {SWEEPS: rows, HIDDEN: orders}

    def _clusters(self, inputs: Mapping[str, pl.DataFrame]) -> _Stepped:
        state, rows = flow_clusters.step(self._states[CLUSTERS], inputs[TAPE], self._analytics.flow_clustering)
        return {CLUSTERS: state}, {CLUSTERS: rows}

    def _keep(self, table: str, rows: pl.DataFrame) -> None:
        """Keep each symbol's newest row; what it has left behind is closed."""
        if rows.is_empty():
            return
        known = newest(table, pl.concat([self._newest.get(table, rows.clear()), rows], rechunk=True))
        known = known.sort("symbol", *contract_of(table).sorted_by)
        is_newest = known["symbol"].is_last_distinct()
        self._newest[table] = known.filter(is_newest)
        if table != HIDDEN and not is_newest.all():  # of hidden orders, one a trade, nobody wants a list
            self._closed[table].append(known.filter(~is_newest))
        if table == VPIN:
            self._waiting["flow_toxicity"][VPIN].add(rows)

    def _shown(self, table: str, symbols: Sequence[str]) -> pl.DataFrame:
        rows = self._newest.get(table)
        if rows is None:
            return empty(contract_of(table))
        return rows if len(symbols) == len(self.symbols) else rows.filter(pl.col("symbol").is_in(symbols))

    def _others(self, table: str, symbol: str) -> pl.DataFrame:
        rows = self._newest.get(table)
        return empty(contract_of(table)) if rows is None else rows.filter(pl.col("symbol") != symbol)
