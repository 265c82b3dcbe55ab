"""Recipes of `options/*`, of what follows from chains in `volatility/*`, and of `microstructure/unusual_activity`.

What is computed of a chain is computed by the same functions for a date's snapshots and for the one that came now.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from pathlib import Path
from typing import Any

import polars as pl

from quant_platform.calculators import (
    black_scholes,
    chain_quality,
    dealer_exposure,
    exposure_history,
    implied_vol,
    option_chain,
    skew,
    unusual_activity,
    variance_strip,
    vol_surface,
)
from quant_platform.contracts._schema import empty
from quant_platform.contracts.options import OptionChain
from quant_platform.feeds import chain_snapshot, lean_options
from quant_platform.feeds.option_chain import ChainError
from quant_platform.pipeline.units import Built, Input, Recipe, Source, Work, section_of
from quant_platform.settings import Instrument, Settings
from quant_platform.storage import chain_archive
from quant_platform.storage.quarantine import SCHEMA as QUARANTINE

CHAIN = OptionChain.table
GREEKS = "options/greeks"
GAMMA_EXPOSURE = "options/gamma_exposure"
DEALER_FLOW = "options/dealer_flow"
SKEW = "options/skew"
EXPOSURE_HISTORY = "options/exposure_history"
VOL_SURFACE = "options/vol_surface"
VARIANCE_STRIPS = "volatility/variance_strips"
VIX1D_PROXY = "volatility/vix1d_proxy"
UNUSUAL_ACTIVITY = "microstructure/unusual_activity"
CHAIN_QUALITY = "options/chain_quality"

QUALITY_MEASURES = {
    "is_crossed": "crossed_share",
    "is_parity_broken": "parity_share",
    "is_underlying_stale": "underlying_gap",
    "is_open_interest_off": "open_interest_change",
}
"""What a snapshot may have wrong, and the measure that says so. A file of `CHAIN_QUALITY` has a fact of each: JSON,
`snapshots` judged, those `wrong`, and the `worst` value."""

HISTORY_SESSIONS = 10
"""Sessions in which the longest window of exposures is looked for."""

_SNAPSHOT = ("symbol", "ts_event")
_OF_GREEKS = ("iv", "delta", "gamma", "vanna", "charm_per_year")


def valued(chain: pl.DataFrame, instruments: Mapping[str, Instrument]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a chain with what it costs to hold its underlyings, and with volatilities; and its greeks.

    Args:
        chain: Contract `OptionChain`, receipt filled, any number of underlyings and snapshots.
        instruments: Of each symbol in it.

    Returns:
        The chain with `rate dividend iv iv_source`, and contract `OptionGreeks` row by row.
    """
    held = implied_vol.with_volatility(implied_vol.with_underlying(_with_carry(chain, instruments)))
    return held, black_scholes.chain_greeks(held)


def exposures(held: pl.DataFrame, greeks: pl.DataFrame, settings: Settings) -> dict[str, pl.DataFrame]:
    """Return what `valued` gives as rows of the tables of exposures, by table.

    Args:
        held: The chain.
        greeks: Contract `OptionGreeks`, row by row of the chain.
        settings: The whole tree.
    """
    chain, analytics = _chain(held, greeks), settings.analytics
    return {
        GAMMA_EXPOSURE: dealer_exposure.gamma_exposure(chain, analytics.gamma_exposure),
        DEALER_FLOW: dealer_exposure.dealer_flow(chain, analytics.dealer_flow),
        SKEW: skew.skew(chain, analytics.skew),
    }


def unusual(chain: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Return contract `UnusualActivity` of the snapshots of a chain, receipt filled."""
    bid, ask = pl.col("bid"), pl.col("ask")
    snapshots = chain.lazy().group_by(_SNAPSHOT, maintain_order=True).agg(ts_known=pl.col("ts_recv").max())
    priced = chain.lazy().with_columns(price=pl.coalesce(pl.when(ask >= bid).then((bid + ask) / 2), "last"))
    return unusual_activity.unusual_activity(snapshots, priced, settings.analytics.unusual_activity)


def archived_day(settings: Settings, instrument: Instrument, date: Date) -> list[Path]:
    """Return the files of an instrument's polled chain on a date: the captured ones, else those simulated."""
    assert instrument.chain is not None
    roots = (settings.landing / "chains", settings.simulated_chains)
    found = (chain_archive.paths(root, instrument.chain.feed, instrument.symbol, date) for root in roots)
    return next((paths for paths in found if paths), [])


def _fetched(work: Work) -> Source | None:
    if work.instrument.chain is None:
        return None
    if work.instrument.polled_chain is None:
        return _recorded(work)
    paths = archived_day(work.settings, work.instrument, work.unit.date)
    if not paths:
        return None
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return Source(f"{len(paths)} snapshots of {work.instrument.chain.feed}", digest.hexdigest(), paths)


def _recorded(work: Work) -> Source | None:
    chain, folder = work.instrument.chain, work.settings.feeds.recorded_lean_options.path
    assert chain is not None
    assert folder is not None  # settings refuse an instrument of this feed without one
    recording = lean_options.find(folder, chain.venue_symbol, work.unit.date)
    if recording is None:
        return None
    return Source(", ".join(path.name for path in recording.files), recording.fingerprint(), recording)


def _chain_day(work: Work) -> Built:
    assert work.source is not None  # a unit with no source is absent and never built
    chain = work.instrument.chain
    assert chain is not None
    if work.instrument.polled_chain is None:
        found = lean_options.read_day(
            work.source.handle, symbol=work.unit.symbol, venue_symbol=chain.venue_symbol, date=work.unit.date
        )
        return Built(found.rows, found.quarantined, found.facts)
    rows, quarantined = [empty(OptionChain)], [_NOTHING_QUARANTINED]
    for path in work.source.handle:
        try:
            parsed = chain_snapshot.rows_of(chain.feed, chain_archive.read(path), symbol=work.unit.symbol)
        except (ChainError, chain_archive.UnreadableSnapshotError) as error:
            quarantined.append(_unreadable(path.name, str(error)))
            continue
        rows.append(parsed.rows)
        quarantined.append(parsed.quarantined)
    together = pl.concat(rows).sort(OptionChain.sorted_by, maintain_order=True)
    return Built(together, pl.concat(quarantined), {"snapshots": str(len(rows) - 1)})


def _unreadable(name: str, reason: str) -> pl.DataFrame:
    return pl.DataFrame([("snapshot|unreadable", name, 1, reason)], _NOTHING_QUARANTINED.schema, orient="row")


def _greeks(work: Work) -> Built:
    return Built(valued(work.today(CHAIN).collect(), _instruments(work))[1])


def _gamma_exposure(work: Work) -> Built:
    chain = _with_greeks(work)
    return Built(dealer_exposure.gamma_exposure(chain, work.settings.analytics.gamma_exposure))


def _dealer_flow(work: Work) -> Built:
    return Built(dealer_exposure.dealer_flow(_with_greeks(work), work.settings.analytics.dealer_flow))


def _skew(work: Work) -> Built:
    return Built(skew.skew(_with_greeks(work), work.settings.analytics.skew))


def _exposure_history(work: Work) -> Built:
    tables = (GAMMA_EXPOSURE, DEALER_FLOW, SKEW)
    values = exposure_history.exposure_values(*(work.today(table).collect() for table in tables))
    earlier = exposure_history.exposure_values(*(work.earlier(table).collect() for table in tables))
    return Built(exposure_history.exposure_history(values, earlier, work.settings.analytics.exposure_history))


def _vol_surface(work: Work) -> Built:
    iv = work.today(GREEKS).select("iv").collect()
    chain = implied_vol.with_underlying(_carried(work)).with_columns(iv.to_series())
    return Built(vol_surface.vol_surface(chain, work.settings.analytics.vol_surface))


def _variance_strips(work: Work) -> Built:
    return Built(variance_strip.variance_strips(_carried(work)))


def _vix1d_proxy(work: Work) -> Built:
    return Built(variance_strip.vix1d_proxy(work.today(VARIANCE_STRIPS).collect(), work.settings.analytics.vix1d_proxy))


def _chain_quality(work: Work) -> Built:
    chain = _carried(work)
    earlier = work.earlier(CHAIN).select("symbol", *OptionChain.sorted_by, "open_interest").collect()
    rows = chain_quality.chain_quality(chain, earlier, work.settings.analytics.chain_quality)
    facts = {flag: _judged(rows, flag, measure) for flag, measure in QUALITY_MEASURES.items()}
    return Built(rows, facts=facts)


def _judged(rows: pl.DataFrame, flag: str, measure: str) -> str:
    told = rows.filter(pl.col(measure).is_not_null())
    worst = told[measure].gather(told[measure].abs().arg_sort(descending=True).head(1)).to_list()
    return json.dumps({"snapshots": told.height, "wrong": int(rows[flag].sum()), "worst": worst[0] if worst else None})


def _unusual_activity(work: Work) -> Built:
    return Built(unusual(work.today(CHAIN).collect(), work.settings))


def _instruments(work: Work) -> dict[str, Instrument]:
    return {work.unit.symbol: work.instrument}


def _carried(work: Work) -> pl.DataFrame:
    return _with_carry(work.today(CHAIN).collect(), _instruments(work))


def _with_greeks(work: Work) -> option_chain.Chain:
    greeks = work.today(GREEKS).select(*OptionChain.sorted_by, *_OF_GREEKS).collect()
    return _chain(implied_vol.with_underlying(_carried(work)), greeks)


def _with_carry(chain: pl.DataFrame, instruments: Mapping[str, Instrument]) -> pl.DataFrame:
    listed = {symbol: one.chain for symbol, one in instruments.items() if one.chain}
    return chain.with_columns(
        pl.col("symbol")
        .replace_strict({s: getattr(one, name) for s, one in listed.items()}, default=None, return_dtype=pl.Float64)
        .alias(name)
        for name in ("rate", "dividend")
    )


def _chain(held: pl.DataFrame, greeks: pl.DataFrame) -> option_chain.Chain:
    """Return the contracts of a chain, with the greeks that stand row by row beside it, as arrays."""
    if not all(greeks[name].equals(held[name]) for name in OptionChain.sorted_by):
        raise ValueError("The greeks are of other contracts than the chain, or in another order.")
    of_chain = (name for name in held.columns if name not in _OF_GREEKS)
    contracts = pl.DataFrame(
        [*(held.get_column(name) for name in of_chain), *(greeks.get_column(name) for name in _OF_GREEKS)]
    )
    return option_chain.option_chain(option_chain.chain_snapshots(held), contracts)


def _raw_parameters(settings: Settings) -> Mapping[str, Any]:
    return {"max_quarantined_share": settings.quality.max_quarantined_share}


_NOTHING_QUARANTINED = pl.DataFrame(
    schema={name: QUARANTINE[name] for name in ("rule", "source_file", "source_line", "raw")}
)
_MODEL = (black_scholes.__name__, implied_vol.__name__)
_OF_EXPOSURES = (dealer_exposure.__name__, option_chain.__name__)
_CHAIN_AND_GREEKS = (Input(CHAIN), Input(GREEKS))
OPTIONS = (
    Recipe(
        CHAIN,
        _chain_day,
        tuple(f"quant_platform.feeds.{name}" for name in ("chain_snapshot", "lean_options")),
        fetch=_fetched,
        parameters=_raw_parameters,
    ),
    Recipe(
        CHAIN_QUALITY,
        _chain_quality,
        (chain_quality.__name__,),
        (Input(CHAIN, lookback_sessions=chain_quality.LOOKBACK_SESSIONS),),
        parameters=section_of("chain_quality"),
    ),
    Recipe(GREEKS, _greeks, _MODEL, (Input(CHAIN),)),
    Recipe(GAMMA_EXPOSURE, _gamma_exposure, _OF_EXPOSURES, _CHAIN_AND_GREEKS, parameters=section_of("gamma_exposure")),
    Recipe(DEALER_FLOW, _dealer_flow, _OF_EXPOSURES, _CHAIN_AND_GREEKS, parameters=section_of("dealer_flow")),
    Recipe(SKEW, _skew, (skew.__name__, option_chain.__name__), _CHAIN_AND_GREEKS, parameters=section_of("skew")),
    Recipe(
        EXPOSURE_HISTORY,
        _exposure_history,
        (exposure_history.__name__,),
        tuple(Input(table, lookback_sessions=HISTORY_SESSIONS) for table in (GAMMA_EXPOSURE, DEALER_FLOW, SKEW)),
        parameters=section_of("exposure_history"),
    ),
    Recipe(VOL_SURFACE, _vol_surface, (vol_surface.__name__,), _CHAIN_AND_GREEKS, parameters=section_of("vol_surface")),
    Recipe(VARIANCE_STRIPS, _variance_strips, (variance_strip.__name__,), (Input(CHAIN),)),
    Recipe(
        VIX1D_PROXY,
        _vix1d_proxy,
        (variance_strip.__name__,),
        (Input(VARIANCE_STRIPS),),
        parameters=section_of("vix1d_proxy"),
    ),
    Recipe(
        UNUSUAL_ACTIVITY,
        _unusual_activity,
        (unusual_activity.__name__,),
        (Input(CHAIN),),
        parameters=section_of("unusual_activity"),
    ),
)
