"""docs/accuracy.md says what the recordings say: its headline figures once more, from the raw files in plain loops."""

import importlib
import zipfile
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs/accuracy.md"
AMZN = "lobster_20120621/LOBSTER_SampleFile_AMZN_2012-06-21_5.zip"
ETHUSDT = "archive/data/futures/um/daily/{kind}/ETHUSDT/ETHUSDT-{kind}-2024-08-08"
STRICT = "Lee–Ready, quote strictly earlier"
EXACT = "Lee–Ready, quote of the same instant allowed"
N_BUCKETS = 50


class Tape(NamedTuple):
    """Executions, and the best prices after every event; prices are whole units."""

    ns: np.ndarray
    price: np.ndarray
    size: np.ndarray
    side: np.ndarray
    is_hidden: np.ndarray
    quote_ns: np.ndarray
    bid: np.ndarray
    bid_size: np.ndarray
    ask: np.ndarray
    ask_size: np.ndarray

    def quote_before(self, *, exact: bool) -> np.ndarray:
        """Return the place of the quote before each execution, -1 where there is none."""
        return np.searchsorted(self.quote_ns, self.ns, side="right" if exact else "left") - 1


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def page_row(column: str, name: str) -> dict[str, str]:
    """Return the named row of the page's first table that has a column which begins so."""
    for block in PAGE.read_text().split("\n\n"):
        head, _, *rows = [cells(line) for line in block.splitlines() if line.startswith("|")] or [[], []]
        if any(title.startswith(column) for title in head):
            return dict(zip(head[1:], next(row[1:] for row in rows if row[0] == name), strict=True))
    raise AssertionError(f"no table of {PAGE.name} has a column {column}")


def percent(hits: float, of: float) -> str:
    return "100%" if hits == of else f"{hits / of:.2%}"


@pytest.fixture(scope="module")
def amzn(real_data: Path) -> Tape:
    with zipfile.ZipFile(real_data / AMZN) as archive:
        stem = "AMZN_2012-06-21_34200000_57600000"
        names = ["time", "type", "id", "size", "price", "direction"]
        messages = pd.read_csv(archive.open(f"{stem}_message_5.csv"), names=names, dtype={"time": str})
        book = pd.read_csv(archive.open(f"{stem}_orderbook_5.csv"), header=None).to_numpy()
    ns = np.array([int((Decimal(text) * 10**9).quantize(Decimal(1))) for text in messages["time"]])
    is_execution = messages["type"].isin([4, 5]).to_numpy()
    executed = messages[is_execution]
    return Tape(
        ns[is_execution],
        executed["price"].to_numpy(),
        executed["size"].to_numpy(),
        -executed["direction"].to_numpy(),
        (executed["type"] == 5).to_numpy(),
        ns,
        bid=book[:, 2],
        bid_size=book[:, 3],
        ask=book[:, 0],
        ask_size=book[:, 1],
    )


def lee_ready(tape: Tape, *, exact: bool = False) -> np.ndarray:
    sides, last, direction = [], None, 0
    for price, place in zip(tape.price, tape.quote_before(exact=exact), strict=True):
        if last is not None and price != last:
            direction = 1 if price > last else -1
        last = price
        beside_mid = 0 if place < 0 else np.sign(2 * price - tape.bid[place] - tape.ask[place])
        sides.append(beside_mid or direction)
    return np.array(sides)


def vpins(sizes: Iterable[int], sides: Iterable[int], capacity: int) -> list[tuple[int, float]]:
    """Return (trade, VPIN) of every bucket from the 50th on, in whole units."""
    imbalances, found, filled, signed = [], [], 0, 0
    for trade, (size, side) in enumerate(zip(sizes, sides, strict=True)):
        rest = int(size)
        while filled + rest >= capacity:
            part = capacity - filled
            imbalances.append(abs(signed + int(side) * part))
            filled, signed, rest = 0, 0, rest - part
            if len(imbalances) >= N_BUCKETS:
                found.append((trade, sum(imbalances[-N_BUCKETS:]) / (N_BUCKETS * capacity)))
        filled, signed = filled + rest, signed + int(side) * rest
    return found


@pytest.mark.parametrize("rule", [STRICT, EXACT])
def test_signs_of_visible_and_hidden_executions(amzn: Tape, rule: str) -> None:
    is_right = lee_ready(amzn, exact=rule == EXACT) == amzn.side
    row = page_row("visible, n = 8,974", rule)
    found = {name.split(",")[0] if "n =" in name else name: text.split(" (")[0] for name, text in row.items()}

    assert (~amzn.is_hidden).sum() == 8_974
    assert found["visible"] == percent(is_right[~amzn.is_hidden].sum(), 8_974)
    assert found["hidden"] == percent(is_right[amzn.is_hidden].sum(), 2_445)
    assert found["all"] == percent(is_right.sum(), 11_419)
    assert found["all, by volume"] == percent(amzn.size[is_right].sum(), amzn.size.sum())


def test_visible_executions_are_all_signed_right(amzn: Tape) -> None:
    assert (lee_ready(amzn) == amzn.side)[~amzn.is_hidden].all()
    for columns in ("visible, n = 8,974", "visible, n = 23,658"):
        assert page_row(columns, STRICT)[columns].startswith("100% (")


def test_interval_holds_the_shares_that_the_count_does_not_refute(amzn: Tape) -> None:
    hits, of = (lee_ready(amzn) == amzn.side)[amzn.is_hidden].sum(), 2_445
    found, square = hits / of, NormalDist().inv_cdf(0.975) ** 2 / of
    # Wilson: the shares p with (found - p)² = z² · p · (1 - p) / n.
    low, high = sorted(np.roots([1 + square, -2 * found - square, found**2]))

    assert page_row("visible, n = 8,974", STRICT)["hidden, n = 2,445"].endswith(f"({100 * low:.2f}–{100 * high:.2f})")


def test_hidden_orders_by_price_and_by_size(amzn: Tape) -> None:
    place = amzn.quote_before(exact=False)
    bid, ask = amzn.bid[place], amzn.ask[place]
    is_inside = (place >= 0) & (bid < amzn.price) & (amzn.price < ask)
    is_excess, taken = np.zeros(len(place), bool), {}
    for trade in np.flatnonzero((amzn.price == ask) | (amzn.price == bid)):
        at_ask = amzn.price[trade] == ask[trade]
        shown = (amzn.ask_size if at_ask else amzn.bid_size)[place[trade]]
        event = (amzn.ns[trade], at_ask)
        taken[event] = taken.get(event, 0) + amzn.size[trade]
        is_excess[trade] = taken[event] > shown

    flags = {"`inside_spread`": is_inside, "`excess_size`": is_excess, "either of these two": is_inside | is_excess}
    for name, is_flagged in flags.items():
        row = page_row("flagged", f"AMZN: {name}")
        hits = (is_flagged & amzn.is_hidden).sum()
        assert row["flagged"] == f"{is_flagged.sum():,}"
        assert row["precision"].split(" (")[0] == percent(hits, is_flagged.sum()) == "100%"
        assert row["recall"].split(" (")[0] == percent(hits, amzn.is_hidden.sum())


@pytest.mark.parametrize("buckets", [100, 250, 500])
def test_vpin_of_true_and_of_estimated_signs(amzn: Tape, buckets: int) -> None:
    volume = int(amzn.size.sum())  # a bucket of volume ÷ buckets is a whole number of sizes × buckets
    true, estimated = (
        np.array([value for _, value in vpins(amzn.size * buckets, sides, volume)])
        for sides in (amzn.side, lee_ready(amzn))
    )

    difference = f"{np.abs(true - estimated).mean():.3f}"
    assert page_row("AMZN: 100", STRICT)[f"AMZN: {buckets}"] == difference
    if buckets == 250:
        assert page_row("AMZN: mean", "true signs")["AMZN: mean"] == f"{true.mean():.3f}"
        row = page_row("AMZN: mean", STRICT)
        assert row["AMZN: mean"] == f"{estimated.mean():.3f}"
        assert row["AMZN: correlation"] == f"{np.corrcoef(true, estimated)[0, 1]:.2f}"


def test_vpin_of_the_last_thousand_trades(amzn: Tape) -> None:
    trades = len(amzn.size)
    units, bucket = amzn.size * trades, 10 * int(amzn.size.sum())
    folded = vpins(units, amzn.side, bucket)
    apart = []
    for end in range(1_000, trades + 1, 25):
        known = [value for trade, value in folded if trade < end]
        cut = vpins(units[end - 1_000 : end], amzn.side[end - 1_000 : end], bucket)
        apart.append(abs(cut[-1][1] - known[-1]) / known[-1])

    row = page_row("buckets filled", "AMZN: 10")
    assert row["windows"] == f"{len(apart)}"
    assert (row["mean"], row["worst"]) == (f"{np.mean(apart):.1%}", f"{max(apart):.1%}")


def test_futures_against_the_flag_of_the_venue(real_data: Path) -> None:
    trades = pd.read_csv(real_data / (ETHUSDT.format(kind="trades") + ".zip")).sort_values(["time", "id"])
    quotes = pd.read_csv(real_data / (ETHUSDT.format(kind="bookTicker") + ".zip")).sort_values(
        ["transaction_time", "update_id"]
    )
    cents = {
        name: (frame[name] * 100).round().astype("int64").to_numpy()
        for frame, names in ((trades, ["price"]), (quotes, ["best_bid_price", "best_ask_price"]))
        for name in names
    }
    side = np.where(trades["is_buyer_maker"].astype(str).str.lower() == "true", -1, 1)
    nothing = np.array([])
    tape = Tape(
        trades["time"].to_numpy(),
        cents["price"],
        trades["qty"].to_numpy(),
        side,
        nothing,
        quotes["transaction_time"].to_numpy(),
        cents["best_bid_price"],
        nothing,
        cents["best_ask_price"],
        nothing,
    )

    for rule in (STRICT, EXACT):
        is_right = lee_ready(tape, exact=rule == EXACT) == side
        found = page_row("ETHUSDT, n = 6,607", rule)["ETHUSDT, n = 6,607"]
        assert found.split(" (")[0] == percent(is_right.sum(), 6_607)


def test_page_is_what_the_command_writes(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")

    importlib.import_module("accuracy").write(real_data, tmp_path)

    assert (tmp_path / "accuracy.md").read_text() == PAGE.read_text(), "docs/accuracy.md is stale: run `make accuracy`"
    pictures = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert pictures == sorted(path.name for path in (PROJECT / "docs/images").glob("accuracy_*"))
    assert all(f"(images/{name})" in PAGE.read_text() for name in pictures)
