"""What one date's option chains say, in whole sentences. Not here: how they are set on a page."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from quant_platform.contracts.enums import OptionActivity, SignConvention, VolRegime
from quant_platform.contracts.options import OptionChain
from quant_platform.reports import numbers
from quant_platform.reports.market_day import DailyMarket
from quant_platform.reports.market_options_table import level, options_reasons
from quant_platform.reports.market_verdict import Finding, listed

_ALARMING = (VolRegime.SHOCK, VolRegime.ELEVATED)
_LOUD = (OptionActivity.EXTREME, OptionActivity.ELEVATED)
_FLOWS = {"CALL": "mostly calls", "PUT": "mostly puts", "BALANCED": "calls and puts balanced"}


def options_findings(day: DailyMarket) -> list[Finding]:
    """Return what the page's head says: the published index and its regime, who is long gamma, unusual activity."""
    return [*_regimes(day), *_sides(day), *_loud(day)]


def options_sentences(day: DailyMarket, row: Mapping[str, Any]) -> list[str]:
    """Return what is to be said of one symbol's chain, the gamma first.

    Args:
        day: The report's inputs.
        row: The symbol's row of `options_rows`.
    """
    why = options_reasons(day, row["symbol"])
    parts = (_gamma(row, why), *_zero_gamma(row), _skew(row, why), _activity(row, why), _volatility(row, why))
    return [*parts, *_surface(row), *_left_out(day, row)]


def _regimes(day: DailyMarket) -> Iterable[Finding]:
    newest = day.options.regimes.drop_nulls("value").sort("ts_event").group_by("symbol").last().sort("symbol")
    for row in newest.iter_rows(named=True):
        regime = row["regime"] or "unknown"
        sentence = f"{row['symbol']} was {row['value']:.2f} vol points at {row['ts_event']:%H:%M} UTC ({row['source']})"
        sentence += f": its regime is {regime}"
        if row["z_score"] is not None:
            sentence += f", z-score {_signed(row['z_score'], 1)} of {row['samples']} readings"
        yield Finding("attention" if regime in _ALARMING else "note", f"{sentence}.")


def _sides(day: DailyMarket) -> Iterable[Finding]:
    known = day.options.numbers.filter(pl.col("sign_convention") != SignConvention.GROSS).drop_nulls("gex_net")
    sides = {
        name: [symbol for symbol in day.symbols if symbol in own]
        for name, own in (
            ("long", known.filter(pl.col("gex_net") > 0)["symbol"].to_list()),
            ("short", known.filter(pl.col("gex_net") < 0)["symbol"].to_list()),
        )
    }
    parts = [f"{name} gamma in {listed(symbols)}" for name, symbols in sides.items() if symbols]
    if parts:
        yield Finding("note", f"Option dealers ended {', '.join(parts)}.")


def _loud(day: DailyMarket) -> Iterable[Finding]:
    for word in _LOUD:
        loud = day.options.numbers.filter(pl.col("classification") == word)["symbol"].to_list()
        if symbols := [symbol for symbol in day.symbols if symbol in loud]:
            yield Finding("note", f"Option activity was {word} in {listed(symbols)}.")


def _gamma(row: Mapping[str, Any], why: Mapping[str, str]) -> str:
    net, gross = row["gex_net"], row["gex_gross"]
    if net is None or row["spot"] is None:
        return f"Gamma is not known: {why['gex_net']}."
    amount = f"{numbers.large(gross, '').text} per 1 % gross"
    if row["sign_convention"] == SignConvention.GROSS:
        return f"Gamma at {level(row['spot'])} is {amount}; nobody's side is assumed."
    side = "long" if net > 0 else "short" if net < 0 else "neither long nor short"
    return (
        f"Dealers are {side} gamma at {level(row['spot'])}: {numbers.large(net, '', is_signed=True).text} per 1 % net, "
        f"of {amount}. The strike with most gamma is {level(row['max_gex_strike'])}."
    )


def _zero_gamma(row: Mapping[str, Any]) -> Iterable[str]:
    zero, spot, count = row["zero_gamma"], row["spot"], row["zero_gamma_count"]
    if zero is not None and spot:
        away = zero / spot - 1
        others = f", the nearest of {count}" if count > 1 else ""
        yield f"Zero gamma is {level(zero)}, {abs(away) * 100:.1f} % {'above' if away >= 0 else 'below'} it{others}."
    elif count == 0:
        yield f"Net gamma is zero nowhere from {level(row['zero_gamma_from'])} to {level(row['zero_gamma_to'])}."


def _skew(row: Mapping[str, Any], why: Mapping[str, str]) -> str:
    if row["skew"] is None:
        return f"Skew is not known: {why['skew']}."
    points = row["skew"] * 100
    sentence = (
        f"Puts are {abs(points):.1f} vol points {'dearer' if points >= 0 else 'cheaper'} than calls (deltas "
        f"{_signed(row['put_delta'], 2)} and {_signed(row['call_delta'], 2)}, expiry {row['headline_expiry']})"
    )
    if row["skew_z_score"] is not None:
        sentence += (
            f"; it was no higher in {row['skew_percentile'] * 100:.0f} % of the last {row['skew_samples']} snapshots "
            f"(z-score {_signed(row['skew_z_score'], 1)})"
        )
    return f"{sentence}."


def _activity(row: Mapping[str, Any], why: Mapping[str, str]) -> str:
    if row["score"] is None:
        return f"Option activity is {row['classification'] or 'not known'}: {why['score']}."
    most = numbers.large(row["max_contract_ratio"], "").text
    return (
        f"Option activity is {row['classification']} (score {row['score']:.2f}): volume is "
        f"{row['volume_oi_ratio']:.2f} times open interest, {most} times in the most active contract; "
        f"{_FLOWS[row['dominant_flow']]}."
    )


def _volatility(row: Mapping[str, Any], why: Mapping[str, str]) -> str:
    if row["vix1d_proxy"] is None:
        return f"The short index from its own strips is not known: {why['vix1d_proxy']}."
    days = row["horizon_minutes"] / 1440
    return f"Its own strips price {row['vix1d_proxy']:.1f} vol points over {days:g} day{'' if days == 1 else 's'}."


def _surface(row: Mapping[str, Any]) -> Iterable[str]:
    if not row["slices"]:
        return
    sentence = f"{row['slices_fitted']} of {row['slices']} slices of the surface were fitted"
    flags = (
        (row["slices_with_butterflies"], "with a butterfly below nothing"),
        (row["slices_with_calendars"], "with less total variance than the settlement before"),
    )
    if row["slices_fitted"]:
        sentence += ": " + (", ".join(f"{count} {words}" for count, words in flags if count) or "none has arbitrage")
    yield f"{sentence}."


def _left_out(day: DailyMarket, row: Mapping[str, Any]) -> Iterable[str]:
    if row["contracts_skipped"]:
        total = row["contracts_used"] + row["contracts_skipped"]
        yield (
            f"{row['contracts_skipped']:,} of {total:,} contracts do not count in gamma: expired, without greeks, or "
            "with little open interest."
        )
    own = day.quarantine.filter(pl.col("symbol") == row["symbol"], pl.col("table") == OptionChain.table)
    if set_aside := own["rows"].sum():
        rows_are = "row of the date's chains is" if set_aside == 1 else "rows of the date's chains are"
        yield f"{set_aside:,} {rows_are} in quarantine."


def _signed(value: float, decimals: int) -> str:
    return numbers.fixed(value, decimals, "", is_signed=True).text
