"""The venue's REST answers, as status and JSON. Sockets, faults and time are `replay`'s."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from quant_platform.feeds import _replay_messages as messages
from quant_platform.feeds._replay_market import Market
from quant_platform.feeds._replay_messages import SPOT, USDM

ROOTS = {USDM: "/fapi/v1/", SPOT: "/api/v3/"}
_DEPTH_LIMITS = {USDM: (500, 1_000), SPOT: (100, 5_000)}  # default and most
_TRADE_LIMITS = {
    (USDM, "aggTrades"): (500, 1_000),
    (SPOT, "aggTrades"): (500, 1_000),
    (USDM, "historicalTrades"): (100, 500),
    (SPOT, "historicalTrades"): (500, 1_000),
}


class Answer(NamedTuple):
    """A status and what is to be JSON."""

    status: int
    body: Any


class Asked(NamedTuple):
    """A request: the method's name, its parameters, and whether it came with a key."""

    venue: str
    method: str
    query: Mapping[str, str]
    has_key: bool


def answer(asked: Asked, markets: Mapping[str, Market], *, made_until: int, venue_ms: int) -> Answer:
    """Return what the venue answers.

    Args:
        asked: The request.
        markets: The venue's, by `venue_symbol` in upper case.
        made_until: Where the replay is, on the recording's clock.
        venue_ms: What the venue's clock says.
    """
    if asked.method == "ping":
        return Answer(200, {})
    if asked.method == "time":
        return Answer(200, {"serverTime": venue_ms})
    try:
        market, numbers = _checked(asked, markets)
    except _RefusedError as refused:
        return refused.answer
    if asked.method == "depth":
        return _depth(asked.venue, market, numbers["limit"], venue_ms)
    return _trades(asked, market, numbers, made_until)


class _RefusedError(Exception):
    """A request that is answered with a code of the venue's."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(status, {"code": code, "msg": text})


def _checked(asked: Asked, markets: Mapping[str, Market]) -> tuple[Market, dict[str, int | None]]:
    if asked.method not in {"depth", "aggTrades", "historicalTrades"}:
        raise _RefusedError(404, -5000, f"Path {ROOTS[asked.venue]}{asked.method} is invalid.")
    if asked.method == "historicalTrades" and not asked.has_key:
        raise _RefusedError(401, -2014, "API-key format invalid.")
    if "symbol" not in asked.query:
        raise _RefusedError(400, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    market = markets.get(asked.query["symbol"])
    if market is None:
        raise _RefusedError(400, -1121, "Invalid symbol.")
    numbers: dict[str, int | None] = {}
    for name in ("limit", "fromId", "startTime", "endTime"):
        text = asked.query.get(name)
        if text is not None and not (text.isascii() and text.isdigit() and len(text) < 19):
            raise _RefusedError(400, -1100, f"Illegal characters found in parameter '{name}'.")
        numbers[name] = None if text is None else int(text)
    if numbers["limit"] == 0:
        raise _RefusedError(400, -1130, "Data sent for parameter 'limit' is not valid.")
    return market, numbers


def _depth(venue: str, market: Market, limit: int | None, venue_ms: int) -> Answer:
    default, most = _DEPTH_LIMITS[venue]
    book = market.depth(min(limit or default, most))
    if book is None:
        return Answer(503, {"code": -1000, "msg": "The recording has no snapshot of the book here."})
    if venue == SPOT:
        return Answer(200, {name: book[name] for name in ("lastUpdateId", "bids", "asks")})
    return Answer(200, {"E": venue_ms, "T": venue_ms} | book)


def _trades(asked: Asked, market: Market, numbers: Mapping[str, int | None], made_until: int) -> Answer:
    default, most = _TRADE_LIMITS[asked.venue, asked.method]
    start, end = numbers["startTime"], numbers["endTime"]
    is_aggregated = asked.method == "aggTrades"
    # A time ends with its unit: what was made within the last millisecond that is asked for belongs to it.
    end_ns = None if end is None else messages.time_ns(end + 1) - 1
    rows = (market.aggregates if is_aggregated else market.trades).page(
        made_until=made_until,
        limit=min(numbers["limit"] or default, most),
        from_id=numbers["fromId"],
        start_ns=messages.time_ns(start) if is_aggregated and start is not None else None,
        end_ns=end_ns if is_aggregated else None,
    )
    unit = 1_000 if (rows["ns"] % 1_000_000 != 0).any() else 1_000_000
    body = []
    for row in rows.with_columns(ns=rows["ns"] // unit).iter_rows(named=True):
        price, size, is_maker = row["price"], row["size"], row["is_buyer_maker"]
        if is_aggregated:
            one = {"a": row["id"], "p": price, "q": size, "f": row["first_id"], "l": row["last_id"]}
            one |= {"T": row["ns"], "m": is_maker} | ({"M": True} if asked.venue == SPOT else {})
        else:
            one = {"id": row["id"], "price": price, "qty": size, "quoteQty": f"{Decimal(price) * Decimal(size):f}"}
            one |= {"time": row["ns"], "isBuyerMaker": is_maker}
            one |= {"isBestMatch": True} if asked.venue == SPOT else {}
        body.append(one)
    return Answer(200, body)
