"""Closed vocabularies, and the sign conventions, written once here.

Side: +1 = buy, -1 = sell. Cost in bps: positive = paid (bad). Markout: positive = the price moved our way after
the fill. Aggressor: who crossed the spread; a maker who bought (`is_buyer_maker`) means a seller was the aggressor.
"""

from enum import IntEnum, StrEnum


class Aggressor(IntEnum):
    """Who initiated a trade."""

    BUYER = 1
    UNKNOWN = 0
    SELLER = -1


class Status(StrEnum):
    """Why a value is null; values are null unless the status is `ok` or `locked`."""

    OK = "ok"
    NO_DATA = "no_data"
    TOO_FEW = "too_few"
    ZERO_VOLUME = "zero_volume"
    CONSTANT = "constant"
    NAN = "nan"


class Tape(StrEnum):
    """What one row of `market/trades` stands for, as the venue names it."""

    TRADES = "trades"
    AGG_TRADES = "aggTrades"


class GapStatus(StrEnum):
    """Whether a hole in the trade ids has been refilled."""

    OPEN = "open"
    FILLED = "filled"
