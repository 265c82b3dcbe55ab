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
    NO_DEPTH = "no_depth"
    TOO_FEW = "too_few"
    ZERO_VOLUME = "zero_volume"
    ONE_SIDED = "one_sided"
    CROSSED = "crossed"
    LOCKED = "locked"
    ZERO_SIZE = "zero_size"
    STALE = "stale"
    EXPIRED = "expired"
    INVALID_VOL = "invalid_vol"
    INVALID_STRIKE = "invalid_strike"
    INVALID_SPOT = "invalid_spot"
    INVALID_INPUT = "invalid_input"
    BELOW_INTRINSIC = "below_intrinsic"
    ABOVE_BOUND = "above_bound"
    NO_TIME_VALUE = "no_time_value"
    NO_VALID_CONTRACTS = "no_valid_contracts"
    CONSTANT = "constant"
    NAN = "nan"


class Signing(StrEnum):
    """How volume gets its side."""

    AUTO = "auto"
    VENUE = "venue"
    LEE_READY = "lee_ready"
    QUOTE = "quote"
    TICK = "tick"
    BVC = "bvc"


class SignRule(StrEnum):
    """Which rule gave one trade its side."""

    VENUE = "venue"
    QUOTE = "quote"
    TICK = "tick"
    NONE = "none"


class VpinMethod(StrEnum):
    """What a VPIN was computed from: enough full volume buckets, or all volume since the open."""

    BUCKETS = "buckets"
    SIMPLE_IMBALANCE = "simple_imbalance"


class Level(StrEnum):
    """How far a measure of toxicity stands above its thresholds."""

    LOW = "low"
    MODERATE = "moderate"
    HIGH = "high"


class Tape(StrEnum):
    """What one row of `market/trades` stands for, as the venue names it."""

    TRADES = "trades"
    AGG_TRADES = "aggTrades"


class GapStatus(StrEnum):
    """Whether a hole in the trade ids has been refilled."""

    OPEN = "open"
    FILLED = "filled"


class ImbalanceState(StrEnum):
    """How lopsided the five best levels of a book are, whichever side is the heavier."""

    BALANCED = "balanced"
    MODERATE = "moderate"
    EXTREME = "extreme"


class AuctionSide(StrEnum):
    """Which side of a closing auction has more to do."""

    BUY = "BUY"
    SELL = "SELL"
    FLAT = "FLAT"


class OptionActivity(StrEnum):
    """How unusual the volume of an option chain is; no contracts, and no volume, are words of their own."""

    ABSENT = "absent"
    INACTIVE = "inactive"
    NORMAL = "normal"
    WATCH = "watch"
    ELEVATED = "elevated"
    EXTREME = "extreme"


class OptionFlow(StrEnum):
    """Which side of an option chain has most of the volume."""

    CALL = "CALL"
    PUT = "PUT"
    BALANCED = "BALANCED"


class OptionType(StrEnum):
    """What an option gives the right to: to buy, or to sell."""

    CALL = "C"
    PUT = "P"


class SignConvention(StrEnum):
    """Which way dealers are taken to hold options: long calls and short puts, or it is not known."""

    DEALER_LONG_CALLS_SHORT_PUTS = "dealer_long_calls_short_puts"
    GROSS = "gross"


class DirectionalBias(StrEnum):
    """Which way the deltas of an option chain point."""

    LONG = "long"
    SHORT = "short"
    NEUTRAL = "neutral"


class Exposure(StrEnum):
    """What is held against its own history, snapshot by snapshot of an option chain."""

    GEX_GROSS = "gex_gross"
    GEX_NET = "gex_net"
    DEX_NET = "dex_net"
    VANNA = "vanna"
    CHARM = "charm"
    SKEW = "skew"


class GreeksSource(StrEnum):
    """Whose delta and gamma an option's are."""

    VENUE = "venue"
    MODEL = "model"


class VolRegime(StrEnum):
    """What a volatility index says of the market."""

    BENIGN = "BENIGN"
    NORMAL = "NORMAL"
    ELEVATED = "ELEVATED"
    SHOCK = "SHOCK"
