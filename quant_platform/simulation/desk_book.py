"""The book that a simulated desk takes from: the touch in force, and behind it the levels of the recorded depth."""

import numpy as np

from quant_platform.simulation.market_files import IntArray, Quotes

_LEVELS = 6
_GRID_PARTS = 5_000  # of the price: levels stand two basis points apart


def far_side(quotes: Quotes, standing: IntArray, side: IntArray) -> tuple[IntArray, IntArray]:
    """Return prices in ticks and quantities in lots of the side that orders take from, a row an order, best first.

    Args:
        quotes: Of the symbol-day.
        standing: Place of the quote that each order meets.
        side: +1 takes offers, -1 takes bids.
    """
    is_buy = side > 0
    touch = np.where(is_buy, quotes.ask_ticks[standing], quotes.bid_ticks[standing])
    touch_lots = np.where(is_buy, quotes.ask_lots[standing], quotes.bid_lots[standing])
    width = max(int(quotes.bid_ticks[0]) // _GRID_PARTS, 1)
    scale = int(np.median(quotes.bid_lots))
    first = np.where(is_buy, touch // width * width + width, (touch - 1) // width * width)
    behind = first[:, None] + (side * width)[:, None] * np.arange(_LEVELS - 1)
    # Knuth's multiplicative hash: one to five times the usual size at the touch.
    behind_lots = scale + scale * (behind * 2_654_435_761 % 1_021) // 255
    return np.hstack([touch[:, None], behind]), np.hstack([touch_lots[:, None], behind_lots])


def near_touch(quotes: Quotes, standing: IntArray, side: IntArray) -> IntArray:
    """Return the price in ticks at which an order waits: the best bid for a buy, the best offer for a sale."""
    return np.where(side > 0, quotes.bid_ticks[standing], quotes.ask_ticks[standing])


def before(quotes: Quotes, time: IntArray) -> IntArray:
    """Return the place of the last quote strictly before each time."""
    return np.searchsorted(quotes.transaction_time, time, side="left") - 1


def double_mid_ticks(quotes: Quotes, time: IntArray) -> IntArray:
    """Return best bid plus best offer at each time, in ticks."""
    standing = np.searchsorted(quotes.transaction_time, time, side="right") - 1
    return quotes.bid_ticks[standing] + quotes.ask_ticks[standing]


def spread_ticks(quotes: Quotes, time: IntArray) -> IntArray:
    """Return best offer less best bid at each time, in ticks."""
    standing = np.searchsorted(quotes.transaction_time, time, side="right") - 1
    return quotes.ask_ticks[standing] - quotes.bid_ticks[standing]
