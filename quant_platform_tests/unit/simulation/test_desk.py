"""A desk in the simulated market: its files, its mark on quotes and tape, and what must always hold between them."""

import hashlib
import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quant_platform.contracts._schema import Contract, polars_schema, validated
from quant_platform.contracts.market import Quote, Trade
from quant_platform.feeds import frames
from quant_platform.feeds.binance_archive import ArchiveDay, Fetched, Kind
from quant_platform.feeds.binance_csv import read_day
from quant_platform.feeds.recorded import Wanted
from quant_platform.settings import Instrument, Sources
from quant_platform.simulation.desk import EVENT_KINDS, KINDS, desk_path
from quant_platform.simulation.desk_params import DeskParams
from quant_platform.simulation.latent_price import LatentDay
from quant_platform.simulation.market import MarketParams, latent_of, write_archive
from quant_platform.simulation.market_files import archive_path

DAYS = [date(2024, 3, 5), date(2024, 3, 6)]
MARKET = MarketParams(trades_per_day=8_000, quotes_per_day=30_000, depth_every_s=600)
DESK = DeskParams(correction_share=0.05)
UNSEEN = replace(DESK, impact=0.0)


def perpetual(symbol: str, tick: float, lot: float) -> Instrument:
    return Instrument(
        symbol=symbol,
        venue_symbol=f"{symbol}USDT",
        feed="binance_usdm",
        sources=Sources(book="recorded_frames"),
        tick_size=tick,
        lot_size=lot,
    )


BTC, SOL = perpetual("BTC", 0.1, 0.001), perpetual("SOL", 0.01, 0.01)


def table(root: Path, kind: str, days: list[date] = DAYS) -> pl.DataFrame:
    """Return the desk's rows of a kind, as the contract types them."""
    contract = KINDS[kind]
    schema = polars_schema(contract)
    texts = pl.Schema({name: pl.String() if name.startswith("ts_") else dtype for name, dtype in schema.items()})
    rows = pl.concat(pl.read_csv(desk_path(root, day, kind), schema=texts) for day in days)
    times = pl.col("^ts_.*$").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="ns", time_zone="UTC")
    return rows.with_columns(times)


def market_rows(root: Path, instrument: Instrument, kind: Kind, days: list[date] = DAYS) -> pl.DataFrame:
    """Return tape or quotes through the real parser, which must quarantine nothing."""
    parts = []
    contract: type[Contract] = Quote if kind == "bookTicker" else Trade
    for day in days:
        path = archive_path(root, instrument, day, kind=kind)
        fetched = Fetched(path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), url=path.as_uri())
        parsed = read_day(ArchiveDay(table=contract.table, kind=kind, fetched=fetched), instrument, day)
        assert parsed.quarantined.is_empty()
        assert parsed.out_of_order == 0
        parts.append(parsed.rows)
    return pl.concat(parts)


def with_quote_before(rows: pl.DataFrame, quotes: pl.DataFrame) -> pl.DataFrame:
    """Join the quote strictly before each row's time."""
    return rows.sort("ts_event").join_asof(
        quotes.select("ts_event", "bid_price", "ask_price"), on="ts_event", allow_exact_matches=False
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("desk")
    write_archive(root, instruments=[BTC, SOL], dates=DAYS, params=MARKET, desk=DESK)
    return root


@pytest.fixture(scope="module")
def decisions(root: Path) -> pl.DataFrame:
    return table(root, "decisions")


@pytest.fixture(scope="module")
def orders(root: Path) -> pl.DataFrame:
    return table(root, "orders")


@pytest.fixture(scope="module")
def fills(root: Path) -> pl.DataFrame:
    return table(root, "fills")


@pytest.fixture(scope="module")
def corrected(fills: pl.DataFrame) -> pl.DataFrame:
    """Return each fill as it was told last."""
    return fills.sort("revision").unique("fill_id", keep="last").sort("ts_event", "fill_id")


def test_files_lie_beside_the_archive_by_date_and_kind(tmp_path: Path) -> None:
    told: dict[Path, int] = {}

    written = write_archive(tmp_path, instruments=[BTC], dates=DAYS, params=MARKET, desk=DESK, on_file=told.__setitem__)

    wanted = [tmp_path / "desk" / f"{kind}-{day}.csv" for day in DAYS for kind in KINDS]
    wanted += [tmp_path / "desk" / f"{kind}.csv" for kind in EVENT_KINDS]
    assert written[-len(wanted) :] == wanted
    assert set(told) == set(written)
    assert list(told)[-len(wanted) :] == wanted
    for path in wanted:
        lines = path.read_text(encoding="ascii").splitlines()
        assert len(lines) - 1 == told[path]
        contract = {**KINDS, **EVENT_KINDS}[path.stem.split("-")[0]]
        assert lines[0] == ",".join(polars_schema(contract).names())


@pytest.mark.parametrize("kind", KINDS)
def test_rows_keep_their_contracts_in_order_and_are_named_once(root: Path, kind: str) -> None:
    contract = KINDS[kind]
    rows = validated(contract, table(root, kind))

    assert rows.equals(rows.sort("ts_event", maintain_order=True))
    ident = contract.sorted_by[1]
    assert not rows.select(ident, "revision").is_duplicated().any()
    assert set(rows["symbol"]) == {"BTC", "SOL"}
    assert (rows["ts_recv"] > rows["ts_event"]).all()


def test_ids_ascend_with_time(decisions: pl.DataFrame, orders: pl.DataFrame, corrected: pl.DataFrame) -> None:
    parents = orders.filter(pl.col("parent_order_id").is_null())
    for rows, ident in ((decisions, "decision_id"), (parents, "order_id"), (corrected, "fill_id")):
        for (_,), own in rows.sort("ts_event", ident).group_by("symbol", maintain_order=True):
            assert own[ident].is_sorted()


def test_each_order_follows_its_decision(decisions: pl.DataFrame, orders: pl.DataFrame) -> None:
    parents = orders.filter(pl.col("parent_order_id").is_null())
    assert len(parents) == len(decisions) >= 4 * DESK.orders_per_day
    both = parents.join(decisions, on="decision_id", suffix="_decided", validate="1:1")

    assert len(both) == len(parents)
    assert (both["ts_event"] > both["ts_event_decided"]).all()
    for name in ("symbol", "side", "quantity"):
        assert both[name].equals(both[f"{name}_decided"].rename(name))
    assert both["confidence"].is_between(0.5, 1).all()
    assert both["expected_cost_bps"].min() > 0  # type: ignore[operator]


def test_decisions_are_made_at_the_mid_in_force(root: Path, decisions: pl.DataFrame) -> None:
    own = decisions.filter(symbol="SOL").sort("ts_event")
    quotes = market_rows(root, SOL, "bookTicker")

    met = own.join_asof(quotes.select("ts_event", "bid_price", "ask_price"), on="ts_event")

    np.testing.assert_allclose(met["price"], (met["bid_price"] + met["ask_price"]) / 2, rtol=1e-12)


def test_children_are_parts_of_their_parents(orders: pl.DataFrame) -> None:
    children = orders.filter(pl.col("parent_order_id").is_not_null())
    both = children.join(orders, left_on="parent_order_id", right_on="order_id", suffix="_parent")

    assert len(both) == len(children) > len(orders) / 2
    assert both["parent_order_id_parent"].null_count() == len(both)
    assert both.filter(
        (pl.col("ts_event") < pl.col("ts_event_parent"))
        | (pl.col("ts_done") > pl.col("ts_done_parent"))
        | (pl.col("side") != pl.col("side_parent"))
        | (pl.col("quantity") > pl.col("quantity_parent"))
    ).is_empty()


def test_no_fill_lies_outside_the_life_of_its_order(orders: pl.DataFrame, fills: pl.DataFrame) -> None:
    both = fills.join(orders, on="order_id", suffix="_order", validate="m:1")

    assert len(both) == len(fills)
    assert both["ts_event"].is_between(both["ts_event_order"], both["ts_done"]).all()
    assert both["side"].equals(both["side_order"].rename("side"))
    is_beyond = pl.col("side") * pl.col("price") > pl.col("side") * pl.col("limit_price") + 1e-9
    assert both.filter(pl.col("revision") == 0, is_beyond).height <= both["revision"].sum()


def test_orders_are_filled_as_far_as_their_status_says(orders: pl.DataFrame, corrected: pl.DataFrame) -> None:
    by_child = corrected.group_by("order_id").agg(filled=pl.col("quantity").sum())
    told = orders.join(by_child, on="order_id", how="left").with_columns(pl.col("filled").fill_null(0))
    children = told.filter(pl.col("parent_order_id").is_not_null())
    worked = children.group_by(order_id="parent_order_id").agg(worked=pl.col("filled").sum())
    parents = told.filter(pl.col("parent_order_id").is_null()).join(worked, on="order_id", how="left")
    parents = parents.with_columns(filled=pl.col("filled") + pl.col("worked").fill_null(0))

    for rows in (children, parents):
        is_whole = (rows["filled"] - rows["quantity"]).abs() < 1e-6
        assert (rows["filled"] < rows["quantity"] + 1e-6).all()
        assert is_whole.equals((rows["status"] == "filled").rename("filled"))
    assert set(parents["status"]) == {"filled", "cancelled", "expired", "rejected"}
    assert parents.filter(status="rejected")["filled"].sum() == 0
    assert parents.filter(status="expired", filled=0.0).height < parents.filter(status="expired").height
    unfilled = parents.filter(pl.col("status") != "filled")
    assert parents.filter(status="filled")["cancel_price"].null_count() == parents.filter(status="filled").height
    assert unfilled["cancel_price"].is_null().mean() == pytest.approx(DESK.untold_share, abs=0.15)
    # Some are sent whole, and their fills name them.
    assert parents["worked"].null_count() > parents.filter(status="rejected").height


@pytest.mark.parametrize("instrument", [BTC, SOL])
def test_fills_are_at_or_through_the_quote_strictly_before(
    root: Path, instrument: Instrument, fills: pl.DataFrame, corrected: pl.DataFrame
) -> None:
    quotes = market_rows(root, instrument, "bookTicker")
    for rows in (fills, corrected):
        met = with_quote_before(rows.filter(symbol=instrument.symbol), quotes)
        far = pl.when(side=1).then("ask_price").otherwise("bid_price")
        near = pl.when(side=1).then("bid_price").otherwise("ask_price")
        through = (pl.col("side") * (pl.col("price") - far)).round(9)
        takers, makers = (met.filter(liquidity=word) for word in ("taker", "maker"))
        assert takers.filter(through < 0).is_empty()
        assert 0.3 < takers.select((through == 0).mean()).item() < 1
        assert makers.filter((pl.col("price") - near).abs() > 1e-9).is_empty()
        assert makers.height > 100


@pytest.mark.parametrize("instrument", [BTC, SOL])
def test_every_fill_is_a_print_of_its_own(root: Path, instrument: Instrument, corrected: pl.DataFrame) -> None:
    tape = market_rows(root, instrument, "trades")
    own = corrected.filter(symbol=instrument.symbol)
    aggressor = pl.when(liquidity="taker").then("side").otherwise(-pl.col("side")).cast(pl.Int8)
    wanted = own.select("ts_event", "price", size="quantity", aggressor=aggressor).with_columns(
        pl.col("price", "size").round(6)
    )
    found = tape.select("ts_event", "price", "size", "aggressor").with_columns(pl.col("price", "size").round(6))
    counts = found.group_by(pl.all()).len("prints")

    met = wanted.group_by(pl.all()).len("fills").join(counts, on=wanted.columns, how="left")

    assert (met["prints"].fill_null(0) >= met["fills"]).all()


def test_ids_of_the_tape_run_on_and_counts_are_those_without_a_desk(tmp_path: Path, root: Path) -> None:
    write_archive(tmp_path, instruments=[BTC], dates=DAYS, params=MARKET)

    for kind in ("trades", "bookTicker"):
        ident = "sequence" if kind == "bookTicker" else "trade_id"
        without, with_desk = (market_rows(place, BTC, kind)[ident] for place in (tmp_path, root))
        assert with_desk.equals(without)


def test_other_trades_print_at_or_through_the_quote_as_well(root: Path) -> None:
    met = with_quote_before(market_rows(root, BTC, "trades"), market_rows(root, BTC, "bookTicker"))
    is_buy = pl.col("aggressor") == 1

    assert met.filter(is_buy, pl.col("price") < pl.col("ask_price") - 1e-9).is_empty()
    assert met.filter(~is_buy, pl.col("price") > pl.col("bid_price") + 1e-9).is_empty()


def test_recorded_depth_with_a_desk_still_parses(root: Path) -> None:
    wanted = Wanted(table="market/book", symbol="BTC", venue_symbol="BTCUSDT", date=DAYS[0], venue="binance_usdm")
    recording = frames.find(root / "frames", wanted)
    assert recording is not None

    assert frames.read_day(recording, wanted).quarantined.is_empty()


def test_corrections_come_later_and_mend_price_or_fee(fills: pl.DataFrame) -> None:
    again = fills.filter(revision=1).join(fills.filter(revision=0), on="fill_id", suffix="_first")

    assert len(again) / fills["fill_id"].n_unique() == pytest.approx(DESK.correction_share, rel=0.3)
    assert (again["ts_recv"] - again["ts_recv_first"]).min() >= timedelta(minutes=10)  # type: ignore[operator]
    is_price = again["price"] != again["price_first"]
    assert 0 < is_price.sum() < len(again)
    assert (again["side"] * (again["price_first"] - again["price"])).min() >= 0  # type: ignore[operator]
    assert (again["fee"] < again["fee_first"]).filter(~is_price).all()
    for name in ("ts_event", "order_id", "quantity", "venue", "liquidity"):
        assert again[name].equals(again[f"{name}_first"].rename(name))


def test_fees_and_rebates_are_those_of_the_venue(corrected: pl.DataFrame) -> None:
    paid = pl.col("fee") * pl.col("fee_rate").fill_null(1) / (pl.col("price") * pl.col("quantity")) * 1e4
    found = corrected.group_by("venue", "liquidity").agg(least=paid.min(), most=paid.max())
    for venue in DESK.venues:
        for word, bps in (("maker", venue.maker_fee_bps), ("taker", venue.taker_fee_bps)):
            row = found.filter(venue=venue.name, liquidity=word)
            assert row["least"].item() == pytest.approx(bps, rel=1e-4)
            assert row["most"].item() == pytest.approx(bps, rel=1e-4)
        currency = corrected.filter(venue=venue.name)["fee_currency"].unique().to_list()
        assert currency == [venue.fee_currency or None]


def test_same_call_gives_the_same_bytes_and_a_day_stands_alone(tmp_path: Path, root: Path) -> None:
    both = write_archive(tmp_path / "both", instruments=[BTC, SOL], dates=DAYS[:1], params=MARKET, desk=DESK)
    alone = write_archive(tmp_path / "one", instruments=[SOL], dates=DAYS[1:], params=MARKET, desk=DESK)

    for path in (path for path in both if path.stem not in EVENT_KINDS):  # those are of all dates of a call
        assert path.read_bytes() == (root / path.relative_to(tmp_path / "both")).read_bytes()
    for path in alone[:3]:
        assert path.read_bytes() == (root / path.relative_to(tmp_path / "one")).read_bytes()
    for kind in KINDS:
        assert table(tmp_path / "one", kind, DAYS[1:]).equals(table(root, kind, DAYS[1:]).filter(symbol="SOL"))


def test_no_instruments_leave_no_files(tmp_path: Path) -> None:
    assert write_archive(tmp_path, instruments=[], dates=DAYS, params=MARKET, desk=DESK) == []


def test_a_desk_whose_orders_are_all_rejected_writes_files_without_fills(tmp_path: Path) -> None:
    desk = replace(DESK, orders_per_day=5, reject_share=1.0)

    write_archive(tmp_path, instruments=[BTC], dates=DAYS[:1], params=MARKET, desk=desk)

    assert table(tmp_path, "fills", DAYS[:1]).is_empty()
    assert table(tmp_path, "orders", DAYS[:1])["status"].unique().to_list() == ["rejected"]


def test_a_desk_trades_where_quotes_are_not_published_and_time_is_in_microseconds(tmp_path: Path) -> None:
    spot = Instrument.model_validate(
        {
            "symbol": "X.SPOT",
            "venue_symbol": "XUSDT",
            "feed": "binance_spot",
            "tape": "aggTrades",
            "tick_size": 0.01,
            "lot_size": 0.0001,
        }
    )
    day = date(2025, 6, 2)

    write_archive(tmp_path, instruments=[spot], dates=[day], params=MARKET, desk=DESK)

    fills = table(tmp_path, "fills", [day]).filter(revision=0)
    assert set(fills["ts_event"].dt.date()) == {day}
    assert (fills["ts_event"].dt.nanosecond() // 1_000 % 1_000).n_unique() > 100
    tape = market_rows(tmp_path, spot, "aggTrades", [day])
    assert fills.join(tape, left_on=["ts_event", "quantity"], right_on=["ts_event", "size"], how="anti").is_empty()


def test_quotes_carry_the_mark_of_the_desk_and_lose_it_by_midnight(tmp_path: Path) -> None:
    marked, unmarked = (
        market_rows(tmp_path / str(desk.impact), BTC, "bookTicker", DAYS[:1])
        for desk in (DESK, UNSEEN)
        if write_archive(tmp_path / str(desk.impact), instruments=[BTC], dates=DAYS[:1], params=MARKET, desk=desk)
    )

    mark_bps = ((marked["bid_price"] / unmarked["bid_price"]).log() * 1e4).to_numpy()
    hours = marked["ts_event"].dt.hour().to_numpy()
    assert np.abs(mark_bps[hours == 0][:100]).max() < 0.05
    assert np.std(mark_bps[(hours > 8) & (hours < 22)]) > 2
    assert abs(mark_bps[-1]) < 0.1


def test_a_desk_without_impact_leaves_the_quotes_as_they_are(tmp_path: Path) -> None:
    paths = [
        write_archive(tmp_path / name, instruments=[BTC], dates=DAYS[:1], params=MARKET, desk=desk)
        for name, desk in (("with", UNSEEN), ("without", None))
    ]

    (trades, *quotes), (other_trades, *other_quotes) = (list(files[:3]) for files in paths)
    assert [path.read_bytes() for path in quotes] == [path.read_bytes() for path in other_quotes]
    assert trades.read_bytes() != other_trades.read_bytes()


def test_the_mid_after_an_order_has_moved_by_about_the_law(tmp_path: Path) -> None:
    hasty = DeskParams().algos[3]
    desk = DeskParams(
        orders_per_day=700,
        order_deviation=0.7,
        limit_share=0.0,
        cancel_share=0.0,
        algos=(replace(hasty, shortest_s=1, longest_s=3),),
        brokers=DeskParams().brokers[1:2],
        strategies=DeskParams().strategies[4:],
    )
    market = replace(MARKET, quotes_per_day=100_000, touch_notional=2e5)
    write_archive(tmp_path, instruments=[BTC], dates=DAYS[:1], params=market, desk=desk)
    quotes = market_rows(tmp_path, BTC, "bookTicker", DAYS[:1]).select(
        "ts_event", mid=(pl.col("bid_price") + pl.col("ask_price")) / 2
    )
    orders = table(tmp_path, "orders", DAYS[:1]).filter(pl.col("parent_order_id").is_null(), status="filled")
    latent: LatentDay = latent_of(BTC, DAYS[0], market)

    def mids(at: pl.Expr) -> np.ndarray:
        found = (
            orders.select(ts_event=at.dt.cast_time_unit("ns"))
            .with_row_index()
            .sort("ts_event")
            .join_asof(quotes, on="ts_event")
        )
        return found.sort("index")["mid"].to_numpy()

    moved = orders["side"].to_numpy() * np.log(
        mids(pl.col("ts_done") + timedelta(seconds=15)) / mids(pl.col("ts_event"))
    )
    midnight = datetime(DAYS[0].year, DAYS[0].month, DAYS[0].day, tzinfo=UTC)
    second = (orders["ts_event"] - midnight).dt.total_seconds().to_numpy()
    # A lot is 0.001 coins, and trades have a mean of 1 + 1,000 / 60,000 / 0.001 / 0.6 lots.
    reference = market.reference_prices[BTC.venue_symbol]
    daily = market.trades_per_day * (1 + market.order_notional / reference / 0.001 / 0.6) * 0.001
    law = desk.impact * latent.volatility[second] * math.sqrt(86_400) * np.sqrt(orders["quantity"].to_numpy() / daily)

    slope = (moved * law).sum() / (law**2).sum()
    # After 15 s of half-lives of 180 s, 0.4 + 0.6 * 0.944 is left.
    assert slope == pytest.approx(0.4 + 0.6 * 0.5 ** (15 / 180), abs=0.1)
