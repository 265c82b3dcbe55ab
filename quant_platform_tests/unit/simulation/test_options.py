"""Simulated option chains: the archive that they make, the venue's words, and the market that they belong to."""

import json
import math
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from quant_platform.feeds.chain_snapshot import rows_of
from quant_platform.simulation.market import MarketParams, write_archive
from quant_platform.simulation.options import ChainParams, write_chains
from quant_platform.storage import chain_archive
from quant_platform_tests.unit.simulation.conftest import (
    BTC,
    FRIDAY,
    MARKET,
    PARAMS,
    SATURDAY,
    SOL,
    THURSDAY,
    hidden,
    listed,
    rows,
)


def answers(path: Path) -> dict[str, Any]:
    return {name: json.loads(answer.content) for name, answer in chain_archive.read(path).answers.items()}


def event(path: Path) -> datetime:
    return datetime.fromtimestamp(chain_archive.ts_event_ns(path) / 1e9, UTC)


def test_snapshots_lie_where_the_archive_looks_for_them(tmp_path: Path) -> None:
    reported: dict[Path, int] = {}

    written = write_chains(
        tmp_path,
        instruments=[SOL, BTC],
        dates=[SATURDAY, FRIDAY],
        market=MARKET,
        params=ChainParams(every_s=43_200),
        on_file=reported.__setitem__,
    )

    assert written == [
        path
        for day in (FRIDAY, SATURDAY)
        for instrument in (SOL, BTC)
        for path in chain_archive.paths(tmp_path, "deribit", instrument.symbol, day)
    ]
    assert len(written) == 8
    assert sorted(tmp_path.rglob("*.parquet")) == sorted(written) == sorted(reported)
    assert all(reported[path] == len(answers(path)["summaries"]["result"]) for path in written)


def test_times_start_at_midnight_and_are_a_snapshot_apart(week: list[Path]) -> None:
    for number, path in enumerate(week):
        due = datetime(2024, 3, 7, tzinfo=UTC) + number * timedelta(hours=4)
        received_ns = chain_archive.read(path).ts_recv_ns
        assert timedelta(0) < event(path) - due < timedelta(milliseconds=50)
        assert received_ns is not None
        assert 0.02 < (received_ns - chain_archive.ts_event_ns(path)) / 1e9 < 1
        assert event(path).date().isoformat() == path.parent.name


def test_everything_is_read_back(week: list[Path]) -> None:
    for path in week:
        parsed = rows_of("deribit", chain_archive.read(path), symbol=BTC.symbol)

        assert parsed.quarantined.is_empty()
        assert parsed.rows.height >= 500
        assert parsed.facts["instruments"] == parsed.facts["contracts"] == str(parsed.rows.height)
        assert parsed.facts["unquoted"] == parsed.facts["expired"] == parsed.facts["instruments_broken"] == "0"
        assert parsed.rows["ts_event"].to_physical().unique().to_list() == [chain_archive.ts_event_ns(path)]
        assert parsed.rows["iv"].null_count() == parsed.rows["open_interest"].null_count() == 0


def test_answers_are_worded_as_the_venue_words_them(week: list[Path]) -> None:
    found = answers(week[-1])
    sources = {name: answer.source for name, answer in chain_archive.read(week[-1]).answers.items()}

    for name, method in (("instruments", "get_instruments"), ("summaries", "get_book_summary_by_currency")):
        assert sources[name].startswith(f"https://www.deribit.com/api/v2/public/{method}?currency=SIMBTC&kind=option")
        assert found[name]["jsonrpc"] == "2.0"
        assert found[name]["usOut"] - found[name]["usIn"] == found[name]["usDiff"]
    contract = next(one for one in found["instruments"]["result"] if one["instrument_name"] == "SIMBTC-29MAR24-60000-P")
    assert contract["expiration_timestamp"] == 1_711_699_200_000  # date -u -d '2024-03-29 08:00' +%s
    assert contract["creation_timestamp"] // 3_600_000 * 3_600 == 1_680_249_600  # 2023-03-31 08:00
    assert (contract["strike"], contract["option_type"], contract["kind"]) == (60_000, "put", "option")
    assert (contract["base_currency"], contract["quote_currency"], contract["contract_size"]) == ("SIMBTC", "SIMBTC", 1)
    summary = next(one for one in found["summaries"]["result"] if one["instrument_name"] == "SIMBTC-29MAR24-60000-P")
    assert summary["underlying_index"] == "SIMBTC-29MAR24"
    assert 30 < summary["mark_iv"] < 90
    assert 0.02 < summary["mark_price"] < 0.1
    assert isinstance(summary["creation_timestamp"], int)


def test_prices_stand_on_the_venues_ticks(week: list[Path]) -> None:
    for path in (week[0], week[-1]):
        for one in answers(path)["summaries"]["result"]:
            for side in ("bid_price", "ask_price"):
                if one[side] is not None:
                    assert one[side] == round(one[side], 4)
                    assert one[side] <= 0.005 or round(one[side] * 10_000) % 5 == 0
                    assert one[side] > 0


def test_the_spot_is_the_hidden_price(week: list[Path], chain: pl.DataFrame) -> None:
    spots = chain.group_by("ts_event", maintain_order=True).agg(pl.col("underlying_price").unique())

    for path, spot in zip(week, spots["underlying_price"].to_list(), strict=True):
        seconds = chain_archive.ts_event_ns(path) / 1e9 % 86_400
        log_price = np.interp(seconds, np.arange(86_401), hidden(event(path).date()).log_price)
        assert spot == [pytest.approx(math.exp(log_price), rel=1e-9)]


def test_the_spot_is_where_the_simulated_market_quotes(tmp_path: Path, chain: pl.DataFrame) -> None:
    write_archive(tmp_path, instruments=[BTC], dates=[FRIDAY], params=MARKET)
    with zipfile.ZipFile(next(tmp_path.rglob("*bookTicker*.zip"))) as archive:
        text = archive.read(archive.namelist()[0])
    quotes = pl.read_csv(text).select(
        ts_event=pl.from_epoch("transaction_time", time_unit="ms").dt.cast_time_unit("ns").dt.replace_time_zone("UTC"),
        mid=(pl.col("best_bid_price") + pl.col("best_ask_price")) / 2,
    )
    spots = chain.filter(pl.col("ts_event").dt.date() == FRIDAY).unique("ts_event").sort("ts_event")

    beside = spots.join_asof(quotes, on="ts_event")

    # Quotes are some 20 s apart, over which the price moves by 4 basis points.
    assert (beside["mid"] / beside["underlying_price"]).log().abs().max() < 0.002


def test_contracts_settle_and_come_up_at_eight(chain: pl.DataFrame) -> None:
    friday = chain.filter(pl.col("ts_event").dt.date() == FRIDAY)
    before, after = (set(friday.filter(pl.col("ts_event").dt.hour() == hour)["expiry"].unique()) for hour in (4, 8))

    assert before - after == {FRIDAY}
    # A daily three days ahead and the Friday three weeks ahead; the 29th is a quarter's, and was there already.
    assert after - before == {date(2024, 3, 11)}
    assert chain["seconds"].min() > 0
    kept = friday.filter(pl.col("expiry").is_in(sorted(before & after)))
    assert kept.group_by("contract").len()["len"].unique().to_list() == [6]


def test_open_interest_is_constant_within_a_date_and_volume_grows(chain: pl.DataFrame) -> None:
    by_day = chain.sort("ts_event").group_by("contract", date=pl.col("ts_event").dt.date(), maintain_order=True)
    daily = by_day.agg(
        interests=pl.col("open_interest").n_unique(),
        interest=pl.col("open_interest").first(),
        least_growth=pl.col("volume").diff().min(),
        volume=pl.col("volume").last(),
    )
    thursday, friday = (daily.filter(pl.col("date") == day) for day in (THURSDAY, FRIDAY))
    both = thursday.join(friday, on="contract").filter(pl.col("interest") > 100)

    assert daily["interests"].unique().to_list() == [1]
    assert (daily["least_growth"].fill_null(0) >= 0).all()
    assert thursday["volume"].sum() > 0
    assert (both["interest"] != both["interest_right"]).mean() > 0.99


def test_last_prices_lie_between_low_and_high(week: list[Path]) -> None:
    traded = [one for one in answers(week[5])["summaries"]["result"] if one["volume"] > 0]

    assert len(traded) > 100
    for one in traded:
        assert one["low"] <= one["last"] <= one["high"]
        assert one["volume_usd"] > 0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_unusual_dates_have_contracts_that_trade_more_than_is_open(tmp_path: Path, share: float) -> None:
    params = ChainParams(every_s=82_800, unusual_share=share)
    paths = write_chains(tmp_path, instruments=[BTC], dates=[THURSDAY], market=MARKET, params=params)

    late = rows(paths[-1:]).filter((pl.col("volume") > pl.col("open_interest")) & (pl.col("open_interest") > 1))

    assert late.is_empty() == (share == 0)


def test_bytes_are_the_same_whatever_is_written_beside(tmp_path: Path, week: list[Path]) -> None:
    again = write_chains(tmp_path, instruments=[SOL, BTC], dates=[FRIDAY], market=MARKET, params=PARAMS)

    first = [path for path in week if event(path).date() == FRIDAY]
    of_btc = [path for path in again if BTC.symbol in path.parts]
    assert [path.name for path in of_btc] == [path.name for path in first]
    assert [path.read_bytes() for path in of_btc] == [path.read_bytes() for path in first]


def test_another_seed_is_another_chain(tmp_path: Path, week: list[Path]) -> None:
    other = MarketParams(seed=8, reference_prices=MARKET.reference_prices)
    paths = write_chains(tmp_path, instruments=[BTC], dates=[THURSDAY], market=other, params=PARAMS)

    assert rows(paths[:1])["underlying_price"][0] != rows(week[:1])["underlying_price"][0]


def test_a_snapshot_that_is_there_stays(tmp_path: Path) -> None:
    params = ChainParams(every_s=86_400)
    (path,) = write_chains(tmp_path, instruments=[BTC], dates=[FRIDAY], market=MARKET, params=params)
    before = path.stat().st_mtime_ns

    assert write_chains(tmp_path, instruments=[BTC], dates=[FRIDAY], market=MARKET, params=params) == [path]
    assert path.stat().st_mtime_ns == before


def test_a_day_of_half_hours_has_48_snapshots(tmp_path: Path) -> None:
    paths = write_chains(tmp_path, instruments=[BTC], dates=[FRIDAY], market=MARKET, params=ChainParams(every_s=1_800))

    assert len(paths) == 48
    assert event(paths[17]).strftime("%H:%M:%S") == "08:30:00"


def test_instruments_without_options_on_deribit_have_no_chain(tmp_path: Path) -> None:
    plain = BTC.model_copy(update={"chain": None})

    written = write_chains(tmp_path, instruments=[plain, listed("X", feed="cboe")], dates=[FRIDAY], market=MARKET)

    assert written == list(tmp_path.iterdir()) == []


def test_dates_before_the_market_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dates must not be before 2017-01-01, was 2016-12-31"):
        write_chains(tmp_path, instruments=[BTC], dates=[date(2016, 12, 31)], market=MARKET)
    paths = write_chains(
        tmp_path, instruments=[BTC], dates=[date(2017, 1, 1)], market=MARKET, params=ChainParams(every_s=86_400)
    )
    assert rows(paths).height >= 500


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("every_s", 59),
        ("every_s", 86_401),
        ("volatility_premium", 0),
        ("reversion_days", -1),
        ("smile", math.inf),
        ("skew", -1),
        ("half_spread_volatility", -0.01),
        ("open_interest_notional", 0),
        ("turnover", math.nan),
        ("unusual_share", 1.1),
    ],
)
def test_parameters_out_of_bounds_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .*, was {value}"):
        ChainParams(**{name: value})


def test_a_smile_that_admits_arbitrage_is_refused() -> None:
    with pytest.raises(ValueError, match=r"smile \* \(1 \+ \|skew\|\) must be <= 2"):
        ChainParams(smile=1.6, skew=-0.3)
