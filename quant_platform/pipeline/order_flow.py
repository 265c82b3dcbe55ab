"""Recipes of `microstructure/*`: the signed tape, and what is made from it and from the book. No arithmetic here."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from types import ModuleType
from typing import Any

import polars as pl

from quant_platform.calculators import (
    bars,
    closing_auction,
    flow_clusters,
    hidden_orders,
    order_book,
    participants,
    sweeps,
    toxicity,
    trade_sign,
    vpin,
)
from quant_platform.calculators.participants import InstitutionalParams
from quant_platform.contracts._schema import contract_of, empty, polars_schema
from quant_platform.contracts.enums import Signing
from quant_platform.pipeline.sessions import ALWAYS_OPEN
from quant_platform.pipeline.units import Built, Input, Recipe, Work
from quant_platform.settings import Settings

_TAPE = "microstructure/signed_trades"
_BUCKETS = "microstructure/vpin_buckets"
_VPIN = "microstructure/vpin"
_MINUTE_BARS = "market/bars_1m"
_MINUTE_S = 60
# What a rule sees of the trades before a window: series and sweeps that began earlier.
_CONTEXT_TRADES = 5_000


def _signed_trades(work: Work) -> Built:
    trades, quotes = (work.scan(table).collect() for table in ("market/trades", "market/quotes"))
    tape = trade_sign.signed(trades, quotes, work.settings.analytics.trade_sign)
    named = tape.rename({"ts_recv": "ts_known"}).cast({"rule": pl.String})
    return Built(named.select(polars_schema(contract_of(_TAPE)).names()))


def _vpin_buckets(work: Work) -> Built:
    return Built(_vpin_rows(work).buckets)


def _vpin(work: Work) -> Built:
    reference = vpin.reference(work.earlier(_BUCKETS).select("symbol", "ts_end", "vpin").collect())
    return Built(vpin.standardised(_vpin_rows(work).samples, reference, _vpin_params(work.settings)))


def _vpin_rows(work: Work) -> vpin.Rows:
    params, minutes = _vpin_params(work.settings), work.earlier(_MINUTE_BARS).collect()
    volumes = minutes.group_by("symbol", date=pl.col("ts_open").dt.date()).agg(pl.col("volume").sum())
    sizes = vpin.bucket_sizes(volumes, defaults={work.unit.symbol: work.instrument.default_bucket_size})
    if params.bar_s:
        changes = vpin.price_change_std(bars.cascade(minutes, params.bar_s))
        sizes = sizes.join(changes, on="symbol", how="left", maintain_order="left")
    state, before = vpin.initial(), _tape(work.earlier(_TAPE))
    if before.height:
        state = vpin.opened(vpin.step(state, before, sizes, params)[0])
    return vpin.step(state, _tape(work.today(_TAPE)), sizes, params)[1]


def _order_book_imbalance(work: Work) -> Built:
    books = work.today("market/book").collect()
    if books.is_empty():
        books = work.today("market/quotes").collect()
    return Built(order_book.order_book_imbalance(books, work.settings.analytics.order_book))


def _toxicity(work: Work) -> Built:
    params = work.settings.analytics.toxicity_heuristics
    params = replace(params, institutional=_institutional(work, params.institutional))
    before, today = _warm_up_and_today(work, params.window_trades)
    values = work.today(_VPIN).select("symbol", "ts_open", "vpin", "ts_known").collect()
    state, _ = toxicity.step(toxicity.initial(), before, values.clear(), params)
    return Built(toxicity.step(state, today, values, params)[1])


def _participant_flow(work: Work) -> Built:
    params = work.settings.analytics.participant_flow
    params = replace(params, institutional=_institutional(work, params.institutional))
    before, today = _warm_up_and_today(work, params.window_trades)
    state, _ = participants.step(participants.initial(), before, params)
    return Built(participants.step(state, today, params)[1])


def _sweeps(work: Work) -> Built:
    params = work.settings.analytics.sweep_detection
    before, today = _warm_up_and_today(work, params.window_trades)
    state, _ = sweeps.step(sweeps.initial(), before, params)
    return Built(sweeps.step(state, today, params)[1])


def _hidden_orders(work: Work) -> Built:
    params = work.settings.analytics.hidden_orders
    dark = params.dark_venues or work.settings.dark_venues(work.instrument)
    tape, quotes = _tape(work.today(_TAPE)), work.today("market/quotes").collect()
    return Built(hidden_orders.hidden_orders(tape, quotes, replace(params, dark_venues=dark)))


def _flow_clusters(work: Work) -> Built:
    params = work.settings.analytics.flow_clustering
    before, today = _warm_up_and_today(work, params.window_trades)
    state, _ = flow_clusters.step(flow_clusters.initial(), before, params)
    return Built(flow_clusters.step(state, today, params)[1])


def _closing_imbalance(work: Work) -> Built:
    if work.instrument.calendar == ALWAYS_OPEN or work.session is None:
        return Built(empty(contract_of("microstructure/closing_imbalance")))
    params = work.settings.analytics.closing_auction
    minutes, quotes = work.today(_MINUTE_BARS), work.today("market/quotes")
    imbalances = work.today("microstructure/order_book_imbalance")
    inputs = closing_auction.minute_inputs(minutes, quotes, imbalances, work.session.end, params)
    return Built(closing_auction.closing_imbalance(inputs, params))


def _tape(rows: pl.LazyFrame) -> pl.DataFrame:
    return rows.rename({"ts_known": "ts_recv"}).collect()


def _warm_up_and_today(work: Work, window_trades: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    return _tape(work.earlier(_TAPE).tail(_CONTEXT_TRADES + window_trades)), _tape(work.today(_TAPE))


def _institutional(work: Work, params: InstitutionalParams) -> InstitutionalParams:
    return replace(params, dark_venues=params.dark_venues or work.settings.dark_venues(work.instrument))


def _vpin_params(settings: Settings) -> vpin.VpinParams:
    section = settings.analytics.vpin
    bulk_s = section.bvc_bar_s
    return vpin.VpinParams(
        **section.model_dump(exclude={"bvc_bar_s"}),
        signing=Signing.BVC if bulk_s else settings.analytics.trade_sign.signing,
        bar_s=bulk_s,
    )


def _section(name: str) -> Callable[[Settings], Mapping[str, Any]]:
    def parameters(settings: Settings) -> Mapping[str, Any]:
        values: Mapping[str, Any] = settings.analytics.model_dump(mode="json", include={name})
        return {**values, "dark_venues": settings.feeds.recorded_lean.dark_venues}

    return parameters


def _window(name: str, build: Callable[[Work], Built], calculator: ModuleType, section: str, *inputs: Input) -> Recipe:
    code = (calculator.__name__,)
    tape = Input(_TAPE, lookback_sessions=calculator.LOOKBACK_SESSIONS)
    return Recipe(f"microstructure/{name}", build, code, (tape, *inputs), parameters=_section(section))


_VPIN_INPUTS = (
    Input(_TAPE, lookback_sessions=vpin.LOOKBACK_SESSIONS),
    Input(_MINUTE_BARS, lookback_sessions=vpin.SIZE_LOOKBACK_SESSIONS),
)
ORDER_FLOW = (
    Recipe(
        _TAPE,
        _signed_trades,
        (trade_sign.__name__,),
        (Input("market/trades"), Input("market/quotes", is_optional=True)),
        parameters=lambda settings: asdict(settings.analytics.trade_sign),
    ),
    Recipe(_BUCKETS, _vpin_buckets, (vpin.__name__,), _VPIN_INPUTS, parameters=lambda s: asdict(_vpin_params(s))),
    Recipe(
        _VPIN,
        _vpin,
        (vpin.__name__,),
        (*_VPIN_INPUTS, Input(_BUCKETS, lookback_sessions=vpin.CDF_LOOKBACK_SESSIONS)),
        parameters=lambda settings: asdict(_vpin_params(settings)),
    ),
    Recipe(
        "microstructure/order_book_imbalance",
        _order_book_imbalance,
        (order_book.__name__,),
        (Input("market/book", is_optional=True), Input("market/quotes", is_optional=True)),
        parameters=lambda settings: asdict(settings.analytics.order_book),
    ),
    _window("toxicity", _toxicity, toxicity, "toxicity_heuristics", Input(_VPIN)),
    _window("participant_flow", _participant_flow, participants, "participant_flow"),
    _window("sweeps", _sweeps, sweeps, "sweep_detection"),
    _window("hidden_orders", _hidden_orders, hidden_orders, "hidden_orders", Input("market/quotes", is_optional=True)),
    Recipe(
        "microstructure/closing_imbalance",
        _closing_imbalance,
        (closing_auction.__name__,),
        (
            Input(_MINUTE_BARS),
            Input("market/quotes", is_optional=True),
            Input("microstructure/order_book_imbalance", is_optional=True),
        ),
        parameters=lambda settings: asdict(settings.analytics.closing_auction),
    ),
    _window("flow_clusters", _flow_clusters, flow_clusters, "flow_clustering"),
)
