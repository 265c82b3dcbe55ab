"""The daily market report: one date of the market on one page, and beside it as Markdown and CSV.

Here: which parts the report has and where they are written. Not here: reading the lake or the mart (the asset does).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from quant_platform.reports.market_options_figure import options_figure
from quant_platform.reports.market_options_table import options_reasons, options_rows, options_table
from quant_platform.reports.market_options_verdict import options_findings, options_sentences
from quant_platform.reports.market_order_flow_figure import order_flow_figure
from quant_platform.reports.market_order_flow_table import order_flow_reasons, order_flow_rows, order_flow_table
from quant_platform.reports.market_tables import coverage_table, gaps_table, headline_table, quarantine_table
from quant_platform.reports.market_verdict import Finding, most_urgent_first, verdict
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


@dataclass(frozen=True)
class OptionsSection:
    """What the page says and shows of one symbol's option chain."""

    symbol: str
    title: str
    sentences: list[str]
    figure: Figure


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
            findings=_findings(day, rows),
            headline=headline_table(day, rows),
            order_flow=order_flow_table(day, order_flow_rows(day)),
            sections=[_section(day, rows, i) for i in range(len(day.symbols))],
            options=options_table(day, options_rows(day)),
            chains=_chains(day),
            history=_history(day),
            tables=[gaps_table(day), quarantine_table(day), coverage_table(day)],
        )
    )


def as_markdown(day: DailyMarket) -> str:
    """Return the verdict and all tables in Markdown, without plots."""
    rows = headline(day)
    parts = [f"# Daily market {day.date} (UTC)\n"]
    parts.append("".join(f"- {_MARKS[f.tone]}{plain(f.sentence)}\n" for f in _findings(day, rows)))
    options = options_table(day, options_rows(day))
    tables = [headline_table(day, rows), order_flow_table(day, order_flow_rows(day))]
    tables += [options] if options.rows else []
    tables += [gaps_table(day), quarantine_table(day), coverage_table(day)]
    sections = {table.title: markdown(table) for table in tables}
    for row in options_rows(day).iter_rows(named=True):
        sections[options.title] += f"\n**{plain(row['symbol'])}.** {plain(' '.join(options_sentences(day, row)))}\n"
    return "\n".join([*parts, *(f"## {title}\n\n{text}" for title, text in sections.items())])


def as_csv(day: DailyMarket) -> str:
    """Return headline, order flow and options, a line per symbol, unrounded; `null_reasons` says why a value is empty.

    A symbol without a chain has no options' values, and no reasons for them.
    """
    rows = headline(day)
    for more in (order_flow_rows(day), options_rows(day)):
        rows = rows.join(more, on="symbol", how="left", maintain_order="left")
    chained = options_rows(day)["symbol"].to_list()
    whys = [null_reasons(day, symbol) | order_flow_reasons(day, symbol) for symbol in day.symbols]
    whys = [
        why | (options_reasons(day, symbol) if symbol in chained else {})
        for why, symbol in zip(whys, day.symbols, strict=True)
    ]
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


def _findings(day: DailyMarket, rows: pl.DataFrame) -> list[Finding]:
    return most_urgent_first([*verdict(day, rows), *options_findings(day)])


def _chains(day: DailyMarket) -> list[OptionsSection]:
    sections = []
    for number, row in enumerate(options_rows(day).iter_rows(named=True), start=1):
        own = pl.col("symbol") == row["symbol"]
        strikes, skews, slices = (
            frame.filter(own) for frame in (day.options.strikes, day.options.skews, day.options.slices)
        )
        figure = options_figure(f"options-{number}", row, strikes=strikes, skews=skews, slices=slices)
        sections.append(OptionsSection(row["symbol"], _chain_title(row), options_sentences(day, row), figure))
    return sections


def _chain_title(row: Mapping[str, Any]) -> str:
    if row["snapshot"] is None:
        return "option chain"
    place = f", the last of {row['snapshots']:,} snapshots" if row["snapshots"] > 1 else ""
    return f"option chain at {row['snapshot']:%H:%M:%S} UTC{place}"


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
