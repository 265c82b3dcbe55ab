"""Simulated options in Deribit's words: what its REST API answers when asked for instruments and book summaries.

Not here: which options there are (`option_listing`), and what they cost and how they trade (`options`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import repeat

import msgspec
import numpy as np

from quant_platform.simulation.latent_price import FloatArray
from quant_platform.simulation.market_files import IntArray
from quant_platform.simulation.option_listing import ROLL_S, Contracts, Expiry
from quant_platform.storage.chain_archive import Answer, Snapshot

VENUE = "deribit"
INSTRUMENTS, SUMMARIES = "instruments", "summaries"
"""The answers' names in the archive."""
TICK, COARSE_TICK, COARSE_ABOVE = 0.0001, 0.0005, 0.005
"""Prices are multiples of the tick, from `COARSE_ABOVE` on of the coarse one; all in coins."""
MIN_AMOUNT = 0.1
"""Smallest trade, in coins; one contract is one coin."""

_URL = "https://www.deribit.com/api/v2/public"
_LISTED_AFTER_MS = 2_000
_SERVED_IN_US = 450
_MS = timedelta(milliseconds=1)
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _TickStep(msgspec.Struct):
    tick_size: float = COARSE_TICK
    above_price: float = COARSE_ABOVE


class _Instrument(msgspec.Struct, kw_only=True):
    price_index: str
    kind: str = "option"
    instrument_name: str
    maker_commission: float = 0.0003
    taker_commission: float = 0.0003
    instrument_type: str = "reversed"
    expiration_timestamp: int
    creation_timestamp: int
    is_active: bool = True
    option_type: str
    contract_size: float = 1.0
    tick_size: float = TICK
    tick_size_steps: tuple[_TickStep, ...] = (_TickStep(),)
    strike: float
    instrument_id: int
    settlement_period: str
    min_trade_amount: float = MIN_AMOUNT
    settlement_currency: str
    base_currency: str
    counter_currency: str = "USD"
    quote_currency: str


class _Summary(msgspec.Struct, gc=False):
    instrument_name: str
    underlying_index: str
    mark_iv: float
    mark_price: float
    bid_price: float
    ask_price: float
    mid_price: float
    last: float
    high: float
    low: float
    volume: float
    volume_usd: float
    open_interest: float
    underlying_price: float
    estimated_delivery_price: float
    base_currency: str
    quote_currency: str
    creation_timestamp: int
    interest_rate: float = 0.0


_VALUES = _Summary.__struct_fields__[2:13]


class _Envelope(msgspec.Struct, kw_only=True):
    jsonrpc: str = "2.0"
    result: msgspec.Raw | list[_Summary]
    us_in: int = msgspec.field(name="usIn")
    us_out: int = msgspec.field(name="usOut")
    us_diff: int = msgspec.field(name="usDiff")
    testnet: bool = False


@dataclass(frozen=True, eq=False)
class Listing:
    """What is listed on a coin from one 08:00 UTC to the next.

    Attributes:
        base: The coin.
        places: Of the listed contracts among those of the date.
        names: Theirs.
        underlying_indices: Theirs: the future, or synthetic future, that each is priced by.
        instruments: The list of them that the venue answers with, encoded.
    """

    base: str
    places: IntArray
    names: Sequence[str]
    underlying_indices: Sequence[str]
    instruments: msgspec.Raw


def listings_of(base: str, contracts: Contracts, rolls: Sequence[Sequence[Expiry]]) -> list[Listing]:
    """Return what is listed on a coin after each roll, whose expiries are some of the contracts'."""
    encoded = [msgspec.Raw(msgspec.json.encode(one)) for one in _instruments(base, contracts)]
    indices = [f"{'' if one.ladder.has_future else 'SYN.'}{base}-{one.label}" for one in contracts.expiries]
    found = []
    for expiries in rolls:
        settled = {expiry.settled for expiry in expiries}
        is_listed = np.array([expiry.settled in settled for expiry in contracts.expiries])
        places = np.flatnonzero(is_listed[contracts.place])
        found.append(
            Listing(
                base,
                places,
                [contracts.names[place] for place in places.tolist()],
                [indices[expiry] for expiry in contracts.place[places].tolist()],
                msgspec.Raw(msgspec.json.encode([encoded[place] for place in places.tolist()])),
            )
        )
    return found


def snapshot_of(
    listing: Listing, values: Mapping[str, FloatArray], *, spot: float, ts_event_ns: int, ts_recv_ns: int
) -> Snapshot:
    """Return the venue's answers at one time.

    Args:
        listing: What is listed then.
        values: By the venue's names, the numbers of its book summaries, one a contract; NaN where it says null.
        spot: Price of all the futures, and of the index.
        ts_event_ns: When the chain stood so, whole ms.
        ts_recv_ns: Our clock at receipt.
    """
    base = listing.base
    numbers = (values[name].tolist() for name in _VALUES)
    constants = map(repeat, (spot, spot, base, base, ts_event_ns // 1_000_000))
    lines = list(map(_Summary, listing.names, listing.underlying_indices, *numbers, *constants))
    addresses = {
        INSTRUMENTS: f"{_URL}/get_instruments?currency={base}&kind=option&expired=false",
        SUMMARIES: f"{_URL}/get_book_summary_by_currency?currency={base}&kind=option",
    }
    bodies = {INSTRUMENTS: _answer(listing.instruments, ts_event_ns), SUMMARIES: _answer(lines, ts_event_ns)}
    return Snapshot({name: Answer(body, addresses[name]) for name, body in bodies.items()}, ts_recv_ns)


def _instruments(base: str, contracts: Contracts) -> Iterator[_Instrument]:
    terms = [
        (_rolled_ms(one.settled), _rolled_ms(one.listed) + _LISTED_AFTER_MS, one.ladder.period)
        for one in contracts.expiries
    ]
    columns = (contracts.names, contracts.instrument_id.tolist(), contracts.strike.tolist(), contracts.is_call.tolist())
    for name, instrument_id, strike, is_call, expiry in zip(*columns, contracts.place.tolist(), strict=True):
        settled, listed, period = terms[expiry]
        yield _Instrument(
            price_index=f"{base.lower()}_usd",
            instrument_name=name,
            expiration_timestamp=settled,
            creation_timestamp=listed,
            option_type="call" if is_call else "put",
            strike=strike,
            instrument_id=instrument_id,
            settlement_period=period,
            settlement_currency=base,
            base_currency=base,
            quote_currency=base,
        )


def _answer(result: msgspec.Raw | list[_Summary], ts_event_ns: int) -> bytes:
    us_in = ts_event_ns // 1_000
    envelope = _Envelope(result=result, us_in=us_in, us_out=us_in + _SERVED_IN_US, us_diff=_SERVED_IN_US)
    return msgspec.json.encode(envelope)


def _rolled_ms(day: date) -> int:
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=ROLL_S) - _UNIX_EPOCH) // _MS
