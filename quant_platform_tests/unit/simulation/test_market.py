"""The simulated archive: its layout, what must always hold in it, and how market-like it is."""

import hashlib
import math
import zipfile
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from quant_platform.settings import Instrument
from quant_platform.simulation.market import MarketParams, write_archive

DAYS = [date(2024, 8, 8), date(2024, 8, 9)]
SMALL = MarketParams(trades_per_day=1_500, quotes_per_day=3_000)
LIFELIKE = MarketParams(trades_per_day=20_000, quotes_per_day=40_000)

TRADE_HEADER = "id,price,qty,quote_qty,time,is_buyer_maker"
QUOTE_HEADER = "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time"
SPOT_TRADE = ["id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match"]
SPOT_AGGREGATE = ["id", "price", "qty", "first_id", "last_id", "time", "is_buyer_maker", "is_best_match"]


def perpetual(symbol: str, tick: float = 0.1, lot: float = 0.001) -> Instrument:
    return Instrument(symbol=symbol, venue_symbol=symbol, feed="binance_usdm", tick_size=tick, lot_size=lot)


def spot(symbol: str, tape: str) -> Instrument:
    return Instrument.model_validate(
        {
            "symbol": f"{symbol}.SPOT",
            "venue_symbol": symbol,
            "feed": "binance_spot",
            "tape": tape,
            "tick_size": 0.01,
            "lot_size": 0.00001,
        }
    )


BTC, ETH, SOL = perpetual("BTCUSDT"), perpetual("ETHUSDT", 0.01), perpetual("SOLUSDT", 0.01, 1)


def usdm_path(root: Path, symbol: str, kind: str, day: date) -> Path:
    return root / f"data/futures/um/daily/{kind}/{symbol}/{symbol}-{kind}-{day}.zip"


def text_of(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{path.stem}.csv"]
        return archive.read(f"{path.stem}.csv").decode("ascii")


def frame_of(path: Path, names: list[str] | None = None, dtype: type | None = None) -> pd.DataFrame:
    with zipfile.ZipFile(path) as archive, archive.open(f"{path.stem}.csv") as text:
        return pd.read_csv(text, names=names, dtype=dtype)


def usdm(root: Path, symbol: str, kind: str, days: list[date]) -> pd.DataFrame:
    return pd.concat([frame_of(usdm_path(root, symbol, kind, day)) for day in days], ignore_index=True)


@pytest.fixture(scope="module")
def lifelike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lifelike")
    write_archive(root, instruments=[BTC, ETH, SOL], dates=DAYS, params=LIFELIKE)
    return root


def test_archive_layout_headers_and_checksums(tmp_path: Path) -> None:
    reported: dict[Path, int] = {}

    written = write_archive(tmp_path, instruments=[BTC], dates=DAYS[:1], params=SMALL, on_file=reported.__setitem__)

    trades = usdm_path(tmp_path, "BTCUSDT", "trades", DAYS[0])
    quotes = usdm_path(tmp_path, "BTCUSDT", "bookTicker", DAYS[0])
    assert written == [trades, quotes]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        path.with_name(path.name + ending) for path in written for ending in ("", ".CHECKSUM")
    )
    for path, header in ((trades, TRADE_HEADER), (quotes, QUOTE_HEADER)):
        lines = text_of(path).splitlines()
        assert lines[0] == header
        assert reported[path] == len(lines) - 1
        checksum = path.with_name(path.name + ".CHECKSUM").read_text(encoding="ascii")
        assert checksum == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"


def test_counts_reach_the_floors_on_every_day(tmp_path: Path) -> None:
    days = [date(2024, 2, 27) + timedelta(offset) for offset in range(5)]

    write_archive(tmp_path, instruments=[BTC, SOL], dates=days, params=SMALL)

    for symbol in ("BTCUSDT", "SOLUSDT"):
        for day in days:
            trades = len(usdm(tmp_path, symbol, "trades", [day]))
            quotes = len(usdm(tmp_path, symbol, "bookTicker", [day]))
            assert SMALL.trades_per_day <= trades <= 1.1 * SMALL.trades_per_day
            assert SMALL.quotes_per_day <= quotes <= 1.1 * SMALL.quotes_per_day


def test_default_floors_are_those_of_the_demonstration() -> None:
    assert MarketParams().trades_per_day >= 100_000
    assert MarketParams().quotes_per_day >= 200_000


def test_ids_run_on_across_days(lifelike: Path) -> None:
    assert set(np.diff(usdm(lifelike, "BTCUSDT", "trades", DAYS)["id"])) == {1}
    assert np.diff(usdm(lifelike, "BTCUSDT", "bookTicker", DAYS)["update_id"]).min() > 0


@pytest.mark.parametrize(
    ("kind", "columns"), [("trades", ["time"]), ("bookTicker", ["transaction_time", "event_time"])]
)
def test_times_lie_in_the_date_and_never_fall(lifelike: Path, kind: str, columns: list[str]) -> None:
    for day in DAYS:
        frame = usdm(lifelike, "ETHUSDT", kind, [day])
        for column in columns:
            assert frame[column].is_monotonic_increasing
            assert set(pd.to_datetime(frame[column], unit="ms").dt.date) == {day}
    if kind == "bookTicker":
        assert (frame["event_time"] >= frame["transaction_time"]).all()


def test_same_call_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_archive(tmp_path / name, instruments=[BTC, ETH], dates=DAYS, params=SMALL) for name in "ab")

    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_day_does_not_depend_on_its_company(tmp_path: Path) -> None:
    write_archive(tmp_path / "all", instruments=[BTC, ETH], dates=DAYS, params=SMALL)
    alone = write_archive(tmp_path / "one", instruments=[ETH], dates=DAYS[1:], params=SMALL)

    for path in alone:
        assert path.read_bytes() == (tmp_path / "all" / path.relative_to(tmp_path / "one")).read_bytes()


def test_another_seed_gives_another_market(tmp_path: Path) -> None:
    one = write_archive(tmp_path / "1", instruments=[BTC], dates=DAYS[:1], params=SMALL)
    other = MarketParams(seed=8, trades_per_day=1_500, quotes_per_day=3_000)
    two = write_archive(tmp_path / "2", instruments=[BTC], dates=DAYS[:1], params=other)

    assert text_of(one[0]) != text_of(two[0])


@pytest.mark.parametrize(
    ("tick", "lot", "reference"),
    [(0.1, 0.001, 61_800.3), (0.01, 1.0, 150.0), (0.00001, 10.0, 0.2), (1e-7, 1.0, 0.005), (0.5, 0.25, 7_000)],
)
def test_numbers_are_plain_and_exact_multiples(tmp_path: Path, tick: float, lot: float, reference: float) -> None:
    params = MarketParams(trades_per_day=200, quotes_per_day=400, reference_prices={"X": reference})
    trades, quotes = write_archive(tmp_path, instruments=[perpetual("X", tick, lot)], dates=DAYS[:1], params=params)

    tape, touch = frame_of(trades, dtype=str), frame_of(quotes, dtype=str)
    for column in (tape["price"], touch["best_bid_price"], touch["best_ask_price"]):
        assert column.str.fullmatch(r"\d+\.\d\d+").all()
        assert {Decimal(text) % Decimal(str(tick)) for text in column} == {0}
    for column in (tape["qty"], touch["best_bid_qty"], touch["best_ask_qty"]):
        assert column.str.fullmatch(r"\d+(\.\d+)?").all()
        assert {Decimal(text) % Decimal(str(lot)) for text in column} == {0}
        assert min(map(Decimal, column)) > 0
    for price, size, value in zip(tape["price"], tape["qty"], tape["quote_qty"], strict=True):
        assert Decimal(value) == Decimal(price) * Decimal(size)


def test_quotes_never_cross_and_always_change(lifelike: Path) -> None:
    quotes = usdm(lifelike, "BTCUSDT", "bookTicker", DAYS)
    spread_ticks = (quotes["best_ask_price"] - quotes["best_bid_price"]) / 0.1

    assert spread_ticks.min() > 0.99
    np.testing.assert_allclose(spread_ticks, spread_ticks.round(), atol=1e-5)
    assert spread_ticks.nunique() > 2
    shown = quotes[["best_bid_price", "best_bid_qty", "best_ask_price", "best_ask_qty"]]
    assert (shown.diff().iloc[1:] != 0).any(axis=1).mean() > 0.99


def test_trades_print_at_or_through_the_quote_strictly_before(lifelike: Path) -> None:
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
        trades = usdm(lifelike, symbol, "trades", DAYS)
        quotes = usdm(lifelike, symbol, "bookTicker", DAYS).drop_duplicates("transaction_time", keep="last")
        both = pd.merge_asof(trades, quotes, left_on="time", right_on="transaction_time", allow_exact_matches=False)
        buys, sells = both[~both["is_buyer_maker"]], both[both["is_buyer_maker"]]

        assert both["best_bid_price"].notna().all()
        assert (buys["price"] >= buys["best_ask_price"]).all()
        assert (sells["price"] <= sells["best_bid_price"]).all()
        assert (buys["price"] == buys["best_ask_price"]).mean() > 0.7
        assert 0.01 < (sells["price"] < sells["best_bid_price"]).mean() < 0.3


def test_a_day_opens_where_the_day_before_closed(tmp_path: Path) -> None:
    days = [date(2024, 12, 30) + timedelta(offset) for offset in range(4)]
    params = MarketParams(trades_per_day=200, quotes_per_day=20_000)

    write_archive(tmp_path, instruments=[BTC], dates=days, params=params)

    quotes = [usdm(tmp_path, "BTCUSDT", "bookTicker", [day])["best_bid_price"] for day in days]
    moves = [math.log(after.iloc[0] / before.iloc[-1]) for before, after in pairwise(quotes)]
    # A minute's standard deviation is 0.025 / sqrt(1440) = 0.00066; a day's is 0.025.
    assert np.abs(moves).max() < 0.003


def test_prices_stay_near_their_reference_years_later(tmp_path: Path) -> None:
    params = MarketParams(trades_per_day=50, quotes_per_day=100)

    paths = write_archive(
        tmp_path, instruments=[BTC, ETH, SOL], dates=[date(2019, 9, 8), date(2030, 6, 1)], params=params
    )

    references = {"BTCUSDT": 60_000, "ETHUSDT": 2_600, "SOLUSDT": 150}
    for path in paths:
        if "-trades-" in path.name:
            ratio = frame_of(path)["price"].median() / references[path.name.split("-")[0]]
            assert 0.6 < ratio < 1.6


@pytest.mark.parametrize(("day", "unit"), [(date(2024, 12, 31), "ms"), (date(2025, 1, 1), "us")])
def test_spot_trades_follow_the_spot_layout(tmp_path: Path, day: date, unit: str) -> None:
    written = write_archive(tmp_path, instruments=[spot("BTCUSDT", "trades")], dates=[day], params=SMALL)

    path = tmp_path / f"data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-{day}.zip"
    assert written == [path]
    frame = frame_of(path, names=SPOT_TRADE)
    assert len(frame) >= SMALL.trades_per_day
    assert set(pd.to_datetime(frame["time"], unit=unit).dt.date) == {day}
    last_digits = frame["time"] % 1_000
    assert last_digits.nunique() > 100
    first = text_of(path).splitlines()[0].split(",")
    assert all(len(number.split(".")[1]) == 8 for number in first[1:4])
    assert first[5] in {"True", "False"}
    assert first[6] == "True"


def test_spot_aggregates_cover_every_print_across_days(tmp_path: Path) -> None:
    days = [date(2020, 10, 31), date(2020, 11, 1), date(2020, 11, 2)]

    written = write_archive(tmp_path, instruments=[spot("ETHUSDT", "aggTrades")], dates=days, params=SMALL)

    frames = [frame_of(path, names=SPOT_AGGREGATE) for path in written]
    frame = pd.concat(frames, ignore_index=True)
    assert min(map(len, frames)) >= SMALL.trades_per_day
    assert set(np.diff(frame["id"])) == {1}
    assert (frame["first_id"].iloc[1:].to_numpy() == frame["last_id"].iloc[:-1].to_numpy() + 1).all()
    assert (frame["last_id"] >= frame["first_id"]).all()
    assert (frame["last_id"] > frame["first_id"]).mean() > 0.2


def test_spot_and_perpetual_of_one_name_share_a_price(tmp_path: Path) -> None:
    instruments = [BTC, spot("BTCUSDT", "trades")]
    perpetual_path, _, spot_path = write_archive(tmp_path, instruments=instruments, dates=DAYS[:1], params=SMALL)

    perpetual_mean = frame_of(perpetual_path)["price"].mean()
    assert frame_of(spot_path, names=SPOT_TRADE)["price"].mean() == pytest.approx(perpetual_mean, rel=0.005)


def returns_by(root: Path, symbol: str, width: str) -> pd.Series:
    trades = usdm(root, symbol, "trades", DAYS)
    closes = trades.set_index(pd.to_datetime(trades["time"], unit="ms"))["price"].resample(width).last()
    return np.log(closes.ffill()).diff().dropna()


def test_order_signs_have_long_memory(lifelike: Path) -> None:
    orders = usdm(lifelike, "BTCUSDT", "trades", DAYS).drop_duplicates("time")
    signs = orders["is_buyer_maker"].map({True: -1.0, False: 1.0})

    assert signs.autocorr(1) > 0.1
    assert np.mean([signs.autocorr(lag) for lag in range(10, 21)]) > 0.02
    assert abs(signs.mean()) < 0.2


def test_volatility_clusters(lifelike: Path) -> None:
    returns = returns_by(lifelike, "BTCUSDT", "1min")
    squares = returns**2

    assert np.mean([squares.autocorr(lag) for lag in range(1, 11)]) > 0.05
    assert abs(returns.autocorr(1)) < 0.1
    assert returns.kurtosis() > 0.5


def test_volatility_is_what_the_parameters_say(lifelike: Path) -> None:
    realised = math.sqrt(np.square(returns_by(lifelike, "ETHUSDT", "1min")).sum() / len(DAYS))

    assert realised == pytest.approx(LIFELIKE.daily_volatility, rel=0.5)


def test_symbols_move_together(lifelike: Path) -> None:
    returns = pd.DataFrame({name: returns_by(lifelike, name, "5min") for name in ("BTCUSDT", "ETHUSDT", "SOLUSDT")})

    pairs = returns.corr().to_numpy()[np.triu_indices(3, 1)]
    np.testing.assert_allclose(pairs, LIFELIKE.correlation, atol=0.12)


def test_new_york_hours_are_busier_than_the_night(lifelike: Path) -> None:
    hours = pd.to_datetime(usdm(lifelike, "BTCUSDT", "trades", DAYS)["time"], unit="ms").dt.hour
    per_hour = hours.value_counts()

    assert per_hour.reindex(range(13, 17)).mean() > 1.5 * per_hour.reindex([3, 4, 19, 20, 21]).mean()


def test_spreads_widen_with_volatility(tmp_path: Path) -> None:
    params = MarketParams(trades_per_day=100, quotes_per_day=40_000)
    _, path = write_archive(tmp_path, instruments=[BTC], dates=DAYS[:1], params=params)

    quotes = frame_of(path)
    quotes.index = pd.to_datetime(quotes["transaction_time"], unit="ms")
    spread = (quotes["best_ask_price"] - quotes["best_bid_price"]).resample("15min").mean()
    minutes = np.log(quotes["best_bid_price"].resample("1min").last().ffill()).diff()
    assert spread.rank().corr(minutes.resample("15min").std().rank()) > 0.3


def test_sizes_have_heavy_tails(lifelike: Path) -> None:
    sizes = usdm(lifelike, "BTCUSDT", "trades", DAYS)["qty"]

    assert sizes.quantile(0.999) > 20 * sizes.median()


def test_flow_and_imbalance_say_something_of_the_next_seconds(lifelike: Path) -> None:
    quotes = usdm(lifelike, "BTCUSDT", "bookTicker", DAYS)
    trades = usdm(lifelike, "BTCUSDT", "trades", DAYS)
    mid = (quotes["best_bid_price"] + quotes["best_ask_price"]) / 2
    mids = pd.DataFrame({"at": quotes["transaction_time"], "mid": mid})
    signs = trades["is_buyer_maker"].map({True: -1.0, False: 1.0})
    before = pd.merge_asof(trades[["time"]], mids, left_on="time", right_on="at", allow_exact_matches=False)
    after = pd.merge_asof(trades[["time"]] + 10_000, mids, left_on="time", right_on="at")

    assert (signs * (after["mid"] - before["mid"])).mean() > 0
    total = quotes["best_bid_qty"] + quotes["best_ask_qty"]
    imbalance = (quotes["best_bid_qty"] - quotes["best_ask_qty"]) / total
    ahead = pd.merge_asof(quotes[["transaction_time"]] + 5_000, mids, left_on="transaction_time", right_on="at")
    assert imbalance.corr(ahead["mid"] - mid) > 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trades_per_day": 0}, "trades_per_day must be >= 1, was 0"),
        ({"seed": -1}, "seed must be >= 0, was -1"),
        ({"daily_volatility": 0.0}, "daily_volatility must be > 0, was 0"),
        ({"correlation": 1.2}, "correlation must be >= 0 and <= 1, was 1.2"),
        ({"noise_share": 0.6, "informed_share": 0.6}, r"noise_share \+ informed_share must be <= 1"),
        ({"reference_prices": {"X": 0.0}}, r"reference_prices\['X'\] must be > 0, was 0"),
    ],
)
def test_params_refuse_what_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarketParams(**change)  # type: ignore[arg-type]


def test_dates_before_the_epoch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must not be before 2017-01-01, was 2016-12-31"):
        write_archive(tmp_path, instruments=[BTC], dates=[date(2016, 12, 31)], params=SMALL)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file stands in the way")

    with pytest.raises(OSError, match="data"):
        write_archive(tmp_path, instruments=[BTC], dates=DAYS, params=SMALL)
