"""How a replayed venue misbehaves, and its messages when it does. What connections suffer is `replay`'s."""

import dataclasses
import random
import re
from collections.abc import Mapping
from typing import Self

import polars as pl

from quant_platform.feeds._replay_messages import AGG_TRADE
from quant_platform.settings import SettingsError

# What became of a row: the numbers in `note`.
PLAIN, DUPLICATE, REORDER, DROP, MALFORMED, MALFORMED_BINARY, MALFORMED_HUGE = range(7)
NOTES = ("", "duplicate", "reorder", "drop", "malformed", "malformed", "malformed")

_LATER_NS = 1_000_000_000
_BEHIND = 3
_HOLE, _FILL = b"%huge%", b"x" * 17_000_000
_HUGE_EVERY = 50
_NUMBER = re.compile(r":\d+|:\"[\d.]+\"")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Faults:
    """What a replayed venue does wrong; nothing by default. Shares are of messages, 0 to 1; times are real seconds.

    Attributes:
        drop: Trades that are not on the stream, and that REST has.
        lose: Trades that are nowhere.
        duplicate: Messages that are sent twice, half of them a second of market time later.
        reorder: Messages that are sent behind the next three of their stream.
        malformed: Frames of rubbish among the messages: truncated, binary, with null for numbers, of unknown kind,
            and every 50th of 17 MB.
        disconnect_every_s: Each connection is cut at this age: one by an abrupt end, the next with close code 1001.
        stall_every_s: Each connection is silent after so long, for `stall_s`; what passes meanwhile never comes on it.
        stall_s: See above.
        burst_every_s: At the end of so many seconds (10 at least) nine are held back and sent within one.
        rest_429_share: REST requests answered with 429 and Retry-After: 1.
        rest_500_share: REST requests answered with 500 and Retry-After: 1.
        seed: Of all that is left to chance.
    """

    drop: float = 0.0
    lose: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    malformed: float = 0.0
    disconnect_every_s: float = 0.0
    stall_every_s: float = 0.0
    stall_s: float = 0.0
    burst_every_s: float = 0.0
    rest_429_share: float = 0.0
    rest_500_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        shares = ("drop", "lose", "duplicate", "reorder", "malformed", "rest_429_share", "rest_500_share")
        for name in shares:
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise SettingsError(f"The fault {name} is a share from 0 to 1, and was {value}.")
        for name in ("disconnect_every_s", "stall_every_s", "stall_s"):
            if not (value := getattr(self, name)) >= 0:
                raise SettingsError(f"The fault {name} is a number of seconds from 0 on, and was {value}.")
        if self.burst_every_s and not self.burst_every_s >= 10:
            raise SettingsError(f"The fault burst_every_s is 0 or at least 10 seconds, and was {self.burst_every_s}.")

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Return the faults that a text such as `drop=0.01,disconnect_every_s=30` names.

        Raises:
            SettingsError: There is no such fault, or its figure is none.
        """
        kinds = {field.name: int if field.name == "seed" else float for field in dataclasses.fields(cls)}
        given: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            if name not in kinds:
                raise SettingsError(f"There is no fault '{name}'. Known: {', '.join(kinds)}.")
            try:
                given[name] = kinds[name](value)
            except ValueError:
                raise SettingsError(f"The fault {name} needs a number, and '{value}' is none: {name}=0.01.") from None
        return cls(**given)  # type: ignore[arg-type]  # the seed is an int


class Unruly:
    """Messages in order, as they are sent: some of them dropped, twice, late, or among rubbish.

    Args:
        faults: What to do.
        names: The streams' names by key.
    """

    def __init__(self, faults: Faults, names: Mapping[int, str]) -> None:
        self._faults, self._names = faults, names
        self._random = random.Random(f"{faults.seed}:messages")  # noqa: S311  # faults, not secrets
        self._late: list[pl.DataFrame] = []
        self._rubbish = 0

    def sent(self, rows: pl.DataFrame, until: int | None) -> pl.DataFrame:
        """Return rows with what became of them as `note`, in the order of sending.

        Args:
            rows: `at key data`, `data` being Binary, sorted by `at`.
            until: What is to be sent later than this is kept for the next call; None keeps nothing.
        """
        faults = self._faults
        rows = rows.with_columns(note=pl.lit(PLAIN, pl.UInt8), rank=pl.lit(0, pl.UInt8))
        extra = [*self._late]
        if faults.duplicate:
            later = pl.Series([self._random.random() < 0.5 for _ in range(rows.height)])
            twice = rows.with_columns(
                at=pl.col("at") + pl.when(later).then(_LATER_NS).otherwise(0), note=pl.lit(DUPLICATE, pl.UInt8)
            )
            extra.append(twice.filter(self._chosen(rows, faults.duplicate)).with_columns(rank=pl.lit(1, pl.UInt8)))
        if faults.malformed:
            extra.append(self._rubbish_beside(rows.filter(self._chosen(rows, faults.malformed))))
        if faults.reorder:
            behind = pl.col("at").shift(-_BEHIND).over("key")
            is_late = self._chosen(rows, faults.reorder) & rows.select(behind.is_not_null()).to_series()
            rows = rows.with_columns(
                at=pl.when(is_late).then(behind).otherwise("at"),
                note=pl.when(is_late).then(pl.lit(REORDER, pl.UInt8)).otherwise("note"),
                rank=pl.when(is_late).then(pl.lit(2, pl.UInt8)).otherwise("rank"),
            )
        if faults.drop:
            is_dropped = self._chosen(rows, faults.drop) & (rows["key"] % 8 <= AGG_TRADE)
            rows = rows.with_columns(note=pl.when(is_dropped).then(pl.lit(DROP, pl.UInt8)).otherwise("note"))
        if extra:
            rows = pl.concat([rows, *extra])
            is_due = pl.lit(value=True) if until is None else pl.col("at") <= until
            self._late = [rows.filter(~is_due)]
            rows = rows.filter(is_due)
        return rows.sort("at", "rank", maintain_order=True) if extra or faults.reorder else rows

    def _chosen(self, rows: pl.DataFrame, share: float) -> pl.Series:
        chance = self._random.random
        return pl.Series([chance() < share for _ in range(rows.height)], dtype=pl.Boolean)

    def _rubbish_beside(self, rows: pl.DataFrame) -> pl.DataFrame:
        made = [self._piece_of_rubbish(key, data.decode()) for key, data in rows.select("key", "data").iter_rows()]
        return rows.with_columns(
            data=pl.Series([data for data, _ in made], dtype=pl.Binary),
            note=pl.Series([note for _, note in made], dtype=pl.UInt8),
            rank=pl.lit(1, pl.UInt8),
        )

    def _piece_of_rubbish(self, key: int, data: str) -> tuple[bytes, int]:
        self._rubbish += 1
        head, tail = f'{{"stream":"{self._names[key]}","data":'.encode(), b"}"
        if self._rubbish % _HUGE_EVERY == 0:
            return head + b'{"e":"huge","x":"' + _HOLE + b'"}' + tail, MALFORMED_HUGE
        kind = self._random.randrange(4)
        if kind == 0:
            whole = head + data.encode() + tail
            return whole[: self._random.randrange(1, len(whole))], MALFORMED
        if kind == 1:
            return self._random.randbytes(32), MALFORMED_BINARY
        if kind == 2:
            return head + _NUMBER.sub(":null", data).encode() + tail, MALFORMED
        return head + b'{"e":"somethingNew","w":[1,{"x":null}]}' + tail, MALFORMED


def filled(huge: bytes) -> bytes:
    """Return a huge frame in its length; until it is sent it has none, so that many of them take no memory."""
    return huge.replace(_HOLE, _FILL)


def released_s(elapsed_s: float, burst_every_s: float) -> float:
    """Return of how many seconds the messages have been sent: a burst holds nine back, and sends ten in one."""
    if not burst_every_s:
        return elapsed_s
    rounds, phase_s = divmod(elapsed_s, burst_every_s)
    held_s = burst_every_s - 10
    return rounds * burst_every_s + min(phase_s, held_s) + max(0.0, phase_s - (burst_every_s - 1)) * 10
