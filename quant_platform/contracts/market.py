"""The market's own tables: trades, quotes, gaps and time bars. What we derive from them lives elsewhere."""

from typing import Any, ClassVar

import polars as pl

from quant_platform.contracts._schema import (
    Contract,
    choice,
    count,
    flag,
    identifier,
    instant,
    real,
    rule,
    sign,
    text,
)
from quant_platform.contracts.enums import GapStatus


class Trade(Contract):
    """One print, or one aggregate of prints where the tape is `aggTrades`. A symbol-day has exactly one tape."""

    table: ClassVar[str] = "market/trades"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "trade_id")

    ts_event = instant("The venue's time of the trade.")
    ts_recv = instant("Our clock at receipt; null in archive rows, which `scan` fills.", nullable=True)
    symbol = text("The platform's unique name of the instrument.")
    venue = text("Where it traded: the feed's name, or the exchange code where the tape has one.")
    trade_id = identifier("The venue's id; in an aggTrades row the first id of the aggregate.")
    first_trade_id = identifier("First id of the prints in this row.")
    last_trade_id = identifier("Last id of the prints in this row.")
    price = real("Price of the trade.", unit="quote currency", min_exclusive=0)
    size = real(
        "Quantity traded; null in an aggregate that was refilled and cut to the ids that were missing.",
        unit="base units",
        nullable=True,
        min_exclusive=0,
    )
    aggressor = sign("+1 buyer-initiated, -1 seller-initiated, 0 unknown.")

    @rule()
    def ids_in_order(cls) -> pl.Expr:
        """Require that an aggregate's range runs forward and starts at its own id."""
        return (pl.col("first_trade_id") <= pl.col("last_trade_id")) & (pl.col("trade_id") == pl.col("first_trade_id"))


class Quote(Contract):
    """One change of the best bid or offer. Crossed and locked books are data, not errors."""

    table: ClassVar[str] = "market/quotes"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "sequence")

    ts_event = instant("The venue's transaction time.")
    ts_recv = instant("Our clock at receipt; null in archive rows, which `scan` fills.", nullable=True)
    symbol = text("The platform's unique name of the instrument.")
    venue = text("The feed's name, or the exchange code.")
    bid_price = real("Best bid; null when that side is empty.", unit="quote currency", nullable=True, min_exclusive=0)
    bid_size = real("Quantity at the best bid.", unit="base units", nullable=True, min=0)
    ask_price = real("Best offer; null when that side is empty.", unit="quote currency", nullable=True, min_exclusive=0)
    ask_size = real("Quantity at the best offer.", unit="base units", nullable=True, min=0)
    sequence = identifier("The venue's update id: the order among quotes.")
    is_ts_event_assumed = flag("Whether the venue gave no time, and ts_event is estimated from the receive time.")


def _level_price(side: str, level: int) -> Any:  # a column; dataframely is known to _schema only
    return real(
        f"Price of {side} level {level}; null where the source lacks it.",
        unit="quote currency",
        nullable=True,
        min_exclusive=0,
    )


def _level_size(side: str, level: int) -> Any:
    return real(
        f"Quantity at {side} level {level}; null where the source lacks it.", unit="base units", nullable=True, min=0
    )


class Book(Contract):
    """The five best levels of each side after one update. Crossed and locked books are data, not errors."""

    table: ClassVar[str] = "market/book"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "sequence")

    ts_event = instant("The venue's time of the update.")
    ts_recv = instant("Our clock at receipt; null in archive rows, which `scan` fills.", nullable=True)
    symbol = text("The platform's unique name of the instrument.")
    venue = text("The feed's name, or the exchange code.")
    sequence = identifier("The venue's update id: the order among books.")
    bid_price_1 = _level_price("bid", 1)
    bid_price_2 = _level_price("bid", 2)
    bid_price_3 = _level_price("bid", 3)
    bid_price_4 = _level_price("bid", 4)
    bid_price_5 = _level_price("bid", 5)
    bid_size_1 = _level_size("bid", 1)
    bid_size_2 = _level_size("bid", 2)
    bid_size_3 = _level_size("bid", 3)
    bid_size_4 = _level_size("bid", 4)
    bid_size_5 = _level_size("bid", 5)
    ask_price_1 = _level_price("ask", 1)
    ask_price_2 = _level_price("ask", 2)
    ask_price_3 = _level_price("ask", 3)
    ask_price_4 = _level_price("ask", 4)
    ask_price_5 = _level_price("ask", 5)
    ask_size_1 = _level_size("ask", 1)
    ask_size_2 = _level_size("ask", 2)
    ask_size_3 = _level_size("ask", 3)
    ask_size_4 = _level_size("ask", 4)
    ask_size_5 = _level_size("ask", 5)

    @rule()
    def levels_in_order(cls) -> pl.Expr:
        """Require that each level lies strictly behind the one before it."""
        return pl.all_horizontal(
            better > worse
            for level in range(1, 5)
            for better, worse in (
                (pl.col(f"bid_price_{level}"), pl.col(f"bid_price_{level + 1}")),
                (pl.col(f"ask_price_{level + 1}"), pl.col(f"ask_price_{level}")),
            )
        )


class Gap(Contract):
    """A range of trade ids that the tape jumps over."""

    table: ClassVar[str] = "market/gaps"
    sorted_by: ClassVar[tuple[str, ...]] = ("first_id",)
    is_revised: ClassVar[bool] = True

    symbol = text("The platform's unique name of the instrument.")
    first_id = identifier("First missing trade id.")
    last_id = identifier("Last missing trade id.")
    missing = count("How many ids are missing.")
    ts_start = instant("Venue time of the last trade before the hole.")
    ts_end = instant("Venue time of the first trade after the hole.")
    status = choice("Whether the hole has been refilled.", GapStatus)
    filled_by = text("What refilled it; null while open.", nullable=True)
    ts_known = instant("When the hole could be seen: receipt of the first trade after it.")


class _Bar(Contract):
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_open",)
    is_revised: ClassVar[bool] = True

    ts_open = instant("Start of the interval [ts_open, ts_open + width).")
    symbol = text("The platform's unique name of the instrument.")
    open = real("Price of the first trade, in (ts_event, trade_id) order.", unit="quote currency", min_exclusive=0)
    high = real("Highest price.", unit="quote currency", min_exclusive=0)
    low = real("Lowest price.", unit="quote currency", min_exclusive=0)
    close = real("Price of the last trade.", unit="quote currency", min_exclusive=0)
    volume = real("Sum of sizes.", unit="base units", min_exclusive=0)
    vwap = real("Volume-weighted average price.", unit="quote currency", min_exclusive=0)
    trade_count = count("Trades, counted by id range, also on an aggTrades tape.")
    buy_volume = real("Volume of buyer-initiated trades.", unit="base units", min=0)
    sell_volume = real("Volume of seller-initiated trades.", unit="base units", min=0)
    revision = count("Trades that came after the bar had closed, and revised it.")
    ts_known = instant("Latest receipt of what the bar used, never before the interval's end.")

    @rule()
    def range_holds_prices(cls) -> pl.Expr:
        """Require low <= open, close <= high."""
        return (
            (pl.col("low") <= pl.col("open"))
            & (pl.col("low") <= pl.col("close"))
            & (pl.col("open") <= pl.col("high"))
            & (pl.col("close") <= pl.col("high"))
        )


class Bar1s(_Bar):
    """One-second bars from the tape; no row where nothing traded."""

    table: ClassVar[str] = "market/bars_1s"


class Bar1m(_Bar):
    """One-minute bars, cascaded from one second."""

    table: ClassVar[str] = "market/bars_1m"


class Bar5m(_Bar):
    """Five-minute bars, cascaded from one minute."""

    table: ClassVar[str] = "market/bars_5m"
