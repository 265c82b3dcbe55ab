"""A seeded market: quotes and trades around a hidden price, written as the venue's own archive files.

Here: the order flow and what it does at the touch. Not here: the hidden price itself (`latent_price`), the draws of
times, sides and sizes (`market_flow`), the depth behind the touch (`depth_frames`), how a file is laid out
(`market_files`), and what a desk does (`desk_plan` and those that it names). Everything is a pure function of the
parameters, the instrument and the date.

Part of the orders, and the sizes at the touch, lean towards the hidden price's next seconds, so that markouts,
imbalance and toxicity have something real to find. Trades print at the quote that stood strictly before them or
sweep through it, never inside the spread. The hidden price does not answer to a trade, and trades do not consume
the sizes at the touch.

A desk may trade in it (`desk`): then the mid carries its mark, and its executions take the places of as many rows of
the tape, so that ids run on across dates as they do without it. The hidden price does not know of the desk.
"""

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from quant_platform.settings import Instrument
from quant_platform.simulation import market_flow
from quant_platform.simulation._bounds import check
from quant_platform.simulation.depth_frames import write_depth
from quant_platform.simulation.desk import DeskDay, records_of, write_desk, write_events
from quant_platform.simulation.desk_execution import with_fills
from quant_platform.simulation.desk_impact import Footprint
from quant_platform.simulation.desk_params import DeskParams
from quant_platform.simulation.desk_plan import MarketScale
from quant_platform.simulation.desk_session import DeskSession, session_of
from quant_platform.simulation.latent_price import (
    EPOCH,
    SECONDS,
    FloatArray,
    LatentDay,
    generator,
    latent_day,
    opening_prices,
)
from quant_platform.simulation.market_files import (
    IntArray,
    Quotes,
    Trades,
    units_per_second,
    write_quotes,
    write_trades,
)

_REFERENCE_PRICES: Mapping[str, float] = {"BTCUSDT": 60_000.0, "ETHUSDT": 2_600.0, "SOLUSDT": 150.0}
# A day has between the floor and this much more of rows.
_SURPLUS = 0.1
_FORESIGHT_S = 5
_UPDATE_ID_STEP = 64


@dataclass(frozen=True, kw_only=True)
class MarketParams:
    """What a simulated market is like.

    Attributes:
        seed: The same seed gives the same bytes.
        trades_per_day: Floor of the tape's rows per symbol-day; a day has up to a tenth more.
        quotes_per_day: Floor of the quotes per symbol-day; a day has up to a tenth more.
        depth_every_s: Seconds between two depth messages, for instruments whose book comes from recorded frames.
        reference_prices: By venue symbol, in quote currency, the level that prices revert to over weeks; a
            symbol that is not named gets between 20,000 and 80,000 ticks.
        daily_volatility: Standard deviation of a day's log return.
        volatility_of_volatility: Standard deviation of log volatility within the day.
        correlation: Of the hidden returns of any two symbols.
        seasonality: 0 = every hour alike, 1 = the busy hours of a crypto venue.
        spread_ticks: Scale of the spread's ticks beyond the first at usual volatility; it widens with it.
        reprice_share: Share of quotes that move the price; the others change a size only.
        run_exponent: Tail exponent of the lengths of same-sided runs of orders; smaller is longer memory.
        noise_share: Share of orders whose side is a coin toss.
        informed_share: Share of orders on the side of the hidden price's next seconds.
        order_notional: Scale of an order's value, in quote currency; sizes have a Pareto tail above it.
        touch_notional: Median value resting at the best bid or offer, in quote currency.
    """

    seed: int = 7
    trades_per_day: int = 100_000
    quotes_per_day: int = 200_000
    depth_every_s: int = 15
    reference_prices: Mapping[str, float] = field(default_factory=lambda: dict(_REFERENCE_PRICES))
    daily_volatility: float = 0.025
    volatility_of_volatility: float = 0.5
    correlation: float = 0.7
    seasonality: float = 1.0
    spread_ticks: float = 0.6
    reprice_share: float = 0.3
    run_exponent: float = 1.5
    noise_share: float = 0.25
    informed_share: float = 0.15
    order_notional: float = 1_000.0
    touch_notional: float = 100_000.0

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated.

        Raises:
            ValueError: A parameter is outside its bounds; the message names it.
        """
        check(self, "trades_per_day", "quotes_per_day", "depth_every_s", least=1)
        check(self, "seed", "volatility_of_volatility", "spread_ticks", least=0)
        check(self, "daily_volatility", "run_exponent", "order_notional", "touch_notional", above=0)
        check(self, "correlation", "seasonality", "reprice_share", "noise_share", "informed_share", least=0, most=1)
        if self.noise_share + self.informed_share > 1:
            raise ValueError(f"noise_share + informed_share must be <= 1, was {self.noise_share + self.informed_share}")
        for symbol, price in self.reference_prices.items():
            if not price > 0:
                raise ValueError(f"reference_prices[{symbol!r}] must be > 0, was {price}")


def write_archive(
    root: Path,
    *,
    instruments: Sequence[Instrument],
    dates: Sequence[date],
    params: MarketParams | None = None,
    desk: DeskParams | None = None,
    on_file: Callable[[Path, int], None] | None = None,
) -> list[Path]:
    """Write simulated symbol-days as official archive zips with `.CHECKSUM` files under `root`.

    Every symbol-day gets its instrument's tape; USD-M instruments get a bookTicker too, as in the archive, and below
    `frames` recorded depth messages where their book comes from such. Each date of a desk gets its decisions, orders
    and fills in all instruments below `desk`, and the call's dates together get their events, as CSV with the names of
    their contracts.
    An archive file depends on the parameters, the instrument and the date alone, so that a call may add dates later:
    trade ids run on, update ids rise, and a day opens where the day before closed.

    Args:
        root: Becomes the archive: `archive_url: file://<root>` reads it.
        instruments: Whose days; the tape, tick and lot sizes are theirs.
        dates: UTC dates, any order.
        params: The market; `MarketParams()` when not given.
        desk: The desk that trades in it; none when not given.
        on_file: Called in the caller's thread after each file, with its path and its number of rows.

    Returns:
        The files, by date, then instrument as given: tape, quotes, depth; then the desk's by date.

    Raises:
        ValueError: A date is before 2017-01-01, or the desk is more than half of the market.
        OSError: `root` cannot be written.
    """
    market = params or MarketParams()
    records: dict[tuple[date, str], DeskDay] = {}

    def write(instrument: Instrument, day: date) -> list[tuple[Path, int]]:
        written, told = _write_day(root, instrument, day, market, desk)
        if told is not None:
            records[day, instrument.symbol] = told
        return written

    paths = write_days(write, instruments=instruments, dates=dates, on_file=on_file)
    for day in sorted({day for day, _ in records}):
        told = [records[key] for key in sorted(records) if key[0] == day]
        paths += write_desk(root, day, told, on_file=on_file)
    if records:
        paths += write_events(root, [records[key] for key in sorted(records)], on_file=on_file)
    return paths


def write_days(
    write: Callable[[Instrument, date], list[tuple[Path, int]]],
    *,
    instruments: Sequence[Instrument],
    dates: Sequence[date],
    on_file: Callable[[Path, int], None] | None,
) -> list[Path]:
    """Write symbol-days side by side on all cores.

    Args:
        write: Writes the files of one symbol-day, and returns their paths and numbers of rows.
        instruments: Whose days.
        dates: UTC dates, any order.
        on_file: Called in the caller's thread after each file, with its path and its number of rows.

    Returns:
        The files, by date, then instrument as given.

    Raises:
        ValueError: A date is before 2017-01-01.
        OSError: From `write`; what is not begun then stays undone.
    """
    for day in dates:
        if day < EPOCH:
            raise ValueError(f"dates must not be before {EPOCH}, was {day}: no simulated market existed then")
    units = [(instrument, day) for day in sorted(set(dates)) for instrument in instruments]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        futures = [pool.submit(write, instrument, day) for instrument, day in units]
        try:
            for future in as_completed(futures):
                for path, rows in future.result():
                    if on_file is not None:
                        on_file(path, rows)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [path for future in futures for path, _ in future.result()]


def latent_of(instrument: Instrument, day: date, params: MarketParams) -> LatentDay:
    """Return the hidden price that the day's quotes and trades are written around."""
    return latent_day(
        seed=params.seed,
        venue_symbol=instrument.venue_symbol,
        day=day,
        reference_price=_reference_price(instrument, params),
        daily_volatility=params.daily_volatility,
        volatility_of_volatility=params.volatility_of_volatility,
        correlation=params.correlation,
        seasonality=params.seasonality,
    )


def opening_prices_of(instrument: Instrument, last_day: date, params: MarketParams) -> FloatArray:
    """Return the hidden price at midnight UTC of each date from 2017-01-01 to `last_day`, in quote currency."""
    return opening_prices(
        seed=params.seed,
        venue_symbol=instrument.venue_symbol,
        last_day=last_day,
        reference_price=_reference_price(instrument, params),
        daily_volatility=params.daily_volatility,
        correlation=params.correlation,
    )


def _write_day(
    root: Path, instrument: Instrument, day: date, params: MarketParams, desk: DeskParams | None
) -> tuple[list[tuple[Path, int]], DeskDay | None]:
    latent = latent_of(instrument, day, params)
    session = None if desk is None else _desk_session(instrument, day, latent, params, desk)
    quotes = _quotes(instrument, day, latent, params, None if session is None else session.footprint)
    trades = _trades(instrument, day, latent, quotes, params)
    told = None
    if session is not None:
        fills = session.fills(quotes)
        trades = with_fills(trades, fills, session.stream("tape"))
        told = records_of(session, quotes, fills)
    written = [(write_trades(root, instrument, day, trades), len(trades.row_id))]
    if instrument.feed == "binance_usdm":
        written.append((write_quotes(root, instrument, day, quotes), len(quotes.update_id)))
        if instrument.sources.book == "recorded_frames":
            written.append(write_depth(root, instrument, day, quotes, every_s=params.depth_every_s))
    return written, told


def _desk_session(
    instrument: Instrument, day: date, latent: LatentDay, params: MarketParams, desk: DeskParams
) -> DeskSession:
    per_second = units_per_second(instrument, day)
    trade_lots = _lots_worth(params.order_notional, instrument, params)
    scale = MarketScale(
        order_lots=_lots_worth(desk.order_notional, instrument, params),
        touch_lots=_lots_worth(params.touch_notional, instrument, params),
        daily_lots=params.trades_per_day * market_flow.mean_trade_lots(trade_lots),
        daily_volatility=params.daily_volatility,
        per_second=per_second,
        midnight=market_flow.midnight(day, per_second),
    )
    stream = partial(_stream, params, instrument, day.toordinal(), "desk")
    return session_of(instrument, day, latent, desk, scale, stream=stream)


def _reference_price(instrument: Instrument, params: MarketParams) -> float:
    if instrument.venue_symbol in params.reference_prices:
        return params.reference_prices[instrument.venue_symbol]
    return instrument.tick_size * (20_000 + zlib.crc32(instrument.venue_symbol.encode()) % 60_000)


def _lots_worth(notional: float, instrument: Instrument, params: MarketParams) -> float:
    return notional / (_reference_price(instrument, params) * instrument.lot_size)


def _quotes(
    instrument: Instrument, day: date, latent: LatentDay, params: MarketParams, footprint: Footprint | None
) -> Quotes:
    rng = _stream(params, instrument, "quotes", day.toordinal())
    count = int(_daily_counts(instrument, day, params, kind="quotes", floor=params.quotes_per_day)[-1])
    per_second = units_per_second(instrument, day)
    time = market_flow.event_times(rng, latent, count, per_second)
    time[0] = 0
    second = time // per_second

    moves = rng.random(count) < params.reprice_share
    moves[0] = True
    moving = np.flatnonzero(moves)
    seconds = time[moving] / per_second
    log_mid = np.interp(seconds, np.arange(SECONDS + 1), latent.log_price)
    if footprint is not None:
        log_mid += footprint.at(seconds)
    mid_ticks = np.exp(log_mid) / instrument.tick_size
    beyond_first = params.spread_ticks * latent.relative_volatility[second[moving]]
    spread = 1 + np.floor(rng.standard_exponential(len(moving)) * beyond_first).astype(np.int64)
    bid = np.maximum(np.rint(mid_ticks - spread / 2).astype(np.int64), 1)
    standing = np.cumsum(moves) - 1
    bid_ticks, ask_ticks = bid[standing], (bid + spread)[standing]

    # The side that the price is about to leave is thin, and the other is thick.
    lean = 0.5 * np.clip(latent.foresight(horizon_s=_FORESIGHT_S), -2, 2)[second]
    scale_lots = _lots_worth(params.touch_notional, instrument, params)
    is_bid_update = rng.random(count) < 0.5
    start = market_flow.midnight(day, per_second)
    shown = np.minimum(
        np.maximum.accumulate(time + rng.integers(0, 3, count) * per_second // 1_000),
        SECONDS * per_second - 1,
    )
    id_room = 2 * _UPDATE_ID_STEP * params.quotes_per_day * (day - EPOCH).days
    return Quotes(
        update_id=_first_id(instrument) + id_room + np.cumsum(rng.integers(1, _UPDATE_ID_STEP, count)),
        bid_ticks=bid_ticks,
        bid_lots=market_flow.standing_lots(rng, scale_lots, lean, market_flow.changes(bid_ticks) | is_bid_update),
        ask_ticks=ask_ticks,
        ask_lots=market_flow.standing_lots(rng, scale_lots, -lean, market_flow.changes(ask_ticks) | ~is_bid_update),
        transaction_time=start + time,
        event_time=start + shown,
    )


def _trades(instrument: Instrument, day: date, latent: LatentDay, quotes: Quotes, params: MarketParams) -> Trades:
    rng = _stream(params, instrument, "trades", day.toordinal())
    is_aggregate = instrument.tape == "aggTrades"
    counts = _daily_counts(instrument, day, params, kind="trades", floor=params.trades_per_day)
    count = int(counts[-1])
    per_second = units_per_second(instrument, day)

    # One order can print several times: same instant, same side, deeper and deeper. An aggregate is one price
    # of one order, so within an order every aggregate lies deeper.
    is_order = rng.random(count) < (0.9 if is_aggregate else 0.6)
    is_order[0] = True
    order = np.cumsum(is_order) - 1
    orders = int(order[-1]) + 1
    start = market_flow.midnight(day, per_second)
    order_time = np.maximum(market_flow.event_times(rng, latent, orders, per_second), 1)
    foresight = latent.foresight(horizon_s=_FORESIGHT_S)[order_time // per_second]
    signs = market_flow.order_signs(
        rng, foresight, run_exponent=params.run_exponent, noise=params.noise_share, informed=params.informed_share
    )
    is_buy = (signs > 0)[order]

    is_deeper = ~is_order & (is_aggregate | (rng.random(count) < 0.3))
    depth = np.cumsum(is_deeper * rng.geometric(0.5, count))
    through = depth - depth[np.flatnonzero(is_order)][order]
    prevailing = (np.searchsorted(quotes.transaction_time, start + order_time, side="left") - 1)[order]
    price_ticks = np.where(
        is_buy,
        quotes.ask_ticks[prevailing] + through,
        np.maximum(quotes.bid_ticks[prevailing] - through, 1),
    )
    lots = market_flow.trade_lots(rng, _lots_worth(params.order_notional, instrument, params), count)

    row_id = _first_id(instrument) + int(counts[:-1].sum()) + np.arange(count)
    first_id, last_id = row_id, row_id
    if is_aggregate:
        # Half as many prints again as there are rows, a number that later days can count on.
        more = np.bincount(rng.integers(0, count, count // 2), minlength=count)
        last_id = row_id + int((counts[:-1] // 2).sum()) + np.cumsum(more)
        first_id = last_id - more
    return Trades(
        row_id=row_id,
        first_id=first_id,
        last_id=last_id,
        price_ticks=price_ticks,
        lots=lots,
        time=start + order_time[order],
        is_buyer_maker=~is_buy,
    )


def _daily_counts(instrument: Instrument, day: date, params: MarketParams, *, kind: str, floor: int) -> IntArray:
    """Return the number of rows of each day from the epoch to `day`, so that ids run on across dates."""
    share = _stream(params, instrument, kind, "counts").random((day - EPOCH).days + 1)
    return floor + (share * _SURPLUS * floor).astype(np.int64)


def _stream(params: MarketParams, instrument: Instrument, *key: int | str) -> np.random.Generator:
    return generator(params.seed, instrument.feed, instrument.venue_symbol, *key)


def _first_id(instrument: Instrument) -> int:
    return 1_000_000_000 + zlib.crc32(instrument.venue_symbol.encode())
