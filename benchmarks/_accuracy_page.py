"""The figures and tables of docs/accuracy.md. Its words stand in `_accuracy_page.md.j2`, without a figure of ours."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from _accuracy_scores import BUCKETS_PER_DAY, CutScore, HiddenScore, Share, SignScore, VpinScore
from _harness import HERE

_STRICT, _EXACT = "Lee–Ready, quote strictly earlier", "Lee–Ready, quote of the same instant allowed"
_TRUE, _BULK = "true signs", "bulk volume"
_BY_PRICE_OR_SIZE, _ANY = "either of these two", "`hidden`: any of the three"
_BUCKETS = BUCKETS_PER_DAY[1]
_TRADES_TO_A_BUCKET = 10


@dataclass(frozen=True)
class Facts:
    """What a recorded day holds.

    Attributes:
        executions: Rows of the tape.
        orders: Groups of rows of one instant and side: what one marketable order took.
        widening: How much wider intervals are if all rows of a group are alike.
        hidden: Rows that the exchange marked as hidden.
        shares: Volume.
        quotes: States of the best bid and offer.
        spread_ticks: Mean spread that executions met.
    """

    executions: int
    orders: int
    widening: float
    hidden: int
    shares: float
    quotes: int
    spread_ticks: float


@dataclass(frozen=True)
class Scores:
    """All that the page tells, by symbol."""

    facts: Mapping[str, Facts]
    signs: Mapping[str, Mapping[str, SignScore]]
    depths: Mapping[str, Mapping[str, tuple[Share, Share]]]
    hidden: Mapping[str, Mapping[str, HiddenScore]]
    vpins: Mapping[str, Mapping[int, Mapping[str, VpinScore]]]
    cuts: Mapping[str, Mapping[float, CutScore]]
    venue_signs: Mapping[str, Mapping[str, SignScore]]


def page(scores: Scores) -> str:
    """Return the page as Markdown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    levels = [score.mean for by_size in scores.vpins.values() for score in by_size[_BUCKETS].values()]
    return environment.get_template("_accuracy_page.md.j2").render(
        short=_short(scores),
        signs=[_signs(symbol, rules) for symbol, rules in scores.signs.items()],
        depths=_depths(scores.depths),
        hidden=_hidden(scores.hidden),
        iceberg=_iceberg(scores.hidden),
        buckets_per_day=_BUCKETS,
        vpins=_vpins({symbol: by_size[_BUCKETS] for symbol, by_size in scores.vpins.items()}),
        differences=_differences(scores.vpins),
        cuts=_cuts(scores.cuts),
        venue=_venue(scores.venue_signs),
        facts=_facts(scores.facts),
        widest=f"{max(facts.widening for facts in scores.facts.values()):.1f}",
        levels=f"from {min(levels):.2f} to {max(levels):.2f}",
    )


def _short(scores: Scores) -> dict[str, str]:
    visible = [rules[_STRICT].visible for rules in scores.signs.values()]
    found = {symbol: rules[_BY_PRICE_OR_SIZE] for symbol, rules in scores.hidden.items()}
    vpins = {symbol: by_size[_BUCKETS] for symbol, by_size in scores.vpins.items()}
    bulk = [score.difference for signs in vpins.values() for name, score in signs.items() if name.startswith(_BULK)]
    cuts = {symbol: by_size[_TRADES_TO_A_BUCKET] for symbol, by_size in scores.cuts.items()}
    return {
        "visible": f"{sum(share.hits for share in visible):,} of {sum(share.of for share in visible):,}",
        "hidden": _each((s, percent(rules[_STRICT].hidden)) for s, rules in scores.signs.items()),
        "visible_exact": _each((s, percent(rules[_EXACT].visible)) for s, rules in scores.signs.items()),
        "venue": _each((s, percent(rules[_STRICT].right)) for s, rules in scores.venue_signs.items()),
        "venue_exact": _each((s, percent(rules[_EXACT].right)) for s, rules in scores.venue_signs.items()),
        "recall": _each((s, percent(score.recall)) for s, score in found.items()),
        "precision": " and ".join(sorted({percent(score.precision) for score in found.values()})),
        "vpin": _each((s, f"{signs[_STRICT].difference:.3f}") for s, signs in vpins.items()),
        "bulk": f"{min(bulk):.3f} to {max(bulk):.3f}",
        "cut": _each((s, f"{score.mean:.1%}, at worst {score.worst:.0%}") for s, score in cuts.items()),
    }


def _each(texts: Iterable[tuple[str, str]]) -> str:
    return " and ".join(f"{text} ({symbol})" for symbol, text in texts)


def _signs(symbol: str, rules: Mapping[str, SignScore]) -> str:
    visible, hidden = rules[_STRICT].visible.of, rules[_STRICT].hidden.of
    return table(
        (
            symbol,
            f"visible, n = {visible:,}",
            f"hidden, n = {hidden:,}",
            "all",
            "all, by volume",
            "hidden, by volume",
            "signed",
        ),
        (
            (
                name,
                with_interval(score.visible),
                with_interval(score.hidden),
                percent(score.right),
                f"{score.by_volume:.2%}",
                f"{score.hidden_by_volume:.2%}",
                percent(score.signed),
            )
            for name, score in rules.items()
        ),
    )


def _depths(depths: Mapping[str, Mapping[str, tuple[Share, Share]]]) -> str:
    (first, *_) = depths.values()
    return table(
        ("price of a hidden execution", *_heads(depths, ("share", "signed right"))),
        ((name, *(percent(share) for parts in depths.values() for share in parts[name])) for name in first),
    )


def _hidden(hidden: Mapping[str, Mapping[str, HiddenScore]]) -> str:
    return table(
        ("rule of `microstructure/hidden_orders`", "flagged", "precision", "recall", "hidden volume found"),
        (
            (
                f"{symbol}: {name}",
                f"{score.precision.of:,}",
                with_interval(score.precision),
                with_interval(score.recall),
                f"{score.volume:.2%}",
            )
            for symbol, rules in hidden.items()
            for name, score in rules.items()
        ),
    )


def _iceberg(hidden: Mapping[str, Mapping[str, HiddenScore]]) -> str:
    added = {
        symbol: Share(
            rules[_ANY].precision.hits - rules[_BY_PRICE_OR_SIZE].precision.hits,
            rules[_ANY].precision.of - rules[_BY_PRICE_OR_SIZE].precision.of,
        )
        for symbol, rules in hidden.items()
    }
    return "it adds " + _each(
        (s, f"{share.of:,} executions, {share.hits:,} of them marked") for s, share in added.items()
    )


def _vpins(vpins: Mapping[str, Mapping[str, VpinScore]]) -> str:
    def figures(name: str) -> Iterator[str]:
        for signs in vpins.values():
            score = signs[name]
            yield f"{score.mean:.3f}"
            if name == _TRUE:
                yield from ("", "", "")
            else:
                yield from (f"{score.volume:.2%}", f"{score.correlation:.2f}", f"{score.difference:.3f}")

    (first, *_) = vpins.values()
    return table(
        ("", *_heads(vpins, ("mean", "volume right", "correlation", "difference"))),
        ((name, *figures(name)) for name in first),
    )


def _differences(vpins: Mapping[str, Mapping[int, Mapping[str, VpinScore]]]) -> str:
    (first, *_) = vpins.values()
    return table(
        ("difference, by buckets a day", *_heads(vpins, map(str, first))),
        (
            (name, *(f"{signs[name].difference:.3f}" for by_size in vpins.values() for signs in by_size.values()))
            for name in first[_BUCKETS]
            if name != _TRUE
        ),
    )


def _cuts(cuts: Mapping[str, Mapping[float, CutScore]]) -> str:
    def apart(score: CutScore) -> tuple[str, str, str]:
        if math.isnan(score.mean):
            return "–", "–", "–"
        return f"{score.mean:.1%}", f"{score.p95:.1%}", f"{score.worst:.1%}"

    return table(
        ("trades to a bucket", "buckets filled", "windows", "with a VPIN", "mean", "95th percentile", "worst"),
        (
            (
                f"{symbol}: {trades:.0f}",
                f"{score.buckets:.0f}",
                f"{score.has_vpin.of:,}",
                percent(score.has_vpin),
                *apart(score),
            )
            for symbol, by_size in cuts.items()
            for trades, score in by_size.items()
        ),
    )


def _venue(signs: Mapping[str, Mapping[str, SignScore]]) -> str:
    (first, *_) = signs.values()
    return table(
        ("", *(text for s, rules in signs.items() for text in (f"{s}, n = {rules[_STRICT].right.of:,}", "by volume"))),
        (
            (
                name,
                *(
                    text
                    for rules in signs.values()
                    for text in (with_interval(rules[name].right), f"{rules[name].by_volume:.2%}")
                ),
            )
            for name in first
        ),
    )


def _facts(facts: Mapping[str, Facts]) -> str:
    lines = {
        "executions": lambda day: f"{day.executions:,}",
        "orders that they are of (one instant, one side)": lambda day: f"{day.orders:,}",
        "hidden executions": lambda day: f"{day.hidden:,} ({day.hidden / day.executions:.1%})",
        "shares": lambda day: f"{day.shares:,.0f}",
        "states of the best bid and offer": lambda day: f"{day.quotes:,}",
        "mean spread that executions met, in ticks": lambda day: f"{day.spread_ticks:.1f}",
    }
    return table(("", *facts), ((name, *map(figure, facts.values())) for name, figure in lines.items()))


def _heads(symbols: Iterable[str], figures: Iterable[str]) -> list[str]:
    names = list(figures)
    return [f"{symbol}: {name}" for symbol in symbols for name in names]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: Share) -> str:
    """Return a share in percent; 100% and 0% are exact."""
    if share.hits in {0, share.of}:
        return "100%" if share.hits else "0%"
    return f"{min(max(share.value, 0.0001), 0.9999):.2%}"


def with_interval(share: Share) -> str:
    """Return a share and its interval, in percent."""
    low, high = share.interval
    return f"{percent(share)} ({100 * low:.2f}–{100 * high:.2f})"
