"""Simulated option chains on a simulated market, archived as the answers that Deribit would have given.

Here: when snapshots are taken, and what the options cost, given the hidden price that the market's own quotes and
trades follow. Not here: which options there are (`option_listing`), how much of them is open and trades
(`option_flow`), and the venue's words (`deribit_answers`). Everything is a pure function of the parameters, the
instrument and the date.

Forwards equal the spot, rates are 0. Volatilities are a surface of Gatheral and Jacquier's SSVI (2014), whose total
variance at the money grows with the time to settlement: it admits neither butterfly nor calendar arbitrage.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from quant_platform.calculators.black_scholes import greeks_of_forward
from quant_platform.contracts.enums import OptionType
from quant_platform.settings import Instrument
from quant_platform.simulation import option_flow
from quant_platform.simulation._bounds import check
from quant_platform.simulation.deribit_answers import (
    COARSE_ABOVE,
    COARSE_TICK,
    TICK,
    VENUE,
    listings_of,
    snapshot_of,
)
from quant_platform.simulation.latent_price import (
    EPOCH,
    SECONDS,
    FloatArray,
    LatentDay,
    generator,
    relative_volatility_by_minute,
)
from quant_platform.simulation.market import MarketParams, latent_of, opening_prices_of, write_days
from quant_platform.simulation.option_listing import ROLL_S, Contracts, contracts_of, listed_expiries
from quant_platform.storage import chain_archive

_DAYS_PER_YEAR = 365
_MINUTES = SECONDS // 60
_UNIX_EPOCH = date(1970, 1, 1)
_SHORTEST_S = 60  # a day is computed at once: more snapshots do not fit memory
_LONGEST_DELAY_MS = 40
_LATENCY_US, _LATENCY_SCALE_US = 20_000, 15_000
_LEAST_HALF_SPREAD_TICKS = 0.25


@dataclass(frozen=True, kw_only=True)
class ChainParams:
    """What the options on a simulated market are like.

    Attributes:
        every_s: Seconds from one snapshot to the next; the first is at midnight UTC.
        volatility_premium: Implied volatility at the money in the long run, against the market's own.
        reversion_days: Days over which expected variance returns from that of the last 24 hours to the long run's.
        skew: Correlation of the surface, SSVI's rho; below 0 puts are dearer.
        smile: Curvature of the surface, SSVI's eta; `smile * (1 + |skew|)` of at most 2 admits no arbitrage.
        half_spread_volatility: Half the spread at the money in volatility, 0.01 is a vol point; it widens with the
            distance from the money, and to the venue's ticks.
        open_interest_notional: Median value of what is open in a contract of three weeks at the money, in quote
            currency.
        turnover: Mean share of the open contracts that trades in a date.
        unusual_share: Share of the dates on which a few contracts trade more than is open.
    """

    every_s: int = 3_600
    volatility_premium: float = 1.1
    reversion_days: float = 14.0
    skew: float = -0.3
    smile: float = 0.7
    half_spread_volatility: float = 0.005
    open_interest_notional: float = 10_000_000.0
    turnover: float = 0.05
    unusual_share: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated.

        Raises:
            ValueError: A parameter is outside its bounds; the message names it.
        """
        check(self, "every_s", least=_SHORTEST_S, most=SECONDS)
        check(self, "volatility_premium", "reversion_days", "smile", "open_interest_notional", above=0)
        check(self, "half_spread_volatility", "turnover", least=0)
        check(self, "skew", above=-1, below=1)
        check(self, "unusual_share", least=0, most=1)
        steepest = self.smile * (1 + abs(self.skew))
        if steepest > 2:
            raise ValueError(f"smile * (1 + |skew|) must be <= 2, or there is arbitrage, was {steepest}")


class _Day(NamedTuple):
    """One date of one underlying, and its snapshots: time in seconds after midnight, and the spot."""

    date: date
    market: MarketParams
    params: ChainParams
    stream: option_flow.Stream
    latent: LatentDay
    contracts: Contracts
    time_s: FloatArray
    spot: FloatArray


class _Surface(NamedTuple):
    """Snapshots × contracts: years to settlement, volatility in percent, and the money's distance; NaN once settled.

    `moneyness` is log of strike ÷ spot, and `deviations` that in standard deviations at the money, without its sign.
    """

    years: FloatArray
    iv_percent: FloatArray
    moneyness: FloatArray
    deviations: FloatArray


class _Prices(NamedTuple):
    """Snapshots × contracts, in coins; NaN where there is none."""

    mark: FloatArray
    bid: FloatArray
    ask: FloatArray


def write_chains(
    root: Path,
    *,
    instruments: Sequence[Instrument],
    dates: Sequence[date],
    market: MarketParams,
    params: ChainParams | None = None,
    on_file: Callable[[Path, int], None] | None = None,
) -> list[Path]:
    """Archive simulated snapshots of the chains of those instruments whose options are on Deribit.

    A date's files depend on the parameters, the instrument and the date alone, so a call may add dates later. A
    snapshot that is there already stays. Contracts persist from snapshot to snapshot; at 08:00 UTC some settle, and
    others come up. Open interest changes at midnight; volume, last price, high and low are those of the date so far.

    Args:
        root: Of the archive of chains.
        instruments: Whose chains; `chain.venue_symbol` is the coin's name.
        dates: UTC dates, any order.
        market: The market that `market.write_archive` writes; its hidden price is the spot.
        params: The options; `ChainParams()` when not given.
        on_file: Called in the caller's thread after each file, with its path and its number of contracts.

    Returns:
        The files, by date, then instrument as given, then time.

    Raises:
        ValueError: A date is before 2017-01-01.
        OSError: `root` cannot be written.
    """
    chains = params or ChainParams()
    listed = [one for one in instruments if one.chain is not None and one.chain.feed == VENUE]
    openings = {one.symbol: opening_prices_of(one, max([*dates, EPOCH]), market) for one in listed}
    return write_days(
        lambda instrument, day: _write_day(
            root, instrument, day, openings=openings[instrument.symbol], market=market, params=chains
        ),
        instruments=listed,
        dates=dates,
        on_file=on_file,
    )


def _write_day(
    root: Path,
    instrument: Instrument,
    day: date,
    *,
    openings: FloatArray,
    market: MarketParams,
    params: ChainParams,
) -> list[tuple[Path, int]]:
    assert instrument.chain is not None
    base = instrument.chain.venue_symbol
    rolls = [listed_expiries(roll, openings, market.daily_volatility) for roll in (day - timedelta(days=1), day)]
    by_date = {expiry.settled: expiry for expiries in rolls for expiry in expiries}
    contracts = contracts_of(base, [by_date[settled] for settled in sorted(by_date)], day)
    stream = partial(generator, market.seed, "options", instrument.venue_symbol)

    rng = stream("times", day.toordinal())
    starts = np.arange(0, SECONDS, params.every_s)
    time_ms = 1_000 * starts + rng.integers(1, _LONGEST_DELAY_MS, len(starts))
    latency_us = _LATENCY_US + rng.exponential(_LATENCY_SCALE_US, len(starts)).astype(np.int64)
    time_s = time_ms / 1_000
    latent = latent_of(instrument, day, market)
    spot = np.exp(np.interp(time_s, np.arange(SECONDS + 1), latent.log_price))
    values = _values(_Day(day, market, params, stream, latent, contracts, time_s, spot))

    listings = listings_of(base, contracts, rolls)
    midnight_ms = (day - _UNIX_EPOCH).days * SECONDS * 1_000
    counts = {}
    for row, (ms, late_us) in enumerate(zip(time_ms.tolist(), latency_us.tolist(), strict=True)):
        listing = listings[ms >= ROLL_S * 1_000]
        ts_event_ns = (midnight_ms + ms) * 1_000_000
        snapshot = snapshot_of(
            listing,
            {name: column[row, listing.places] for name, column in values.items()},
            spot=float(spot[row]),
            ts_event_ns=ts_event_ns,
            ts_recv_ns=ts_event_ns + late_us * 1_000,
        )
        chain_archive.put(root, VENUE, instrument.symbol, day, snapshot, ts_event_ns=ts_event_ns)
        counts[ts_event_ns] = len(listing.names)
    paths = {chain_archive.ts_event_ns(path): path for path in chain_archive.paths(root, VENUE, instrument.symbol, day)}
    return [(paths[ts_event_ns], count) for ts_event_ns, count in counts.items()]


def _values(day: _Day) -> Mapping[str, FloatArray]:
    """Return the numbers of the summaries by the venue's names, each snapshots × contracts."""
    contracts, params, stream = day.contracts, day.params, day.stream
    surface = _surface(day)
    prices = _prices(day, surface)
    interest = option_flow.open_interest(
        contracts,
        day.date,
        stream=stream,
        notional=params.open_interest_notional,
        daily_volatility=day.market.daily_volatility,
    )
    shares = option_flow.turnover(
        contracts, day.date, stream=stream, interest=interest, mean=params.turnover, unusual_share=params.unusual_share
    )
    volume = option_flow.volume(contracts, day.latent, day.time_s, expected=shares * interest)
    traded = np.diff(volume, axis=0, prepend=0)
    rng = stream("sides", day.date.toordinal())
    trades = option_flow.trades(traded, bid=prices.bid, ask=prices.ask, mark=prices.mark, rng=rng)
    return {
        "mark_iv": surface.iv_percent,
        "mark_price": np.round(prices.mark, 6),
        "bid_price": prices.bid,
        "ask_price": prices.ask,
        "mid_price": np.round((prices.bid + prices.ask) / 2, 6),
        "last": option_flow.latest(trades),
        "high": np.fmax.accumulate(trades, axis=0),
        "low": np.fmin.accumulate(trades, axis=0),
        "volume": volume,
        "volume_usd": np.round(np.cumsum(traded * np.nan_to_num(trades) * day.spot[:, None], axis=0), 2),
        "open_interest": np.broadcast_to(interest, volume.shape),
    }


@np.errstate(invalid="ignore")  # what has settled has no volatility
def _surface(day: _Day) -> _Surface:
    contracts, params = day.contracts, day.params
    years = (contracts.settles_s - day.time_s[:, None]) / (SECONDS * _DAYS_PER_YEAR)
    years = np.where(years > 0, years, np.nan)
    usual = (day.market.daily_volatility * params.volatility_premium) ** 2 * _DAYS_PER_YEAR
    present = usual * _trailing_variance(day)[:, None]
    reversion = params.reversion_days / _DAYS_PER_YEAR
    at_the_money = usual * years + (present - usual) * reversion * -np.expm1(-years / reversion)
    moneyness = np.log(contracts.strike / day.spot[:, None])
    scaled = params.smile * moneyness / np.sqrt(at_the_money * (1 + at_the_money))
    wings = params.skew * scaled + np.sqrt(np.square(scaled + params.skew) + 1 - params.skew**2)
    variance = at_the_money / 2 * (1 + wings)
    return _Surface(
        years,
        np.round(100 * np.sqrt(variance / years), 2),
        moneyness,
        np.abs(moneyness) / np.sqrt(at_the_money),
    )


def _trailing_variance(day: _Day) -> FloatArray:
    """Return, at each snapshot, the hidden market's variance over the 24 hours before, against its usual one."""
    before, today = (
        relative_volatility_by_minute(
            seed=day.market.seed, day=at, volatility_of_volatility=day.market.volatility_of_volatility
        )[:-1]
        for at in (day.date - timedelta(days=1), day.date)
    )
    total = np.concatenate([[0.0], np.cumsum(np.square(np.concatenate([before, today])))])
    minute = (day.time_s // 60).astype(np.int64)
    return np.asarray((total[minute + _MINUTES] - total[minute]) / _MINUTES)


@np.errstate(invalid="ignore")
def _prices(day: _Day, surface: _Surface) -> _Prices:
    contracts, count = day.contracts, len(day.time_s)
    types = np.where(contracts.is_call, OptionType.CALL.value, OptionType.PUT.value)
    options = pl.DataFrame(
        {
            "type": np.tile(types, count),
            "forward": np.repeat(day.spot, len(types)),
            "strike": np.tile(contracts.strike, count),
            "t_years": surface.years.ravel(),
            "iv": surface.iv_percent.ravel() / 100,
            "rate": np.zeros(surface.years.size),
        }
    )
    valued = greeks_of_forward(options).select("price", "vega")
    price, vega = (column.to_numpy().reshape(surface.years.shape) / day.spot[:, None] for column in valued)
    bid, ask = _quotes(price, day.params.half_spread_volatility * vega * (1 + surface.deviations))
    # Nobody quotes what is worth no more than its exercise; what is worth less than a tick has an offer only.
    exercised = np.maximum(np.where(contracts.is_call, -1, 1) * np.expm1(surface.moneyness), 0)
    is_quoted = (exercised == 0) | (price - exercised >= _tick(price))
    return _Prices(price, np.where(is_quoted & (bid > 0), bid, np.nan), np.where(is_quoted, ask, np.nan))


def _quotes(price: FloatArray, half_spread: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the best bid and offer on the venue's ticks, on either side of a price; a bid may be 0 or less."""
    half = np.maximum(half_spread, _LEAST_HALF_SPREAD_TICKS * _tick(price))
    low, high = price - half, price + half
    bid, ask = np.floor(low / _tick(low)) * _tick(low), np.ceil(high / _tick(high)) * _tick(high)
    return np.round(bid, 4), np.round(ask, 4)


def _tick(price: FloatArray) -> FloatArray:
    return np.where(price > COARSE_ABOVE, COARSE_TICK, TICK)
