"""A seeded date of a desk, made with numpy alone: what tests of the TCA report stand on, and what it is looked at with.

No calculator of ours had a part in it, so that the page's numbers can be checked against plain sums over these frames.
"""

import functools
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from quant_platform.calculators.scorecards import ScorecardParams
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.execution import TcaFill, TcaOrder
from quant_platform.contracts.scorecards import AlgoScorecard, Impact, ImpactFit, OrderQuality, VenueScorecard
from quant_platform.reports.tca_day import DailyTca
from quant_platform.reports.tca_digest import HORIZONS, chart_instants

DATE = date(2024, 8, 8)
MIDNIGHT = datetime(2024, 8, 8, tzinfo=UTC)
NOTHING = pl.DataFrame()
PRICES = {"BTCUSDT": 57_000.0, "ETHUSDT": 2_450.0, "SOLUSDT": 152.0}
ALGOS = ("TWAP", "VWAP", "POV", "AGGRESSIVE")
COSTS = {"TWAP": 0.8, "VWAP": 0.6, "POV": 1.4, "AGGRESSIVE": 3.2}
VENUES = ("binance_usdm", "binance_spot", "deribit")


def framed(contract, rows):
    """Rows as a frame of the contract, null where they do not say; a frame as it is."""
    if isinstance(rows, pl.DataFrame):
        return rows
    schema = polars_schema(contract)
    return pl.DataFrame([dict.fromkeys(schema) | row for row in rows], schema=schema)


def order(number=1, **changes):
    """An order that bought 10 of 10 at 100.05: decided at 100, arrived at 100.02, VWAP 100.04, fee 0.1."""
    at = MIDNIGHT + timedelta(hours=9, minutes=number)
    row = {
        "order_id": f"o{number}",
        "decision_id": f"d{number}",
        "ts_event": at,
        "ts_done": at + timedelta(minutes=4),
        "symbol": "AAA",
        "strategy": "momentum",
        "algo": "VWAP",
        "broker": "own",
        "side": 1,
        "quantity": 10.0,
        "filled_quantity": 10.0,
        "fill_count": 1,
        "ts_first_fill": at + timedelta(minutes=1),
        "ts_last_fill": at + timedelta(minutes=3),
        "avg_price": 100.05,
        "fees": 0.1,
        "expected_cost_bps": 1.0,
        "decision_price": 100.0,
        "arrival_price": 100.02,
        "vwap_price": 100.04,
        "cancel_price": 100.1,
        "status": "ok",
        "reasons": "",
        "ts_known": at + timedelta(minutes=4),
    } | dict.fromkeys(
        ("is_overfilled", "is_orphan", "has_fill_before_order", "has_fill_after_done", "has_correction"), False
    )
    return costed(row | changes) | {k: v for k, v in changes.items() if k.endswith("_bps")}


def costed(row):
    """The row with the costs and parts that follow from its prices, by the definitions."""
    names = ("decision", "arrival", "vwap", "twap", "open", "close", "prev_close")
    side, filled, ordered, paid = row["side"], row["filled_quantity"], row["quantity"], row["avg_price"]
    if row["status"] != "ok":
        return row
    for name in (*names, "pwp_05", "pwp_10", "pwp_20", "pwp_30"):
        benchmark = row.get(f"{name}_price")
        if benchmark is not None and paid is not None:
            row[f"{name}_cost_bps"] = side * (paid / benchmark - 1) * 1e4
    decision, arrival = row["decision_price"], row["arrival_price"]
    if decision is None or arrival is None:
        return row
    value = ordered * decision / 1e4
    row["delay_bps"] = side * filled * (arrival - decision) / value
    row["trading_bps"] = side * filled * ((paid or arrival) - arrival) / value
    rest = side * (ordered - filled)
    row["opportunity_bps"] = rest * (row["cancel_price"] - decision) / value if rest else 0.0
    row["fees_bps"] = row["fees"] / value
    row["shortfall_bps"] = sum(row[f"{part}_bps"] for part in ("delay", "trading", "opportunity", "fees"))
    return row


def fill(number=1, order_id="o1", **changes):
    """A fill of 10 at 100.05 that took; its markouts are 1, 2, 3 … bps, horizon by horizon."""
    at = MIDNIGHT + timedelta(hours=9, minutes=2, seconds=number)
    row = {
        "fill_id": f"f{number}",
        "order_id": order_id,
        "ts_event": at,
        "symbol": "AAA",
        "venue": "north",
        "liquidity": "taker",
        "side": 1,
        "price": 100.05,
        "quantity": 10.0,
        "mid_price": 100.04,
        "status": "ok",
        "ts_known": at + timedelta(minutes=5),
    }
    return row | {f"markout_{h}_bps": float(i) for i, h in enumerate(HORIZONS, start=1)} | changes


def quality(row, **changes):
    """The quality of an order: a score of 0.5, and its life from the desk to its last fill."""
    ends = row["ts_last_fill"] or row["ts_done"]
    own = {name: row[name] for name in ("ts_event", "order_id", "symbol", "strategy", "algo", "broker", "quantity")}
    is_filled = row["filled_quantity"] >= row["quantity"] * (1 - 1e-9)
    lasted = {"duration_s": (ends - row["ts_event"]).total_seconds(), "is_filled": is_filled}
    return own | lasted | {"score": 0.5, "status": "ok", "ts_known": row["ts_known"]} | changes


def cell(period="day", start=DATE, **changes):
    """A scorecard's cell of an algo that pays 2 bps beyond what was expected, which is a discovery."""
    row = {
        "dimension": "algo",
        "member": "VWAP",
        "period": period,
        "period_start": start,
        "orders": 40,
        "symbols": 3,
        "days": 8,
        "notional": 1000.0,
        "notional_share": 0.5,
        "arrival_cost_bps": 3.0,
        "effective_spread_bps": 1.5,
        "markout_5s_bps": -0.25,
        "markout_5m_bps": 0.5,
        "e_over_q": 0.8,
        "price_improvement_bps": 0.1,
        "excess_orders": 40,
        "excess_cost_bps": 2.0,
        "excess_t": 4.0,
        "excess_degrees": 7,
        "excess_low_bps": 1.0,
        "excess_high_bps": 3.0,
        "p_value": 0.001,
        "q_value": 0.004,
        "is_discovery": True,
        "status": "ok",
        "excess_status": "ok",
        "inference_status": "ok",
        "ts_known": MIDNIGHT,
        "fill_rate": 0.9,
        "quality_score": 0.6,
    }
    return row | changes


def venue_cell(venue="north", period="day", start=DATE, **changes):
    """The same of a venue."""
    row = {name: value for name, value in cell(period, start).items() if name in polars_schema(VenueScorecard)}
    return row | {"venue": venue, "fills": 90, "maker_share": 0.25} | changes


def unsure(**changes):
    """What a cell of one day has to say: a mean, and no t."""
    names = ("excess_t", "excess_degrees", "excess_low_bps", "excess_high_bps", "p_value", "q_value", "is_discovery")
    return dict.fromkeys(names) | {"inference_status": "too_few", "days": 1} | changes


def tca_day(orders=None, fills=None, **changes):
    """The report's inputs: one order with one fill, unless told otherwise."""
    orders = framed(TcaOrder, [order()] if orders is None else orders)
    inputs = {
        "date": DATE,
        "orders": orders,
        "fills": framed(TcaFill, [fill()] if fills is None else fills),
        "quality": framed(OrderQuality, [quality(row) for row in orders.iter_rows(named=True)]),
        "ranges": pl.DataFrame({"symbol": ["AAA"], "low": [99.0], "high": [101.0]}),
        "params": ScorecardParams(draws=100),
    } | dict.fromkeys(("algos", "venues", "impact", "impact_fits", "paths", "quarantine"), NOTHING)
    return DailyTca(**(inputs | changes))


@functools.cache
def real_day(seed=7, orders=240):
    """A date as a desk may have it: three symbols, four algos, three venues, and a little of every trouble."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(86_400)
    mids = {s: p * np.exp(np.cumsum(rng.normal(0, 0.9e-5 * 1.6, seconds.size))) for s, p in PRICES.items()}
    rows, fills = [], []
    for number in range(orders):
        row, own = _real_order(rng, number, mids)
        rows.append(row)
        fills += own
    fills.append({**fills[0], "fill_id": "stray-1", "order_id": None})
    fills.append({**fills[7], "fill_id": "wide-1", "price": fills[7]["price"] * 1.2})
    frame = framed(TcaOrder, rows)
    instants = chart_instants(frame)
    places = instants.select(s=(pl.col("ts_event") - MIDNIGHT).dt.total_seconds()).to_series()
    path = [float(mids[s][min(max(at, 0), 86_399)]) for s, at in zip(instants["symbol"], places, strict=True)]
    return DailyTca(
        date=DATE,
        orders=frame,
        fills=framed(TcaFill, fills),
        quality=framed(OrderQuality, [quality(row, score=float(rng.beta(5, 4))) for row in rows]),
        algos=framed(AlgoScorecard, _real_cells()),
        venues=framed(VenueScorecard, _real_venues()),
        impact=framed(Impact, [_impact(row, rng) for row in rows]),
        impact_fits=framed(
            ImpactFit, [_fit(m, y) for m, y in (("total", 0.9), ("temporary", 0.5), ("permanent", 0.4))]
        ),
        paths=instants.select("order_id", "ts_event", mid_price=pl.Series(path)),
        ranges=pl.DataFrame([{"symbol": s, "low": m.min() * 0.999, "high": m.max() * 1.001} for s, m in mids.items()]),
        quarantine=pl.DataFrame(
            [{"table": "execution/fills", "symbol": "BTCUSDT", "rule": "price|min_exclusive", "rows": 2}]
        ),
        params=ScorecardParams(draws=200),
    )


def _real_order(rng, number, mids):
    symbol, algo = rng.choice(list(PRICES)), str(rng.choice(ALGOS))
    start, side = int(rng.integers(600, 80_000)), int(rng.choice([-1, 1]))
    length = 5 if algo == "AGGRESSIVE" else int(rng.integers(60, 5_400))
    tape, end = mids[symbol], start + length
    decision, arrival = float(tape[start - 20] if number % 3 else tape[start - 120]), float(tape[start])
    quantity = float(np.round(rng.lognormal(11, 1.1) / arrival, 3) + 0.001)
    share = 1.0 if rng.random() < 0.82 else float(np.round(rng.uniform(0, 0.9), 2))
    times = np.sort(rng.integers(start, end, max(1, min(40, length // 90 + 1)))) if share else np.array([], dtype=int)
    at = MIDNIGHT + timedelta(seconds=start)
    fills = [
        _real_fill(rng, number, k, symbol, algo, side, tape, t, quantity * share / times.size)
        for k, t in enumerate(times)
    ]
    filled = sum(f["quantity"] for f in fills)
    bench = tape[start:end]
    trouble = "no_arrival" if number == 11 else "no_decision" if number in (20, 21) else ""
    row = order(
        number + 1,
        order_id=f"P-{number + 1:05d}",
        symbol=symbol,
        algo=algo,
        strategy=str(rng.choice(["momentum", "pairs", "carry"])),
        broker=str(rng.choice(["own", "alpha brokers"])),
        side=side,
        quantity=quantity,
        filled_quantity=filled,
        fill_count=len(fills),
        ts_event=at,
        ts_done=None if number == 5 else at + timedelta(seconds=length),
        ts_first_fill=fills[0]["ts_event"] if fills else None,
        ts_last_fill=fills[-1]["ts_event"] if fills else None,
        avg_price=sum(f["price"] * f["quantity"] for f in fills) / filled if fills else None,
        fees=sum(f["price"] * f["quantity"] for f in fills) * 0.2e-4,
        expected_cost_bps=COSTS[algo] - (0.9 if algo == "POV" else 0.1),
        decision_price=None if trouble == "no_decision" else decision,
        arrival_price=None if trouble == "no_arrival" else arrival,
        vwap_price=float(bench.mean() * (1 + rng.normal(0, 2e-5))),
        twap_price=float(bench.mean()),
        open_price=float(tape[0]),
        close_price=float(tape[-1]),
        prev_close_price=float(tape[0] * 0.9995),
        cancel_price=float(tape[end]),
        status="unfinished" if number == 5 else "ok",
        reasons=trouble,
        has_correction=number in (3, 44, 90),
        is_overfilled=number == 60,
        **{
            f"pwp_{r}_price": float(tape[start : start + max(1, length // k)].mean())
            for k, r in ((1, "05"), (2, "10"), (4, "20"), (6, "30"))
        },
    )
    return row, fills


def _real_fill(rng, number, k, symbol, algo, side, tape, second, quantity):
    mid, half = float(tape[second]), 0.4e-4
    maker = algo != "AGGRESSIVE" and rng.random() < 0.55
    price = mid * (1 + side * ((-half if maker else half) + COSTS[algo] * 0.6e-4 + abs(rng.normal(0, 0.1e-4))))
    drift = -0.35e-4 if maker else 0.25e-4
    later = {"50ms": 0, "1s": 1, "5s": 5, "15s": 15, "1m": 60, "5m": 300, "close": 86_399 - second}
    ramps = {"50ms": 0.3, "1s": 0.6, "5s": 0.8, "15s": 0.95, "1m": 1.0, "5m": 1.0, "close": 1.0}
    after = {h: tape[min(second + s, 86_399)] * (1 + side * drift * ramps[h]) for h, s in later.items()}
    return fill(
        k,
        fill_id=f"F-{number + 1:05d}-{k:03d}",
        order_id=f"P-{number + 1:05d}",
        ts_event=MIDNIGHT + timedelta(seconds=int(second), milliseconds=int(rng.integers(0, 1000))),
        symbol=symbol,
        venue=str(rng.choice(VENUES, p=[0.6, 0.38, 0.02])),
        liquidity="maker" if maker else "taker",
        side=side,
        price=price,
        quantity=quantity,
        mid_price=mid,
        **{f"markout_{h}_bps": side * (float(value) / price - 1) * 1e4 for h, value in after.items()},
    )


def _real_cells():
    month = date(2024, 8, 1)
    rows = []
    for name, orders, excess, q in (("TWAP", 102, 0.1, 0.8), ("VWAP", 96, -0.2, 0.7), ("POV", 101, 1.1, 0.012)):
        rows.append(
            cell(member=name, orders=orders, notional=9e6, notional_share=0.3, excess_cost_bps=excess, **unsure())
        )
        rows.append(
            cell(
                "month",
                month,
                member=name,
                orders=orders * 6,
                excess_orders=orders * 6,
                days=6,
                q_value=q,
                excess_cost_bps=excess,
                excess_t=excess * 3,
                excess_low_bps=excess - 0.6,
                excess_high_bps=excess + 0.6,
                is_discovery=q < 0.1,
            )
        )
    few = dict.fromkeys(
        ("arrival_cost_bps", "effective_spread_bps", "markout_5m_bps", "fill_rate", "quality_score", "excess_cost_bps")
    )
    few |= {"status": "too_few", "excess_status": "too_few", "orders": 12, "excess_orders": 12}
    rows.append(cell(member="AGGRESSIVE", notional=2e6, notional_share=0.1, **(unsure() | few)))
    rows.append(cell("month", month, member="AGGRESSIVE", **(unsure() | few | {"orders": 25, "excess_orders": 25})))
    rows += [row | {"dimension": "strategy", "member": name} for row in rows[:2] for name in ("momentum", "pairs")]
    return rows


def _real_venues():
    month = date(2024, 8, 1)
    rows = []
    for name, share in zip(VENUES, (0.6, 0.38, 0.02), strict=True):
        rows.append(venue_cell(name, notional=share * 3e7, notional_share=share, **unsure()))
        rows.append(
            venue_cell(
                name,
                "month",
                month,
                excess_orders=600,
                excess_cost_bps=0.2,
                excess_t=0.6,
                excess_low_bps=-0.4,
                excess_high_bps=0.8,
                q_value=0.6,
                is_discovery=False,
            )
        )
    return rows


def _impact(row, rng):
    own = {name: row[name] for name in ("ts_event", "order_id", "symbol", "ts_known")}
    total = row.get("arrival_cost_bps")
    stays = None if total is None else total * 0.4 + float(rng.normal(0, 1))
    parts = {"total_bps": total, "permanent_bps": stays, "temporary_bps": None if total is None else total - stays}
    return own | parts | {"status": "ok", "baseline_status": "ok"}


def _fit(measure, y):
    fitted = {"y": y, "y_low": y - 0.2, "y_high": y + 0.2, "exponent": 0.55, "exponent_low": 0.4, "exponent_high": 0.7}
    return {
        "date": DATE,
        "ts_known": MIDNIGHT,
        "measure": measure,
        "skill_orders": 600,
        "orders": 2400,
        "days": 6,
        "status": "ok",
        "skill_status": "ok",
    } | fitted
