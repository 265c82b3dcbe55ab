"""Recipes of `microstructure/*`: the signed tape, and what is made from it and from the book. No arithmetic here."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

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
from quant_platform.pipeline.units import Built, Fold, Input, Recipe, Streams, Work
from quant_platform.settings import Instrument, Settings
from quant_platform.storage import discovered

_TRADES = "market/trades"
_QUOTES = "market/quotes"
_BOOK = "market/book"
_TAPE = "microstructure/signed_trades"
_BUCKETS = "microstructure/vpin_buckets"
_VPIN = "microstructure/vpin"
_MINUTE_BARS = "market/bars_1m"
_GAMMA_EXPOSURE = "options/gamma_exposure"
_MINUTE_S = 60
# What a rule sees of the trades before a window: series and sweeps that began earlier.
_CONTEXT_TRADES = 5_000


def _no_signs(_: Work) -> trade_sign.State:
    return trade_sign.initial()


def _signed_trades(work: Work, state: trade_sign.State, streams: Streams) -> tuple[trade_sign.State, Built]:
    trades, quotes = (streams[table].collect() for table in (_TRADES, _QUOTES))
    state, tape = trade_sign.step(state, trades, quotes, work.settings.analytics.trade_sign)
    named = tape.rename({"ts_recv": "ts_known"}).cast({"rule": pl.String})
    return state, Built(named.select(polars_schema(contract_of(_TAPE)).names()))


@dataclass(frozen=True)
class VpinState:
    """The fold's own, the bucket sizes that hold for the date, and the earlier values that a CDF compares with."""

    fold: vpin.State
    sizes: pl.DataFrame
    reference: pl.DataFrame


def _vpin_opened(work: Work) -> VpinState:
    params, minutes = vpin_params(work.settings), work.earlier(_MINUTE_BARS).collect()
    volumes = minutes.group_by("symbol", date=pl.col("ts_open").dt.date()).agg(pl.col("volume").sum())
    symbol, size = work.unit.symbol, _discovered_size(work)
    sizes = vpin.bucket_sizes(
        volumes,
        discovered={symbol: size} if size else None,
        defaults={symbol: work.instrument.default_bucket_size},
    )
    if params.bar_s:
        changes = vpin.price_change_std(bars.cascade(minutes, params.bar_s))
        sizes = sizes.join(changes, on="symbol", how="left", maintain_order="left")
    state, before = vpin.initial(), _tape(work.earlier(_TAPE))
    if before.height:
        state = vpin.opened(vpin.step(state, before, sizes, params)[0])
    return VpinState(state, sizes, vpin.reference(work.earlier(_BUCKETS).select("symbol", "ts_end", "vpin").collect()))


def _discovered_size(work: Work) -> float | None:
    return discovered.bucket_size(work.settings.landing, work.unit.symbol, work.unit.date)


def _vpin_buckets(work: Work, state: VpinState, streams: Streams) -> tuple[VpinState, Built]:
    fold, rows = vpin.step(state.fold, _tape(streams[_TAPE]), state.sizes, vpin_params(work.settings))
    return replace(state, fold=fold), Built(rows.buckets)


def _vpin(work: Work, state: VpinState, streams: Streams) -> tuple[VpinState, Built]:
    params = vpin_params(work.settings)
    fold, rows = vpin.step(state.fold, _tape(streams[_TAPE]), state.sizes, params)
    return replace(state, fold=fold), Built(vpin.standardised(rows.samples, state.reference, params))


class _BookState(NamedTuple):
    """The fold's own, and the table that it is fed from: books, or quotes where the date has no books."""

    fold: order_book.State
    source: str | None = None


def _no_books(_: Work) -> _BookState:
    return _BookState(order_book.initial())


def _order_book_imbalance(work: Work, state: _BookState, streams: Streams) -> tuple[_BookState, Built]:
    books = streams[state.source or _BOOK].collect()
    source = state.source or (_BOOK if books.height else _QUOTES)
    if source != (state.source or _BOOK):
        books = streams[source].collect()
    fold, rows = order_book.step(state.fold, books, work.settings.analytics.order_book)
    return _BookState(fold, source if books.height else None), Built(rows)


def toxicity_params(settings: Settings, instrument: Instrument) -> toxicity.ToxicityParams:
    """Return what holds for an instrument: which venues are dark depends on its feed."""
    params = settings.analytics.toxicity_heuristics
    return replace(params, institutional=_institutional(settings, instrument, params.institutional))


def _toxicity_opened(work: Work) -> toxicity.State:
    params = toxicity_params(work.settings, work.instrument)
    no_values = _vpin_values(work.lake.scan(_VPIN, []))
    return toxicity.step(toxicity.initial(), _warm_up(work, params.window_trades), no_values, params)[0]


def _toxicity(work: Work, state: toxicity.State, streams: Streams) -> tuple[toxicity.State, Built]:
    values = _vpin_values(streams[_VPIN])
    params = toxicity_params(work.settings, work.instrument)
    state, rows = toxicity.step(state, _tape(streams[_TAPE]), values, params)
    return state, Built(rows)


def _vpin_values(rows: pl.LazyFrame) -> pl.DataFrame:
    return rows.select("symbol", "ts_open", "vpin", "ts_known").collect()


def participant_params(settings: Settings, instrument: Instrument) -> participants.ParticipantParams:
    """Return what holds for an instrument, as `toxicity_params` does."""
    params = settings.analytics.participant_flow
    return replace(params, institutional=_institutional(settings, instrument, params.institutional))


def _participant_flow_opened(work: Work) -> participants.State:
    params = participant_params(work.settings, work.instrument)
    return participants.step(participants.initial(), _warm_up(work, params.window_trades), params)[0]


def _participant_flow(work: Work, state: participants.State, streams: Streams) -> tuple[participants.State, Built]:
    state, rows = participants.step(state, _tape(streams[_TAPE]), participant_params(work.settings, work.instrument))
    return state, Built(rows)


def _sweeps_opened(work: Work) -> sweeps.State:
    params = work.settings.analytics.sweep_detection
    return sweeps.step(sweeps.initial(), _warm_up(work, params.window_trades), params)[0]


def _sweeps(work: Work, state: sweeps.State, streams: Streams) -> tuple[sweeps.State, Built]:
    state, rows = sweeps.step(state, _tape(streams[_TAPE]), work.settings.analytics.sweep_detection)
    return state, Built(rows)


def _no_orders(_: Work) -> hidden_orders.State:
    return hidden_orders.initial()


def hidden_order_params(settings: Settings, instrument: Instrument) -> hidden_orders.HiddenOrderParams:
    """Return what holds for an instrument, as `toxicity_params` does."""
    params = settings.analytics.hidden_orders
    return replace(params, dark_venues=params.dark_venues or settings.dark_venues(instrument))


def _hidden_orders(work: Work, state: hidden_orders.State, streams: Streams) -> tuple[hidden_orders.State, Built]:
    params = hidden_order_params(work.settings, work.instrument)
    state, rows = hidden_orders.step(state, _tape(streams[_TAPE]), streams[_QUOTES].collect(), params)
    return state, Built(rows)


def _flow_clusters_opened(work: Work) -> flow_clusters.State:
    params = work.settings.analytics.flow_clustering
    return flow_clusters.step(flow_clusters.initial(), _warm_up(work, params.window_trades), params)[0]


def _flow_clusters(work: Work, state: flow_clusters.State, streams: Streams) -> tuple[flow_clusters.State, Built]:
    state, rows = flow_clusters.step(state, _tape(streams[_TAPE]), work.settings.analytics.flow_clustering)
    return state, Built(rows)


def _closing_imbalance(work: Work) -> Built:
    if work.instrument.calendar == ALWAYS_OPEN or work.session is None:
        return Built(empty(contract_of("microstructure/closing_imbalance")))
    params = work.settings.analytics.closing_auction
    minutes, quotes = work.today(_MINUTE_BARS), work.today(_QUOTES)
    imbalances = work.today("microstructure/order_book_imbalance")
    whole = pl.col("strike").is_null() & pl.col("expiry").is_null()
    exposures = work.today(_GAMMA_EXPOSURE).filter(whole).select("ts_event", "gex_net", "ts_known")
    inputs = closing_auction.minute_inputs(
        minutes, quotes, imbalances, exposures, ts_close=work.session.end, params=params
    )
    return Built(closing_auction.closing_imbalance(inputs, params))


def _tape(rows: pl.LazyFrame) -> pl.DataFrame:
    return rows.rename({"ts_known": "ts_recv"}).collect()


def _warm_up(work: Work, window_trades: int) -> pl.DataFrame:
    return _tape(work.earlier(_TAPE).tail(_CONTEXT_TRADES + window_trades))


def _institutional(settings: Settings, instrument: Instrument, params: InstitutionalParams) -> InstitutionalParams:
    return replace(params, dark_venues=params.dark_venues or settings.dark_venues(instrument))


def vpin_params(settings: Settings) -> vpin.VpinParams:
    """Return how VPIN is computed, how the tape is signed included."""
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


def _window(
    name: str,
    opened: Callable[[Work], Any],
    step: Callable[[Work, Any, Streams], tuple[Any, Built]],
    calculator: ModuleType,
    section: str,
    *inputs: Input,
) -> Recipe:
    every = (Input(_TAPE, lookback_sessions=calculator.LOOKBACK_SESSIONS), *inputs)
    fold = Fold(opened, step, tuple(read.table for read in every))
    return Recipe(f"microstructure/{name}", fold, (calculator.__name__,), every, parameters=_section(section))


_VPIN_INPUTS = (
    Input(_TAPE, lookback_sessions=vpin.LOOKBACK_SESSIONS),
    Input(_MINUTE_BARS, lookback_sessions=vpin.SIZE_LOOKBACK_SESSIONS),
)
ORDER_FLOW = (
    Recipe(
        _TAPE,
        Fold(_no_signs, _signed_trades, (_TRADES, _QUOTES)),
        (trade_sign.__name__,),
        (Input(_TRADES), Input(_QUOTES, is_optional=True)),
        parameters=lambda settings: asdict(settings.analytics.trade_sign),
    ),
    Recipe(
        _BUCKETS,
        Fold(_vpin_opened, _vpin_buckets, (_TAPE,)),
        (vpin.__name__,),
        _VPIN_INPUTS,
        parameters=lambda settings: asdict(vpin_params(settings)),
        archived=_discovered_size,
    ),
    Recipe(
        _VPIN,
        Fold(_vpin_opened, _vpin, (_TAPE,)),
        (vpin.__name__,),
        (*_VPIN_INPUTS, Input(_BUCKETS, lookback_sessions=vpin.CDF_LOOKBACK_SESSIONS)),
        parameters=lambda settings: asdict(vpin_params(settings)),
        archived=_discovered_size,
    ),
    Recipe(
        "microstructure/order_book_imbalance",
        Fold(_no_books, _order_book_imbalance, (_BOOK, _QUOTES)),
        (order_book.__name__,),
        (Input(_BOOK, is_optional=True), Input(_QUOTES, is_optional=True)),
        parameters=lambda settings: asdict(settings.analytics.order_book),
    ),
    _window("toxicity", _toxicity_opened, _toxicity, toxicity, "toxicity_heuristics", Input(_VPIN)),
    _window("participant_flow", _participant_flow_opened, _participant_flow, participants, "participant_flow"),
    _window("sweeps", _sweeps_opened, _sweeps, sweeps, "sweep_detection"),
    _window(
        "hidden_orders",
        _no_orders,
        _hidden_orders,
        hidden_orders,
        "hidden_orders",
        Input(_QUOTES, is_optional=True),
    ),
    Recipe(
        "microstructure/closing_imbalance",
        _closing_imbalance,
        (closing_auction.__name__,),
        (
            Input(_MINUTE_BARS),
            Input(_QUOTES, is_optional=True),
            Input("microstructure/order_book_imbalance", is_optional=True),
            Input(_GAMMA_EXPOSURE, is_optional=True),
        ),
        parameters=lambda settings: asdict(settings.analytics.closing_auction),
    ),
    _window("flow_clusters", _flow_clusters_opened, _flow_clusters, flow_clusters, "flow_clustering"),
)
