"""Names of option contracts, their expiries and types, in whatever form a source writes them. No prices here.

The name is the authority for expiry, type and strike: a source's other columns may say something else. An OSI name is
the root, the date as YYMMDD, C or P, and the strike times 1,000 in eight digits, with or without the blanks that pad
the root to six. A Deribit name is `BTC-28MAR25-60000-C`, with `d` for the decimal point.
"""

import polars as pl

from quant_platform.contracts._schema import INSTANT
from quant_platform.contracts.enums import OptionType

AM_SETTLED = ("DJX", "NDX", "RLG", "RLV", "RUI", "RUT", "SPX", "VIX", "VIXW")
"""Roots that settle on the opening prices of their expiry; their weeklies (SPXW, NDXP, RUTW) settle on the close."""

_OSI = r"^(?<root>[A-Z0-9.]{1,6}?) *(?<date>\d{6})(?<type>[CP])(?<strike>\d{8})$"
_DERIBIT = r"^(?<root>[A-Z0-9_]+)-(?<date>\d{1,2}[A-Z]{3}\d{2})-(?<strike>\d+(?:d\d+)?)-(?<type>[CP])$"
_EPOCH_S, _EPOCH_MS = r"^\d{9,10}$", r"^\d{12,13}$"
_TYPES = {word: kind.value for kind in OptionType for word in (kind.value, kind.name)}


def osi_parts(names: pl.Expr) -> pl.Expr:
    """Return `root expiry type strike` of OSI names, as a struct; its fields are null where a name is none."""
    found = names.str.extract_groups(_OSI).struct
    return pl.struct(
        root=found["root"],
        expiry=_date(found["date"], "%y%m%d"),
        type=found["type"],
        # Polars divides by a constant by multiplying with its inverse, which misses the last bit.
        strike=(found["strike"].cast(pl.Int64) / 1000).round(3),
    )


def osi_names(root: pl.Expr, expiry: pl.Expr, types: pl.Expr, strike: pl.Expr) -> pl.Expr:
    """Return OSI names without blanks."""
    digits = (strike * 1000).round().cast(pl.Int64).cast(pl.String).str.zfill(8)
    return pl.concat_str(root, expiry.dt.strftime("%y%m%d"), types, digits)


def deribit_parts(names: pl.Expr) -> pl.Expr:
    """Return `root expiry type strike` of Deribit names, as a struct; its fields are null where a name is none."""
    found = names.str.extract_groups(_DERIBIT).struct
    return pl.struct(
        root=found["root"],
        expiry=_date(found["date"].str.zfill(7).str.to_titlecase(), "%d%b%y"),
        type=found["type"],
        strike=found["strike"].str.replace("d", ".", literal=True).cast(pl.Float64),
    )


def expiries(texts: pl.Expr) -> pl.Expr:
    """Return dates of expiry from text: ISO, YYYYMMDD, YYMMDD, epoch s or ms (UTC), or an OSI name; else null."""
    clean = texts.str.strip_chars()
    is_s, is_ms = clean.str.contains(_EPOCH_S), clean.str.contains(_EPOCH_MS)
    seconds = pl.when(is_s).then(clean).when(is_ms).then(clean.str.head(-3)).cast(pl.Int64)
    return pl.coalesce(
        pl.when(clean.str.contains(r"^\d{4}-\d{2}-\d{2}(?:[T ].*)?$")).then(_date(clean.str.head(10), "%Y-%m-%d")),
        pl.when(clean.str.contains(r"^\d{8}$")).then(_date(clean, "%Y%m%d")),
        pl.when(clean.str.contains(r"^\d{6}$")).then(_date(clean, "%y%m%d")),
        pl.from_epoch(seconds, time_unit="s").dt.date(),
        osi_parts(clean).struct["expiry"],
    )


def types(texts: pl.Expr) -> pl.Expr:
    """Return C or P from C, P, CALL, PUT in either case; else null."""
    return texts.str.strip_chars().str.to_uppercase().replace_strict(_TYPES, default=None, return_dtype=pl.String)


def new_york_settlements(expiry: pl.Expr, root: pl.Expr) -> pl.Expr:
    """Return when US contracts settle: 16:00 in New York, or 09:30 where the root is settled in the morning.

    An expiry on a weekend, as they were written until 2015, settles on the Friday before it.
    """
    is_am = root.is_in(AM_SETTLED)
    hour, minute = pl.when(is_am).then(9).otherwise(16), pl.when(is_am).then(30).otherwise(0)
    friday_at_most = expiry - pl.duration(days=(expiry.dt.weekday() - 5).clip(lower_bound=0))
    local = friday_at_most.dt.combine(pl.time(hour, minute), time_unit="ns")
    return local.dt.replace_time_zone("America/New_York").dt.convert_time_zone("UTC").cast(INSTANT)


def _date(texts: pl.Expr, form: str) -> pl.Expr:
    return texts.str.to_date(form, strict=False)
