"""The daily market report: one date of the market on one page, and beside it as Markdown and CSV.

Here: which parts the report has and where they are written. Not here: reading the lake or the mart (the asset does).
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from quant_platform.reports import market_figures
from quant_platform.reports.market_day import (
    HISTORY_DATES,
    DailyMarket,
    absence,
    headline,
    no_trades,
    null_reasons,
)
from quant_platform.reports.market_order_flow_figure import order_flow_figure
from quant_platform.reports.market_order_flow_table import order_flow_reasons, order_flow_rows, order_flow_table
from quant_platform.reports.market_tables import coverage_table, gaps_table, headline_table, quarantine_table
from quant_platform.reports.market_verdict import verdict
from quant_platform.reports.page import Figure, environment, markdown, plain, publish_bytes, publish_plot_script

NAME = "daily_market"
_MARKS = {"attention": "**Attention.** ", "good": "", "note": ""}


@dataclass(frozen=True)
class Section:
    """One symbol's part of the page: its plots, or the sentence that stands in place of the first."""

    symbol: str
    summary: str
    figure: Figure | None
    order_flow: Figure | None = None


def render(day: DailyMarket) -> str:
    """Return the page; it refers to the plot script beside it and to nothing else.

    The same inputs give the same bytes.
    """
    rows = headline(day)
    return (
        environment()
        .get_template("daily_market.html.j2")
        .render(
            title=f"Daily market {day.date} (UTC)",
            date=day.date,
            symbols=day.symbols,
            findings=verdict(day, rows),
            headline=headline_table(day, rows),
            order_flow=order_flow_table(day, order_flow_rows(day)),
            sections=[_section(day, rows, i) for i in range(len(day.symbols))],
            history=_history(day),
            tables=[gaps_table(day), quarantine_table(day), coverage_table(day)],
        )
    )


def as_markdown(day: DailyMarket) -> str:
    """Return the verdict and all tables in Markdown, without plots."""
    rows = headline(day)
    parts = [f"# Daily market {day.date} (UTC)\n"]
    parts.append("".join(f"- {_MARKS[f.tone]}{plain(f.sentence)}\n" for f in verdict(day, rows)))
    flow = order_flow_table(day, order_flow_rows(day))
    tables = (headline_table(day, rows), flow, gaps_table(day), quarantine_table(day), coverage_table(day))
    return "\n".join([*parts, *(f"## {table.title}\n\n{markdown(table)}" for table in tables)])


def as_csv(day: DailyMarket) -> str:
    """Return headline and order flow, a line per symbol, unrounded; `null_reasons` says why a value is empty."""
    rows = headline(day).join(order_flow_rows(day), on="symbol", how="left", maintain_order="left")
    whys = [null_reasons(day, symbol) | order_flow_reasons(day, symbol) for symbol in day.symbols]
    reasons = [
        "; ".join(f"{column}: {why}" for column, why in reasons.items() if row[column] is None)
        for row, reasons in zip(rows.iter_rows(named=True), whys, strict=True)
    ]
    return (
        rows.with_columns(null_reasons=pl.Series(reasons, dtype=pl.String))
        .insert_column(0, pl.lit(day.date).alias("date"))
        .write_csv()
    )


def write(day: DailyMarket, folder: Path) -> Path:
    """Write `<folder>/daily_market/<date>.html`, `.md` and `.csv`, and the plot script that its pages share.

    Returns:
        The path of the page, which is published last: where it is, the rest is too.
    """
    home = folder / NAME
    publish_plot_script(home)
    publish_bytes(home / f"{day.date}.md", as_markdown(day).encode())
    publish_bytes(home / f"{day.date}.csv", as_csv(day).encode())
    page = home / f"{day.date}.html"
    publish_bytes(page, render(day).encode())
    return page


def _section(day: DailyMarket, rows: pl.DataFrame, number: int) -> Section:
    symbol = day.symbols[number]
    bars, spreads, gaps, slots = (
        frame.filter(pl.col("symbol") == symbol) for frame in (day.bars_5m, day.spreads, day.gaps, day.order_flow.slots)
    )
    flow = None
    if slots.height:
        flow = order_flow_figure(f"order-flow-{number + 1}", symbol, day.date, slots=slots, bars=bars)
    if bars.is_empty():
        traded = rows["close"][number] is not None
        why = absence(day, symbol, "market/bars_5m") or "market/bars_5m has no rows"
        words = f"No five-minute bars of this date: {why}." if traded else None
        return Section(symbol, words or f"No trades on this date: {no_trades(day, symbol)}.", None, flow)
    figure = market_figures.session(
        f"session-{number + 1}",
        symbol,
        day.date,
        bars=bars,
        spreads=spreads,
        gaps=gaps,
        vwap=rows["vwap"][number],
    )
    quoted = spreads["quote_count"].sum()
    quotes = f"{quoted:,} quotes" if quoted else "no quotes"
    trades = f"{bars['trade_count'].sum():,} trades in {bars.height:,} five-minute bars"
    return Section(symbol, f"{trades}; {quotes}.", figure, flow)


def _history(day: DailyMarket) -> Section:
    dates = day.daily["trading_date"].unique().sort().tail(HISTORY_DATES + 1)
    if dates.len() < 2:
        words = "This date is the first one in the daily bars mart." if dates.len() else "The mart has no rows."
        return Section("", f"{words} A context needs at least two dates.", None)
    daily = day.daily.filter(pl.col("trading_date").is_in(dates.to_list()))
    words = f"{dates.len()} dates, {dates[0]} to {dates[-1]}; this date's points are the large ones."
    return Section("", words, market_figures.context("context", day.date, daily, day.symbols))
