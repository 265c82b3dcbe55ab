"""One date of the market as a report takes it: the input frames, their shape, and the headline numbers.

Here: frames in, frames out. Not here: how a number is written (numbers), what is drawn (market_figures).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date as Date  # noqa: N812  # `date` names a field here

import polars as pl

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Bar5m, Gap
from quant_platform.contracts.statistics import PriceStatistics
from quant_platform.reports.frames import shaped
from quant_platform.reports.market_options import OptionsDay, no_options
from quant_platform.reports.market_order_flow import OrderFlow

HISTORY_DATES = 30
_INSTANT = pl.Datetime("ns", "UTC")
_SCHEMAS: Mapping[str, pl.Schema] = {
    "daily": pl.Schema(
        {
            "symbol": pl.String(),
            "trading_date": pl.Date(),
            "open": pl.Float64(),
            "high": pl.Float64(),
            "low": pl.Float64(),
            "close": pl.Float64(),
            "volume": pl.Float64(),
            "vwap": pl.Float64(),
            "trade_count": pl.Int64(),
            "buy_volume": pl.Float64(),
            "sell_volume": pl.Float64(),
            "gap_count": pl.Int64(),
            "missing_trades": pl.Int64(),
            "return_bps": pl.Float64(),
        }
    ),
    "bars_5m": polars_schema(Bar5m),
    "spreads": pl.Schema(
        {
            "symbol": pl.String(),
            "ts_open": _INSTANT,
            "spread_bps": pl.Float64(),
            "quote_count": pl.Int64(),
            "ts_known": _INSTANT,
        }
    ),
    "statistics": polars_schema(PriceStatistics),
    "gaps": polars_schema(Gap),
    "quarantine": pl.Schema({"table": pl.String(), "symbol": pl.String(), "rule": pl.String(), "rows": pl.Int64()}),
    "coverage": pl.Schema(
        {"table": pl.String(), "symbol": pl.String(), "status": pl.String(), "rows": pl.Int64(), "bytes": pl.Int64()}
    ),
}
_ORDERS: Mapping[str, list[str]] = {
    "daily": ["symbol", "trading_date"],
    "bars_5m": ["symbol", "ts_open"],
    "spreads": ["symbol", "ts_open"],
    "statistics": ["symbol", "ts_open"],
    "gaps": ["symbol", "first_id"],
    "quarantine": ["table", "symbol", "rule"],
    "coverage": ["table", "symbol"],
}
CHAINS_ALONE = "the feed has option chains alone"
_ABSENCES = {
    "absent": "the archive has no file",
    "calendar_closed": "the market was closed",
    "missing": "{table} has not been built",
    "failed": "{table} failed to build",
    "blocked": "{table} was blocked by a failed check on its input",
}
_STATISTICS_STATUSES = {
    "no_data": "no prices",
    "too_few": "too few bars in the window",
    "zero_volume": "nothing traded in the window",
    "constant": "the price did not move in the window",
    "nan": "a price in the window is not a number",
}


@dataclass(frozen=True)
class DailyMarket:
    """What the daily market report shows. Rows come in any order; a frame without rows may lack its columns.

    Attributes:
        date: The trading date, UTC.
        symbols: The instruments that the report covers, in its order; rows of others are left out.
        daily: Rows of the daily bars mart for this date and up to 30 earlier ones.
        bars_5m: Five-minute bars of the date.
        spreads: Time-weighted quoted spread by five minutes.
        statistics: Price statistics of the date; the last row of each symbol is shown.
        gaps: Ranges of trade ids that the tape jumps over.
        quarantine: Rows set aside, by table, symbol and rule.
        coverage: State of each table and symbol: ok, absent, calendar_closed, missing, failed or blocked.
        revised: How many bars were revised by late trades.
        order_flow: What the date's tables of `microstructure/*` were reduced to.
        options: What the tables of its option chains were reduced to.
    """

    date: Date
    symbols: tuple[str, ...]
    daily: pl.DataFrame
    bars_5m: pl.DataFrame
    spreads: pl.DataFrame
    statistics: pl.DataFrame
    gaps: pl.DataFrame
    quarantine: pl.DataFrame
    coverage: pl.DataFrame
    revised: int
    order_flow: OrderFlow
    options: OptionsDay = field(default_factory=no_options)

    def __post_init__(self) -> None:
        for name in (one.name for one in fields(self) if one.name in _SCHEMAS):
            frame = shaped(
                getattr(self, name), _SCHEMAS[name], _ORDERS[name], of=f"'{name}' of a daily market report"
            ).filter(pl.col("symbol").is_in(self.symbols))
            object.__setattr__(self, name, frame)
        object.__setattr__(self, "daily", self.daily.filter(pl.col("trading_date") <= self.date))


def headline(day: DailyMarket) -> pl.DataFrame:
    """Return one row per symbol, in the report's order, with null where there is nothing to say.

    Returns:
        `symbol close return_bps range_bps vwap volume notional trade_count buy_share median_spread_bps
        volatility z_score gap_count missing_trades completeness quarantined_rows`. Notional is VWAP times volume;
        range is (high - low) / open; buy share is of the whole volume; volatility (per year) and z-score are those
        of the window that ends with the date's last bar; gaps count refilled ones too; completeness is the share
        of trade ids captured or refilled.
    """
    traded = pl.col("volume") > 0
    ids = pl.col("trade_count") + pl.col("missing_trades")
    today = day.daily.filter(pl.col("trading_date") == day.date).select(
        "symbol",
        "close",
        "return_bps",
        "vwap",
        "volume",
        "trade_count",
        "gap_count",
        "missing_trades",
        range_bps=pl.when(pl.col("open") > 0).then((pl.col("high") - pl.col("low")) / pl.col("open") * 1e4),
        notional=pl.col("vwap") * pl.col("volume"),
        buy_share=pl.when(traded).then(pl.col("buy_volume") / pl.col("volume")),
        completeness=pl.when(ids > 0).then(pl.col("trade_count") / ids),
    )
    spreads = day.spreads.group_by("symbol").agg(median_spread_bps=pl.col("spread_bps").median())
    at_close = day.statistics.group_by("symbol").agg(pl.col("volatility", "z_score").last())
    set_aside = day.quarantine.group_by("symbol").agg(quarantined_rows=pl.col("rows").sum())
    rows = pl.DataFrame({"symbol": day.symbols}, schema={"symbol": pl.String()})
    for frame in (today, spreads, at_close, set_aside):
        rows = rows.join(frame, on="symbol", how="left", maintain_order="left")
    return rows.select(
        "symbol",
        "close",
        "return_bps",
        "range_bps",
        "vwap",
        "volume",
        "notional",
        "trade_count",
        "buy_share",
        "median_spread_bps",
        "volatility",
        "z_score",
        "gap_count",
        "missing_trades",
        "completeness",
        # Nothing in quarantine means 0 only where there was something to read.
        quarantined_rows=pl.when(pl.col("close").is_not_null())
        .then(pl.col("quarantined_rows").fill_null(0))
        .otherwise(pl.col("quarantined_rows")),
    )


def absence(day: DailyMarket, symbol: str, table: str) -> str | None:
    """Return why the table has nothing for the symbol; None where coverage knows of no trouble."""
    states = day.coverage.filter(pl.col("symbol") == symbol, pl.col("table") == table)
    status = states["status"][0] if states.height else "ok"
    return _ABSENCES[status].format(table=table) if status in _ABSENCES else None


def no_trades(day: DailyMarket, symbol: str) -> str:
    """Return why the symbol has no row in the daily mart."""
    is_expected = day.coverage.filter(pl.col("symbol") == symbol, pl.col("table") == "market/trades").height > 0
    if not is_expected and symbol in day.options.numbers["symbol"]:
        return CHAINS_ALONE
    return absence(day, symbol, "market/trades") or "the daily bars mart has no row"


def null_reasons(day: DailyMarket, symbol: str) -> dict[str, str]:
    """Return, for each column of the headline, the reason that applies where this symbol's value is null."""
    statistics = day.statistics.filter(pl.col("symbol") == symbol)
    status = statistics["status"][-1] if statistics.height else ""
    at_close = _STATISTICS_STATUSES.get(status) or absence(day, symbol, "statistics/price_statistics")
    has_row = day.daily.filter(pl.col("symbol") == symbol, pl.col("trading_date") == day.date).height
    trades = None if has_row else no_trades(day, symbol)
    gaps = trades or absence(day, symbol, "market/gaps") or "the daily bars mart does not say"
    return {
        "return_bps": trades or "no earlier close to compare with",
        "buy_share": trades or "nothing traded",
        "median_spread_bps": absence(day, symbol, "market/quotes") or "no quotes on this date",
        "volatility": trades or at_close or "no statistics on this date",
        "z_score": trades or at_close or "no statistics on this date",
        "gap_count": gaps,
        "missing_trades": gaps,
        "completeness": gaps,
    } | dict.fromkeys(
        ("close", "range_bps", "vwap", "volume", "notional", "trade_count", "quarantined_rows"),
        trades or "the daily bars mart does not say",
    )
