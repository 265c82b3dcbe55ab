"""Numbers as people read them, each a table cell. A missing value is a dash with its reason, never 0."""

import math
from decimal import Decimal

from quant_platform.reports.page import DASH, Cell

_LARGE = ((1e12, "T"), (1e9, "bn"), (1e6, "M"), (1e3, "k"))
_BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def missing(reason: str) -> Cell:
    """Return the cell of a value that does not exist."""
    return Cell(DASH, reason, "null")


def fixed(value: float | None, decimals: int, reason: str, *, is_signed: bool = False) -> Cell:
    """Return the value with thousands separators and that many decimals; a signed one says + too."""
    if value is None:
        return missing(reason)
    rounded = round(value, decimals) + 0.0  # adding 0.0 turns -0.0 into 0.0
    return Cell(f"{rounded:{'+' if is_signed and rounded else ''},.{decimals}f}".replace("-", "\N{MINUS SIGN}"))


def whole(value: int | None, reason: str) -> Cell:
    """Return a count with thousands separators."""
    return missing(reason) if value is None else Cell(f"{value:,}")


def large(value: float | None, reason: str, *, is_signed: bool = False) -> Cell:
    """Return four significant digits and k, M, bn or T; a signed one says + too."""
    if value is None:
        return missing(reason)
    sign = "\N{MINUS SIGN}" if value < 0 else "+" if is_signed and value else ""
    for scale, suffix in _LARGE:
        if abs(value) >= scale:
            return Cell(f"{sign}{_four_digits(abs(value) / scale)} {suffix}")
    return Cell(f"{sign}{_four_digits(abs(value))}")


def percent(value: float | None, decimals: int, reason: str) -> Cell:
    """Return a share of 1 in percent."""
    return missing(reason) if value is None else Cell(f"{value * 100:.{decimals}f} %")


def completeness(value: float | None, reason: str) -> Cell:
    """Return a share of 1 in percent, rounded down: 100 % means that nothing is missing."""
    if value is None:
        return missing(reason)
    if value >= 1:
        return Cell("100 %")
    return Cell(f"{math.floor(value * 1e4) / 100:.2f} %", style="warn")


def size(value: int) -> str:
    """Return a number of bytes in binary units."""
    for scale, suffix in _BYTES:
        if value >= scale:
            return f"{_four_digits(value / scale)} {suffix}"
    return f"{value} B"


def price_decimals(prices: list[float]) -> int:
    """Return how many decimals the prices of one instrument are written with, at most 8."""
    exponents = [Decimal(repr(price)).normalize().as_tuple().exponent for price in prices]
    used = [-exponent for exponent in exponents if isinstance(exponent, int)]
    return min(8, max([0, *used])) if used else 2


def _four_digits(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.{max(0, min(6, 3 - math.floor(math.log10(abs(value)))))}f}"
