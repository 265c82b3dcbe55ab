"""The options table of the daily market report: what it shows a symbol, and why a value is missing."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from quant_platform.contracts.dealer import DealerFlow, ExposureHistory, GammaExposure, Skew
from quant_platform.contracts.enums import OptionActivity, SignConvention, Status
from quant_platform.contracts.microstructure import UnusualActivity
from quant_platform.contracts.options import VolSurface
from quant_platform.contracts.volatility import Vix1dProxy
from quant_platform.reports import numbers
from quant_platform.reports.market_day import DailyMarket, absence
from quant_platform.reports.page import Cell, Column, Table

_CHAIN_WORDS: Mapping[str, str] = {
    Status.INVALID_SPOT: "the chain does not tell the price of the underlying",
    Status.NO_VALID_CONTRACTS: "no contract of the snapshot counts",
}
_WORDS: Mapping[str, Mapping[str, str]] = {
    GammaExposure.table: _CHAIN_WORDS,
    DealerFlow.table: _CHAIN_WORDS,
    Skew.table: {
        Status.NO_VALID_CONTRACTS: "no contract near the delta has a volatility",
        Status.ONE_SIDED: "no expiry has both a call and a put near the delta",
    },
    ExposureHistory.table: {
        Status.NO_DATA: "the newest value is not known",
        Status.TOO_FEW: "too few snapshots",
        Status.CONSTANT: "it did not vary",
    },
    Vix1dProxy.table: {Status.TOO_FEW: "no two settlements enclose the horizon"},
    UnusualActivity.table: {
        Status.NO_DATA: "the chain is empty",
        Status.NO_VALID_CONTRACTS: "no contract tells volume and open interest",
        Status.ZERO_VOLUME: "no option traded",
    },
}
_COLUMNS = (
    Column("Symbol", is_number=False),
    Column("Spot", "quote ccy", "Price of the underlying, or of its forward; options/gamma_exposure"),
    Column(
        "Net gamma",
        "per 1 % / z",
        "Calls less puts, in quote currency that delta changes by; its z-score among the last snapshots; "
        "options/gamma_exposure, options/exposure_history",
    ),
    Column("Gross", "per 1 %", "Calls and puts, in quote currency; options/gamma_exposure"),
    Column("Zero gamma", "away", "Nearest level where net gamma is zero, and how far; options/gamma_exposure"),
    Column("Net delta", "quote ccy", "Sum of delta · open interest · S; options/gamma_exposure"),
    Column("Hedge", "per +1 %", "Gamma, and vanna with volatility's answer; options/dealer_flow"),
    Column("Vanna", "per vol point", "Net change of delta, in quote currency; options/dealer_flow"),
    Column("Charm", "per day", "Net change of delta, in quote currency; options/dealer_flow"),
    Column(
        "Skew",
        "vol points / z",
        "Volatility of the put less that of the call; its z-score among the last snapshots; options/skew, "
        "options/exposure_history",
    ),
    Column("Own index", "vol points", "From its own strips, not the exchange's VIX1D; volatility/vix1d_proxy"),
    Column("Activity", "score", "Volume against open interest, 0 to 1; microstructure/unusual_activity"),
    Column("Arbitrage", "of slices", "Slices of the surface with either kind; options/vol_surface"),
    Column("Skipped", "contracts", "Contracts that do not count in gamma; options/gamma_exposure"),
)
_REMARKS = {
    SignConvention.DEALER_LONG_CALLS_SHORT_PUTS: "Dealers are taken to be long calls and short puts: net is calls less "
    "puts, and where it is above 0 their hedges go against moves.",
    SignConvention.GROSS: "Net is calls less puts; which of them dealers hold is not assumed.",
}
_REMARK = (
    "Zero gamma rests on volatilities, net gamma on the venue's greeks where it gives them: near zero they may "
    "disagree. All is of the newest snapshot of the date. Definitions: docs/data_dictionary.md, under options/."
)


def options_rows(day: DailyMarket) -> pl.DataFrame:
    """Return the report's symbols that have a chain on the date, in its order: the rows of `OptionsDay.numbers`."""
    order = pl.DataFrame({"symbol": day.symbols}, schema={"symbol": pl.String})
    return order.join(day.options.numbers, on="symbol", how="inner", maintain_order="left")


def options_reasons(day: DailyMarket, symbol: str) -> dict[str, str]:
    """Return, for each value of `options_rows` that may be null, the reason that applies where this symbol's is."""
    known = day.options.numbers.filter(pl.col("symbol") == symbol).row(0, named=True)

    def why(table: str, status: str) -> str:
        if known.get(status):
            return _WORDS[table].get(known[status], f"{table} does not say")
        return absence(day, symbol, table) or f"{table} has no rows on this date"

    gamma, flow = why(GammaExposure.table, "gamma_status"), why(DealerFlow.table, "flow_status")
    zero = gamma
    if known["gex_net"] is not None:
        zero = "net gamma is zero nowhere near" if known["zero_gamma_count"] == 0 else "it was not searched"
    return {
        **dict.fromkeys(("snapshot", "spot", "gex_net", "gex_gross", "dex_net", "max_gex_strike"), gamma),
        **dict.fromkeys(("directional_bias", "contracts_skipped"), gamma),
        "zero_gamma": zero,
        **dict.fromkeys(("notional_per_pct_move", "vanna_net_notional_per_vol_pt", "charm_net_notional_per_day"), flow),
        "skew": why(Skew.table, "skew_status"),
        "gex_net_z_score": why(ExposureHistory.table, "gex_net_history_status"),
        "skew_z_score": why(ExposureHistory.table, "skew_history_status"),
        "vix1d_proxy": why(Vix1dProxy.table, "proxy_status"),
        "score": why(UnusualActivity.table, "activity_status"),
        "slices_fitted": absence(day, symbol, VolSurface.table) or f"{VolSurface.table} has no rows on this date",
    }


def options_table(day: DailyMarket, rows: pl.DataFrame) -> Table:
    """Return one line per symbol from the rows of `options_rows`."""
    lines = tuple(_line(row, options_reasons(day, row["symbol"])) for row in rows.iter_rows(named=True))
    used = rows["sign_convention"].to_list()
    remark = " ".join([*(words for convention, words in _REMARKS.items() if convention in used), _REMARK])
    return Table("Options and volatility", _COLUMNS, lines, "No symbol has a chain of options on this date.", remark)


def _line(row: Mapping[str, Any], why: Mapping[str, str]) -> tuple[Cell, ...]:
    def amount(name: str, *, is_signed: bool = True) -> Cell:
        return numbers.large(row[name], why[name], is_signed=is_signed)

    def price(name: str) -> Cell:
        return numbers.missing(why[name]) if row[name] is None else Cell(level(row[name]))

    def standing(cell: Cell, name: str) -> Cell:
        score = numbers.fixed(row[name], 1, f"z-score: {why[name]}", is_signed=True)
        return cell if cell.reason else Cell(f"{cell.text} / {score.text}", score.reason)

    zero = price("zero_gamma")
    if row["zero_gamma"] is not None and row["spot"]:
        away = numbers.fixed(100 * (row["zero_gamma"] / row["spot"] - 1), 1, "", is_signed=True)
        zero = Cell(f"{zero.text} ({away.text} %)")
    skew = None if row["skew"] is None else row["skew"] * 100
    activity = numbers.fixed(row["score"], 2, why["score"])
    if row["score"] is not None:
        is_loud = row["classification"] in {OptionActivity.ELEVATED, OptionActivity.EXTREME}
        activity = Cell(f"{row['classification']} {activity.text}", style="warn" if is_loud else "")
    return (
        Cell(row["symbol"], style="name"),
        price("spot"),
        standing(amount("gex_net"), "gex_net_z_score"),
        amount("gex_gross", is_signed=False),
        zero,
        amount("dex_net"),
        amount("notional_per_pct_move"),
        amount("vanna_net_notional_per_vol_pt"),
        amount("charm_net_notional_per_day"),
        standing(numbers.fixed(skew, 1, why["skew"], is_signed=True), "skew_z_score"),
        numbers.fixed(row["vix1d_proxy"], 1, why["vix1d_proxy"]),
        activity,
        _arbitrage(row, why["slices_fitted"]),
        numbers.whole(row["contracts_skipped"], why["contracts_skipped"]),
    )


def _arbitrage(row: Mapping[str, Any], why: str) -> Cell:
    if row["slices_fitted"] is None:
        return numbers.missing(why)
    flagged = row["slices_with_arbitrage"]
    return Cell(f"{flagged} / {row['slices_fitted']}", style="warn" if flagged else "")


def level(value: float) -> str:
    """Return a price level to six digits."""
    return f"{value:,.6g}" if value < 1e6 else f"{value:,.0f}"
