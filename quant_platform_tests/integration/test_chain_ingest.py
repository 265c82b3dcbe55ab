"""`qp ingest-chain`: recorded files to the landing, and through the engine to exposures that plain Python sums too."""

import csv
import datetime as dt
import gzip
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from quant_platform.pipeline import options
from quant_platform.pipeline.engine import Engine
from quant_platform.settings import Settings, load_settings
from quant_platform.storage import chain_archive
from quant_platform.storage.chain_archive import Answer
from quant_platform_tests.chain_venue import cboe_chain

NEW_YORK = ZoneInfo("America/New_York")
OSI = re.compile(r"([A-Z]+)(\d?)(\d{6})([CP])(\d{8})")
FRIDAY = dt.datetime(2025, 3, 14, 18, tzinfo=dt.UTC)
NAMES = {"SPX": "_SPX", "NDX": "_NDX", "RUT": "_RUT", "QQQ": "QQQ", "SPY": "SPY", "META": "META", "TSLA": "TSLA"}
FILES = {  # trading date of each, from its third line or `timestamp`; weekends and nights belong to the session before
    "ndx_2022-12.csv.gz": "2022-12-12",
    "qqq_2024-03-22.csv.gz": "2024-03-22",
    "rut_delayed_quotes.json.gz": "2023-09-20",
    "spx_2022-03-23_es-locale.csv.gz": "2022-03-23",
    "spx_2022-06-11.csv.gz": "2022-06-10",
    "spx_2022-12-12.csv.gz": "2022-12-12",
    "spx_2023-02-07.csv.gz": "2023-02-07",
    "spx_2024-01-07.csv.gz": "2024-01-05",
    "spy_2025-04-30.csv.gz": "2025-04-30",
    "spy_2025-05-01_1649.csv.gz": "2025-05-01",
    "spy_2025-05-02.csv.gz": "2025-05-02",
    "spy_2025-05-06_1814.csv.gz": "2025-05-06",
    "spy_2025-05-08_1657.csv.gz": "2025-05-08",
    "META_2026-08-22.json.gz": "2026-08-21",
    "TSLA_2026-08-22.json.gz": "2026-08-21",
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    fixed = "feed: cboe, tick_size: 0.01, lot_size: 1, calendar: XNYS"
    rows = [
        f"  - {{symbol: {s}, venue_symbol: {s}, {fixed}, "
        f"chain: {{feed: cboe, venue_symbol: {name}, rate: 0.04, dividend: 0.01}}}}"
        for s, name in NAMES.items()
    ]
    rows += [
        f"  - {{symbol: BTC, venue_symbol: BTC, {fixed}, chain: {{feed: deribit, venue_symbol: BTC}}}}",
        f"  - {{symbol: BARE, venue_symbol: BARE, {fixed}}}",
    ]
    path = tmp_path / "platform.yaml"
    path.write_text("\n".join(["pipeline: {workers: 0}", "instruments:", *rows, ""]))
    return path


@pytest.fixture
def settings(config: Path, tmp_path: Path) -> Settings:
    home = tmp_path / "home"
    return load_settings(config).model_copy(update={"home": home, "lake_uri": (home / "lake").as_uri()})


class Listed(NamedTuple):
    """A contract as the raw text has it."""

    name: str
    delta: float
    gamma: float
    open_interest: float | None


def raw_chain(path: Path) -> tuple[float, list[Listed]]:
    """Return the price of the underlying and the contracts of a file, by csv and json alone."""
    text = gzip.decompress(path.read_bytes()).decode()
    if ".csv" in path.name:
        above, lines = text.splitlines()[:3], list(csv.reader(text.splitlines()[4:]))
        price = re.search(r"Last: ([\d.]+)", "\n".join(above))
        assert price
        halves = [line[at : at + 10] for line in lines for at in (1, 12)]
        return float(price[1]), [Listed(h[0], float(h[7]), float(h[8]), float(h[9])) for h in halves]
    answer = json.loads(text)
    if "data" in answer:
        found = [Listed(o["option"], o["delta"], o["gamma"], o["open_interest"]) for o in answer["data"]["options"]]
        return answer["data"]["current_price"], found
    found = [Listed(q["symbol"], q["delta"], q["gamma"], q["openInterest"]) for q in answer["quotes"]]
    return answer["underlyingPrice"], found


def settles(match: re.Match[str]) -> dt.datetime:
    day = dt.datetime.strptime(match[3], "%y%m%d").date()  # noqa: DTZ007
    return dt.datetime.combine(day, dt.time(9, 30) if match[1] in {"SPX", "NDX", "RUT"} else dt.time(16), NEW_YORK)


def summed(
    contracts: list[Listed], spot: float, at: dt.datetime, greeks: dict[str, tuple[float | None, float | None]]
) -> Iterator[tuple[float, dt.date, list[float]]]:
    """Yield strike, expiry and the four exposures of each contract that counts."""
    for contract in contracts:
        match = OSI.fullmatch(contract.name)
        assert match
        delta, gamma = greeks[contract.name]
        held = contract.open_interest or 0
        if match[2] or settles(match) <= at or held < 5 or delta is None or gamma is None or not 0 < gamma <= 1:
            continue
        gex, dex = gamma * held * 100 * spot * spot * 0.01, delta * held * 100 * spot
        yield int(match[5]) / 1000, settles(match).date(), [gex, gex if match[4] == "C" else -gex, abs(dex), dex]


@pytest.mark.parametrize("name", FILES)
def test_recorded_files_go_to_the_lake_and_their_exposures_are_the_sums(
    real_data: Path, config: Path, settings: Settings, qp: Any, name: str
) -> None:
    folder = "cboe_quotedata" if name in {p.name for p in (real_data / "cboe_quotedata").iterdir()} else None
    path = real_data / (folder or "options_json_cboe_greeks") / name
    symbol = name.partition("_")[0].upper()
    spot, contracts = raw_chain(path)
    said = qp("ingest-chain", str(path), "--symbol", symbol, "--json", config=config)
    assert said.code == 0, said
    (told,) = json.loads(said.out)
    assert (told["status"], told["rows"], told["quarantined"], told["date"]) == (
        "archived",
        len(contracts),
        0,
        FILES[name],
    )

    date = dt.date.fromisoformat(FILES[name])
    with Engine(settings) as engine:
        for table in (options.CHAIN, options.GREEKS, options.GAMMA_EXPOSURE):
            (outcome,) = engine.run(table, [symbol], [date])
            assert outcome.status == "ok", outcome
        read = {table: engine.lake.scan(table, [symbol]).collect() for table in (options.CHAIN, options.GREEKS)}
        exposure = engine.lake.scan(options.GAMMA_EXPOSURE, [symbol]).collect()
    assert read[options.CHAIN].height == len(contracts) == len({c.name for c in contracts})
    assert set(read[options.CHAIN]["contract"]) == {c.name for c in contracts}
    at = read[options.CHAIN]["ts_event"][0]
    assert at == dt.datetime.fromisoformat(told["ts_event"])

    rows = read[options.GREEKS].select("contract", "delta", "gamma", "source").rows()
    listed = {contract.name: contract for contract in contracts}
    venues = [(contract, delta, gamma) for contract, delta, gamma, source in rows if source == "venue"]
    assert all((delta, gamma) == (listed[c].delta, listed[c].gamma) for c, delta, gamma in venues)
    greeks = {contract: (delta, gamma) for contract, delta, gamma, _ in rows}
    counted = list(summed(contracts, spot, at, greeks))
    assert len(counted) > 100
    groups: dict[Any, list[list[float]]] = defaultdict(list)
    for strike, expiry, values in counted:
        for key in ((strike, expiry), (strike, None), (None, None)):
            groups[key].append(values)
    expected = {key: [math.fsum(column) for column in zip(*values, strict=True)] for key, values in groups.items()}
    figures = ("gex_gross", "gex_net", "dex_gross", "dex_net")
    found = {(row["strike"], row["expiry"]): row for row in exposure.iter_rows(named=True)}
    assert found.keys() == expected.keys()
    for key, sums in expected.items():
        gross = (sums[0], sums[0], sums[2], sums[2])
        for figure, total, scale in zip(figures, sums, gross, strict=True):
            assert found[key][figure] == pytest.approx(total, rel=1e-9, abs=1e-9 * scale), (key, figure)
    assert found[None, None]["contracts_used"] == len(counted)
    assert found[None, None]["contracts_used"] + found[None, None]["contracts_skipped"] == len(contracts)


def test_files_are_taken_as_they_are_and_once(config: Path, settings: Settings, qp: Any, tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.json", tmp_path / "b.json.gz"
    chains = [json.dumps(cboe_chain(FRIDAY + dt.timedelta(minutes=k))).encode() for k in range(2)]
    plain.write_bytes(chains[0])
    packed.write_bytes(gzip.compress(chains[1]))
    said = qp("ingest-chain", str(plain), str(packed), str(plain), "--symbol", "SPX", "--json", config=config)
    assert said.code == 0
    assert [one["status"] for one in json.loads(said.out)] == ["archived", "archived", "known"]
    paths = chain_archive.paths(settings.landing / "chains", "cboe", "SPX", FRIDAY.date())
    stored = [chain_archive.read(path) for path in paths]
    assert [each.answers["chain"] for each in stored] == [Answer(chains[0], str(plain)), Answer(chains[1], str(packed))]
    assert [each.ts_recv_ns for each in stored] == [None, None]


REFUSED = {
    "page.json": (b"<html>Access denied</html>", "is a web page, not JSON"),
    "page.csv": (b"<html>Access denied</html>", "no quotedata sheet of Cboe"),
    "empty.json": (b"", "is empty"),
    "cut.json": (json.dumps(cboe_chain(FRIDAY)).encode()[:-50], "is no whole JSON text"),
    "cut.json.gz": (gzip.compress(json.dumps(cboe_chain(FRIDAY)).encode())[:-50], "cannot be read"),
    "none.json": (json.dumps(cboe_chain(FRIDAY, contracts=0)).encode(), "holds no contract that can be used"),
    "other.json": (
        json.dumps(cboe_chain(FRIDAY, root="NDXP")).encode(),
        "Its contracts are of NDXP, and the chain of SPX",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_chain_is_refused_and_the_others_are_taken(
    config: Path, settings: Settings, qp: Any, tmp_path: Path, name: str
) -> None:
    content, reason = REFUSED[name]
    bad, good = tmp_path / name, tmp_path / "good.json"
    bad.write_bytes(content)
    good.write_bytes(json.dumps(cboe_chain(FRIDAY)).encode())
    said = qp("ingest-chain", str(bad), str(good), "--symbol", "SPX", "--json", config=config)
    assert said.code == 1
    refused, taken = json.loads(said.out)
    assert (refused["file"], refused["status"], taken["status"]) == (str(bad), "refused", "archived")
    assert reason in refused["why"]
    assert len(chain_archive.paths(settings.landing / "chains", "cboe", "SPX", FRIDAY.date())) == 1


def test_a_file_that_is_not_there_is_refused(config: Path, qp: Any, tmp_path: Path) -> None:
    said = qp("ingest-chain", str(tmp_path / "none.csv"), "--symbol", "SPX", config=config)
    assert said.code == 1
    assert "No such file" in said.text


@pytest.mark.parametrize("symbol", ["BTC", "BARE"])
def test_a_symbol_without_a_chain_from_cboe_is_a_sentence(config: Path, qp: Any, tmp_path: Path, symbol: str) -> None:
    said = qp("ingest-chain", str(tmp_path / "any.csv"), "--symbol", symbol, config=config)
    assert said.code == 2
    assert f"{symbol} has no chain from Cboe: add 'chain:" in said.text


def test_help_has_an_example(qp: Any) -> None:
    said = qp("ingest-chain", "--help")
    assert said.code == 0
    assert "Example: qp ingest-chain" in said.text
