"""The payload of the correlations: those that others have discovered, where they are there, else those of the bars."""

from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from quant_platform.calculators import cross_asset
from quant_platform.calculators.cross_asset import MINUTE_NS, Array, CorrelationParams
from quant_platform.live._aggregate_bars import Grid
from quant_platform.storage import redis_keys

DISCOVERED = redis_keys.DISCOVERED_CORRELATION.name()
_ROUNDING = 1e-9
_DIGITS = 6  # half the bytes, and far below what 390 bars can tell


class Correlated(NamedTuple):
    """What is to be written.

    Attributes:
        fields: Of the payload, as JSON; empty where nothing traded.
        ts: The market's time of what they say, UTC ns.
        refusal: Why what was discovered is not used; empty where it is, or where nothing was.
    """

    fields: bytes
    ts: int
    refusal: str


class _Discovered(Struct):
    symbols: list[str]
    matrix: list[list[float | None]]


_DISCOVERED = msgspec.json.Decoder(_Discovered)


def correlated(
    discovered: bytes | None, symbols: list[str], grid: Grid, params: CorrelationParams, market_ns: int
) -> Correlated:
    """Return the correlations of whoever discovered some, with null for how many returns they are of, else ours.

    Args:
        discovered: JSON, `symbols` and `matrix`, its rows in their order; None where there is none.
        symbols: Whose closes are in the grid.
        grid: The closes.
        params: Of the correlations.
        market_ns: The latest market time, UTC ns.
    """
    refusal = ""
    if discovered is not None:
        try:
            found = _checked(discovered)
        except (ValueError, RecursionError) as error:
            refusal = str(error)
        else:
            fields = _fields(*found, None, params) | {"source": "discovered"}
            return Correlated(msgspec.json.encode(fields), market_ns, refusal)
    if not len(grid.minutes):
        return Correlated(b"", market_ns, refusal)
    computed = cross_asset.correlation_matrix(grid.closes, grid.minutes, params)
    fields = _fields(symbols, computed.correlation, computed.pairs.tolist(), params) | {"source": "computed"}
    return Correlated(msgspec.json.encode(fields), int(grid.minutes[-1]) + MINUTE_NS, refusal)


def _fields(
    symbols: list[str], correlation: Array, pairs: list[list[int]] | None, params: CorrelationParams
) -> dict[str, Any]:
    a, b = np.nonzero(cross_asset.is_flagged(correlation, params))
    flagged = zip(a[a < b].tolist(), b[a < b].tolist(), strict=True)
    return {
        "symbols": symbols,
        "matrix": np.round(correlation, _DIGITS).tolist(),  # NaN becomes null
        "pairs": pairs,
        "high_pairs": [[symbols[i], symbols[j]] for i, j in flagged],
        "flag": params.flag,
    }


def _checked(raw: bytes) -> tuple[list[str], Array]:
    """Return the symbols and the matrix of what was discovered, NaN where it has null.

    Raises:
        ValueError: It is no JSON of the payload's shape, or no matrix of correlations.
    """
    found = _DISCOVERED.decode(raw)
    count = len(found.symbols)
    if not count or len(set(found.symbols)) < count:
        raise ValueError("symbols must be named, each once")
    if [len(row) for row in found.matrix] != [count] * count:
        raise ValueError(f"matrix must have {count} rows of {count} values, as there are symbols")
    matrix = np.array(found.matrix, float)
    if np.nanmax(np.abs(matrix), initial=0.0) > 1 + _ROUNDING:
        raise ValueError("correlations must be from -1 to 1")
    if not np.allclose(matrix, matrix.T, rtol=0, atol=_ROUNDING, equal_nan=True):
        raise ValueError("matrix must be symmetric")
    diagonal = np.diag(matrix)
    if not np.allclose(diagonal[~np.isnan(diagonal)], 1.0, rtol=0, atol=_ROUNDING):
        raise ValueError("a symbol's correlation with itself must be 1 or null")
    return found.symbols, np.clip(matrix, -1.0, 1.0)
