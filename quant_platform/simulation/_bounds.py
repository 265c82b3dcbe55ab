"""Bounds of the numbers that a simulation is told."""

from math import inf


def check(
    params: object, *names: str, least: float = -inf, above: float = -inf, most: float = inf, below: float = inf
) -> None:
    """Refuse attributes that are out of bounds; infinities and NaN always are.

    Raises:
        ValueError: One is; the message names it and the bounds.
    """
    for name in names:
        value = getattr(params, name)
        if least <= value <= most and above < value < below:
            continue
        limits = {">=": least, ">": above, "<=": most, "<": below}
        bounds = " and ".join(f"{sign} {limit}" for sign, limit in limits.items() if abs(limit) < inf)
        raise ValueError(f"{name} must be {bounds or 'finite'}, was {value}")
