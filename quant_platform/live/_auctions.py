"""What an estimate of the closing auction is made of: volume, mid and book of a session's last minutes."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl

from quant_platform.calculators.closing_auction import ClosingAuctionParams, closing_imbalance
from quant_platform.contracts._schema import INSTANT
from quant_platform.live.window import Chunk

_MINUTE_NS = 60_000_000_000
_SCHEMA = pl.Schema(
    {
        "symbol": pl.String(),
        "ts_event": INSTANT,
        "ts_known": INSTANT,
        "ts_close": INSTANT,
        "window_volume": pl.Float64(),
        "mid": pl.Float64(),
        "l5": pl.Float64(),
        "gex_net": pl.Float64(),
    }
)


class Auctions:
    """The symbols that have a close, each from its session's open on."""

    def __init__(self, params: ClosingAuctionParams) -> None:
        self._params = params
        self._closes_ns: dict[str, int] = {}
        self._volume: dict[str, float] = {}
        self._mid: dict[str, float | None] = {}
        self._known: dict[str, datetime] = {}

    def open(self, symbol: str, trades: pl.DataFrame, closes_ns: int) -> None:
        """Begin a session with the trades that it has had so far, contract `Trade`."""
        self._closes_ns[symbol], self._volume[symbol], self._mid[symbol] = closes_ns, 0.0, None
        self._known.pop(symbol, None)
        self._add_trades(trades)

    def add(self, chunk: Chunk) -> None:
        """Take in what came."""
        self._add_trades(chunk.trades)
        latest = chunk.quotes.group_by("symbol").agg(
            mid=(pl.col("bid_price").last() + pl.col("ask_price").last()) / 2, recv=pl.col("ts_recv").max()
        )
        for symbol, mid, received in latest.rows():
            if symbol in self._closes_ns:
                self._mid[symbol] = mid
                self._see(symbol, received)

    def estimates(
        self,
        symbols: Sequence[str],
        market_ns: Mapping[str, int],
        books: pl.DataFrame,
        gex_net: Mapping[str, float | None],
    ) -> pl.DataFrame:
        """Return the estimate of each of these symbols that is in the last minutes of its session.

        Args:
            symbols: Of whom.
            market_ns: The market's time of each symbol, UTC ns.
            books: Contract `OrderBookImbalance`, at most one row a symbol.
            gex_net: Of the newest chain, in quote currency per 1 %, of symbols that have one.

        Returns:
            Contract `ClosingImbalance`.
        """
        l5 = dict(books.select("symbol", "l5").rows())
        rows = [
            {
                "symbol": symbol,
                "ts_event": market_ns[symbol],
                "ts_known": self._known.get(symbol),
                "ts_close": self._closes_ns[symbol],
                "window_volume": self._volume[symbol],
                "mid": self._mid[symbol],
                "l5": l5.get(symbol),
                "gex_net": gex_net.get(symbol),
            }
            for symbol in symbols
            if symbol in self._closes_ns and market_ns.get(symbol, 0) >= self._starts_ns(symbol)
        ]
        return closing_imbalance(pl.DataFrame(rows, schema=_SCHEMA), self._params)

    def _starts_ns(self, symbol: str) -> int:
        return self._closes_ns[symbol] - int(self._params.window_min * _MINUTE_NS)

    def _add_trades(self, trades: pl.DataFrame) -> None:
        if not self._closes_ns:
            return
        starts = {symbol: self._starts_ns(symbol) for symbol in self._closes_ns}
        start = pl.col("symbol").replace_strict(starts, default=None, return_dtype=pl.Int64)
        is_in_window = pl.col("ts_event").to_physical() >= start
        sums = (
            trades.filter(start.is_not_null())
            .group_by("symbol")
            .agg(volume=pl.col("size").filter(is_in_window).sum(), recv=pl.col("ts_recv").max())
        )
        for symbol, volume, received in sums.rows():
            self._volume[symbol] += volume
            self._see(symbol, received)

    def _see(self, symbol: str, received: object) -> None:
        if isinstance(received, datetime):
            self._known[symbol] = max(self._known.get(symbol, received), received)
