"""Lines of one symbol's connection to messages with a time: which are frames, what their JSON says. Rows: `frames`.

A line is `<local receive time, ns> <JSON>`, and the JSON one of:

    {"stream": "btcusdt@trade", "data": {…}}      the combined stream's envelope; the kind ends at the next `@` or `"`
    the same with `"refill": true`                a trade, or an aggregate of trades, that was asked for over REST
    {"stream": "btcusdt@gap", "data": {…}}        what became of a hole in the trade ids, written by the collector
    {"lastUpdateId": …, "bids": […], "asks": […]} the answer to a REST depth snapshot as it stands
"""

import re
from dataclasses import dataclass, field

import msgspec
import polars as pl

from quant_platform.contracts.market import Book, Gap, Quote, Trade
from quant_platform.feeds.recorded import Wanted

PLACE = "place"
LINES = pl.Schema({PLACE: pl.Int64, "text": pl.String})
BROKEN = pl.Schema({PLACE: pl.Int64, "text": pl.String, "rule": pl.String})

_MICROSECONDS_FROM = 10**14  # as ms this is the year 5138, as us it is 1973
_MILLISECONDS_UNTIL, _MICROSECONDS_UNTIL = 2**63 // 1_000_000, 2**63 // 1_000  # what ns can say
_MEDIAN_OF = 1_001
_LINES_AT_ONCE = 4_096  # what is decoded stays in a core's cache: twice as fast as 100,000

_INT, _TEXT, _LEVELS = pl.Int64(), pl.String(), pl.List(pl.List(pl.String))
_TIMES: dict[str, pl.DataType] = {"T": _INT, "E": _INT}
_TRADE = {"t": _INT, "f": _INT, "l": _INT, "p": _TEXT, "q": _TEXT, "m": pl.Boolean()}
_TICKER = {"u": _INT, "b": _TEXT, "B": _TEXT, "a": _TEXT, "A": _TEXT}
_DEPTH = {"U": _INT, "u": _INT, "pu": _INT, "b": _LEVELS, "a": _LEVELS}
_SNAPSHOT = {"lastUpdateId": _INT, "bids": _LEVELS, "asks": _LEVELS}
_GAP = {"first_id": _INT, "last_id": _INT, "ts_start": _INT, "ts_end": _INT, "filled_by": _TEXT}
_KINDS = {Trade.table: "trade|aggTrade", Quote.table: "bookTicker", Book.table: "depth", Gap.table: "gap"}
_BODIES: dict[str, dict[str, pl.DataType]] = {Trade.table: _TRADE, Quote.table: _TICKER, Gap.table: _GAP}

_TIME = r"^(?:\d{16,18}|[0-8]\d{18}) \{\s*"
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANSWER = r'(?:"[ET]"\s*:\s*\d+\s*,\s*)*"lastUpdateId"'  # keys of an object have no order
_IS_SNAPSHOT = rf"^\{{\s*{_ANSWER}"


@dataclass(frozen=True)
class Clock:
    """How the venue's clock stood to ours, where some messages carry no time: on the spot market.

    Attributes:
        ahead: The venue's time minus ours in the last messages that carried a time, ns.
        median: The running median of it; None before the first.
        waiting: The lines that came before it and need it (`LINES`).
    """

    ahead: pl.Series = field(default_factory=lambda: pl.Series("ahead", dtype=_INT))
    median: int | None = None
    waiting: pl.DataFrame = field(default_factory=LINES.to_frame)

    def given_up(self) -> pl.DataFrame:
        """Return the frames that still wait, as `framed` returns frames, the clock of none of them known."""
        return _parted(self.waiting).with_columns(ahead=pl.lit(None, _INT))


def framed(clock: Clock, lines: pl.DataFrame, wanted: Wanted) -> tuple[Clock, pl.DataFrame, pl.DataFrame]:
    """Return the frames among the lines that are of the table's kinds, and the lines that are no frames at all.

    Args:
        clock: What the call before returned.
        lines: `LINES`, in the order of arrival.
        wanted: The table, the symbol and the venue.

    Returns:
        The next clock; `place text ts_recv body ahead`, `ahead` being how far the venue's clock is estimated to be
        ahead of ours, null where the venue times all messages; and `BROKEN`.
    """
    stream = rf'"stream"\s*:\s*"{re.escape(wanted.venue_symbol.lower())}@'
    answer = f"|{_ANSWER}" if wanted.table == Book.table else ""
    text = pl.col("text")
    is_own = lines["text"].str.contains(rf'{_TIME}(?:{stream}(?:{_KINDS[wanted.table]})["@]{answer})')
    is_frame = text.str.contains(rf'{_TIME}(?:{stream}[A-Za-z0-9]+["@]|{_ANSWER})')
    rule = pl.when(text.str.contains(_TIME)).then(pl.lit("frame|stream")).otherwise(pl.lit("frame|format"))
    broken = lines.filter(~is_own).filter(~is_frame).select(PLACE, "text", rule=rule)
    own = lines.filter(is_own)
    if wanted.venue != "binance_spot" or wanted.table not in {Quote.table, Book.table}:
        return clock, _parted(own).with_columns(ahead=pl.lit(None, _INT)), broken
    event_time = pl.col("body").str.head(200).str.extract(r'"E"\s*:\s*(\d+)').cast(_INT, strict=False)
    # Most lines are quotes without a time: to see that is cheaper than to take them apart.
    is_timed = text.str.head(220).str.contains('"E"', literal=True)
    clocks = (
        _parted(lines.filter(is_timed & is_frame)).select(PLACE, ahead=_ns(event_time) - pl.col("ts_recv")).drop_nulls()
    )
    return *_with_clock(clock, own, clocks), broken


def decoded(frames: pl.DataFrame, table: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return frames of a table's kinds as messages in the order of arrival, and those not of their kind's shape.

    Returns:
        `place text ts_recv ahead ns` (`ns` the venue's time, null where it gave none) and the fields of the kind; and
        `BROKEN`.
    """
    if table != Book.table:
        messages, broken = _of_shape(frames, {"data": pl.Struct(_TIMES | _BODIES[table])})
        messages = messages.unnest("data")
        time = pl.col("ts_end") if table == Gap.table else _ns(pl.coalesce("T", "E"))
        return messages.with_columns(ns=time).drop("T", "E"), broken
    is_answer = pl.col("body").str.contains(_IS_SNAPSHOT)
    diffs, broken_diffs = _of_shape(frames.filter(~is_answer), {"data": pl.Struct(_TIMES | _DEPTH)})
    snapshots, broken_snapshots = _of_shape(frames.filter(is_answer), _TIMES | _SNAPSHOT)
    messages = pl.concat(
        [
            _book_messages(diffs.unnest("data"), "diff", ("U", "u", "pu"), ("b", "a")),
            _book_messages(snapshots, "snapshot", (None, "lastUpdateId", None), ("bids", "asks")),
        ]
    )
    return messages.sort(PLACE), pl.concat([broken_diffs, broken_snapshots])


def dated(messages: pl.DataFrame, latest: int | None) -> tuple[pl.DataFrame, int | None]:
    """Give the messages without a time the estimate, which never falls; and `is_assumed`, which says so.

    Args:
        messages: What `decoded` returned.
        latest: The greatest estimate before; None before the first.

    Returns:
        The messages, and the greatest estimate so far.
    """
    estimate = pl.max_horizontal((pl.col("ts_recv") + pl.col("ahead")).cum_max(), pl.lit(latest, _INT))
    messages = messages.with_columns(estimate=estimate, is_assumed=pl.col("ns").is_null())
    last = messages["estimate"].max()
    assert last is None or isinstance(last, int)
    return messages.with_columns(ns=pl.coalesce("ns", "estimate")).drop("estimate"), latest if last is None else last


def is_snapshot(frames: pl.DataFrame) -> bool:
    """Return whether the first of some frames of the book is a snapshot."""
    return bool(frames["body"].head(1).str.contains(_IS_SNAPSHOT).any())


def _parted(lines: pl.DataFrame) -> pl.DataFrame:
    parts = lines["text"].str.splitn(" ", 2).struct
    return lines.with_columns(parts.field("field_0").cast(_INT).alias("ts_recv"), parts.field("field_1").alias("body"))


def _with_clock(clock: Clock, lines: pl.DataFrame, clocks: pl.DataFrame) -> tuple[Clock, pl.DataFrame]:
    history = pl.concat([clock.ahead, clocks["ahead"]])
    medians = history.rolling_median(_MEDIAN_OF, min_samples=1).round().cast(_INT)[clock.ahead.len() :]
    lines = pl.concat([clock.waiting, lines])
    first, last = clock.median, clock.median
    if medians.len():
        first, last = medians[0] if first is None else first, medians[-1]
    if first is None:
        return Clock(waiting=lines), clock.given_up().clear()
    frames = _parted(lines).join_asof(clocks.select(PLACE, ahead=medians), on=PLACE)
    return Clock(history.tail(_MEDIAN_OF - 1), last), frames.with_columns(pl.col("ahead").fill_null(first))


def _of_shape(frames: pl.DataFrame, shape: dict[str, pl.DataType]) -> tuple[pl.DataFrame, pl.DataFrame]:
    body = _json(frames["body"], pl.Struct(shape))
    messages = frames.drop("body").hstack(body.struct.unnest())
    if not body.null_count():
        return messages, BROKEN.to_frame()
    broken = frames.filter(body.is_null()).select(PLACE, "text", rule=pl.lit("frame|json"))
    return messages.filter(body.is_not_null()), broken


def _book_messages(
    messages: pl.DataFrame, kind: str, ids: tuple[str | None, str, str | None], sides: tuple[str, str]
) -> pl.DataFrame:
    first, final, previous = (pl.lit(None, _INT) if name is None else pl.col(name) for name in ids)
    return messages.select(
        PLACE,
        "text",
        "ts_recv",
        "ahead",
        ns=_ns(pl.coalesce("T", "E")),
        kind=pl.lit(kind),
        first_id=first,
        final_id=final,
        previous_id=previous,
        **{
            f"{side}_{name}": pl.col(levels).list.eval(
                pl.element().list.get(i, null_on_oob=True).cast(pl.Float64, strict=False)
            )
            for side, levels in zip(("bid", "ask"), sides, strict=True)
            for i, name in enumerate(("prices", "sizes"))
        },
    )


def _json(texts: pl.Series, shape: pl.Struct) -> pl.Series:
    """Return the texts decoded, null where one is not of the shape."""
    parts = (texts[start : start + _LINES_AT_ONCE] for start in range(0, texts.len(), _LINES_AT_ONCE))
    return pl.concat([pl.Series(texts.name, dtype=shape), *(_json_or_nulls(part, shape) for part in parts)])


def _json_or_nulls(texts: pl.Series, shape: pl.Struct) -> pl.Series:
    values = _json_or_none(texts, shape)
    if values is not None:
        return values
    is_object = pl.Series([_is_object(text) for text in texts], dtype=pl.Boolean)
    objects = _bisected(texts.filter(is_object), shape)
    return objects.gather(pl.select(pl.when(is_object).then(is_object.cum_sum() - 1)).to_series())


def _bisected(texts: pl.Series, shape: pl.Struct) -> pl.Series:
    values = _json_or_none(texts, shape)
    if values is not None:
        return values
    if texts.len() == 1:
        return pl.Series(texts.name, [None], dtype=shape)
    half = texts.len() // 2
    return pl.concat([_bisected(texts[:half], shape), _bisected(texts[half:], shape)])


def _json_or_none(texts: pl.Series, shape: pl.Struct) -> pl.Series | None:
    try:
        values = texts.str.json_decode(shape)
    except pl.exceptions.ComputeError:
        return None
    return values if values.len() == texts.len() else None


def _is_object(text: str) -> bool:
    try:
        _OBJECT.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _ns(time: pl.Expr) -> pl.Expr:
    """Return ms or us as ns, null where ns cannot say it."""
    is_ms = time.is_between(0, _MILLISECONDS_UNTIL, closed="left")
    is_us = time.is_between(_MICROSECONDS_FROM, _MICROSECONDS_UNTIL, closed="left")
    return pl.when(is_ms).then(time * 1_000_000).when(is_us).then(time * 1_000)
