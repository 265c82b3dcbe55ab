"""QuantConnect Lean's US options to chain rows: a day's minutes of quotes, trades and open interest, and its universe.

A zip of minutes holds one CSV without a header per contract, named DATE_ROOT_minute_KIND_STYLE_RIGHT_STRIKE_EXPIRY.csv,
the strike times 10,000. Times are milliseconds since midnight in New York at which a minute begins, prices dollars
times 10,000. A minute is known when it ends: that is the row's time, with the quote, the last trade and the open
interest as they stand then. A universe is a day's chain at the close, with Lean's own volatility and greeks: vega per
vol point, theta per day.
"""

import datetime as dt
import gzip
import re
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from quant_platform.contracts._schema import INSTANT
from quant_platform.contracts.options import OptionChain
from quant_platform.feeds import osi
from quant_platform.feeds.option_chain import (
    ChainError,
    cells,
    instant_ns,
    instant_of,
    line_origins,
    numbers,
    parted,
)
from quant_platform.feeds.recorded import Parsed, Recording, dollars, files_in, midnight_ns, take_out, within
from quant_platform.feeds.sheet import LINE, inflated, line_text

VENUE = "recorded_lean"
INDEX, EQUITY = 1.0, 10_000.0
"""What the prices of an underlying's minutes are multiplied by."""

_MULTIPLIER = 100.0
_MINUTE_MS, _NS_PER_MS = 60_000, 1_000_000
_CLOSE, _NEW_YORK = dt.time(16), ZoneInfo("America/New_York")
_MEMBER = re.compile(
    r"(?P<date>\d{8})_(?P<root>.+)_minute_(?P<kind>trade|quote|openinterest)_(?:american|european)_"
    r"(?P<right>call|put)_(?P<strike>\d+)_(?P<expiry>\d{8})\.csv"
)
_BAR = ("open", "high", "low", "close")
_CELLS = {
    "quote": (
        "ms",
        *(f"bid_{name}" for name in _BAR),
        "bid_size",
        *(f"ask_{name}" for name in _BAR),
        "ask_size",
    ),
    "trade": ("ms", *_BAR, "volume"),
    "openinterest": ("ms", "open_interest"),
}
_FIGURES = {
    "quote": ("ms", "bid_close", "bid_size", "ask_close", "ask_size"),
    "trade": ("ms", "close", "volume"),
    "openinterest": ("ms", "open_interest"),
}
_UNIVERSE = (
    "expiry_text",
    "strike_text",
    "right",
    *_BAR,
    "volume",
    "open_interest",
    "iv",
    "delta",
    "gamma",
    "vega",
    "theta",
    "rho",
)
_UNIVERSE_HEADER = (
    "#expiry,strike,right,open,high,low,close,volume,open_interest,implied_volatility,delta,gamma,vega,theta,rho"
)
_GREEKS = ("delta", "gamma", "vega", "theta")


def find(folder: Path, venue_symbol: str, date: dt.date) -> Recording | None:
    """Return the files of an underlying's options on a date; None where the folder has none.

    Args:
        folder: Lean's data folder, the one that holds `option` and `indexoption`; or one where the same files lie flat,
            the underlying's name before theirs.
        venue_symbol: The underlying's name there, in any case.
        date: New York's.

    Raises:
        RecordedError: There is no such folder.
    """
    flat, name, day = files_in(folder), venue_symbol.lower(), f"{date:%Y%m%d}"
    for kind, underlying in (("option", "equity"), ("indexoption", "index")):
        minutes, spots = (folder / tree / "usa" / "minute" / name for tree in (kind, underlying))
        own = [path for what in _FIGURES for path in sorted(minutes.glob(f"{day}_{what}_*.zip"))]
        if own:
            return Recording(own=(*own, *sorted(spots.glob(f"{day}_trade.zip"))))
        universe = folder / kind / "usa" / "universes" / name / f"{day}.csv"
        if universe.is_file():
            return Recording(own=(universe,))
    own = [path for what in _FIGURES for path in flat if path.name.startswith(f"{name}_{day}_{what}_")]
    own += [path for path in flat if own and path.name == f"und_{name}_{day}_trade.zip"]
    own = own or [path for path in flat if path.name.startswith(f"universe_{name}_{day}.csv")]
    return Recording(own=tuple(own)) if own else None


def read_day(recording: Recording, *, symbol: str, venue_symbol: str, date: dt.date) -> Parsed:
    """Return the snapshots of a date: of minutes the state at each half hour, of a universe the close.

    Args:
        recording: What `find` returned.
        symbol: The platform's name of the underlying.
        venue_symbol: What `find` was asked for.
        date: What `find` was asked for.

    Raises:
        ChainError: A file cannot be read: nothing is used.
    """
    (first, *_), files = recording.own, {}
    if ".csv" in first.suffixes:
        content = gzip.decompress(first.read_bytes()) if first.suffix == ".gz" else first.read_bytes()
        return read_universe(content, first.name, symbol=symbol, root=venue_symbol.upper(), date=date)
    for path in recording.own:
        files[next((kind for kind in _FIGURES if f"_{kind}_" in path.name), "underlying")] = path
    if "quote" not in files:
        raise ChainError(f"{first} has no zip of quotes beside it. Nothing was loaded. Copy it there.")
    minutes = read_minutes(
        files["quote"],
        files.get("trade"),
        files.get("openinterest"),
        files.get("underlying"),
        underlying_scale=INDEX if "_european" in files["quote"].name else EQUITY,
        symbol=symbol,
        date=date,
    )
    return replace(minutes, rows=standing(minutes.rows))


def standing(minutes: pl.DataFrame) -> pl.DataFrame:
    """Return whole snapshots from rows of what changed: each contract as it stood at each half hour.

    Args:
        minutes: Contract `OptionChain`, a row where a contract was quoted or traded.

    Returns:
        The same columns, by `ts_event` and contract; a contract is there from its first row on.
    """
    times = minutes.select(pl.col("ts_event").dt.offset_by("-1ns").dt.truncate("30m").dt.offset_by("30m")).unique()
    states = minutes.select("contract").unique().join(times, how="cross").sort("ts_event")
    found = states.join_asof(
        minutes.with_columns(ts_changed="ts_event").sort("ts_event"),
        on="ts_event",
        by="contract",
        check_sortedness=False,
    )
    return found.filter(pl.col("ts_changed").is_not_null()).select(minutes.columns).sort(OptionChain.sorted_by)


def read_minutes(
    quotes: Path,
    trades: Path | None = None,
    open_interest: Path | None = None,
    underlying: Path | None = None,
    *,
    underlying_scale: float = EQUITY,
    symbol: str,
    date: dt.date,
) -> Parsed:
    """Return a row for each minute in which a contract was quoted or traded.

    Args:
        quotes: The zip of quotes; a side that nobody quoted is empty.
        trades: The zip of trades. `last` and `volume` are of the day so far; without it they are null.
        open_interest: The zip of open interest, which stands until it changes; null without it, and before it is told.
        underlying: The zip of the underlying's trades by minute; `underlying_price` is the last close before the row's
            time, null without it.
        underlying_scale: `EQUITY`, or `INDEX`, whose prices Lean does not multiply.
        symbol: The platform's name of the underlying.
        date: The date of the zips, New York's.

    Returns:
        Rows by time and contract. Facts: `contracts` (in the zips), `lines` (of quotes and of trades), `expired`,
        `adjusted`.

    Raises:
        ChainError: A zip cannot be read, or holds another date or kind: nothing of it is used.
    """
    broken: list[pl.DataFrame] = []
    lines: list[tuple[str, int, str]] = []
    quoted, traded, told = (
        _minutes(path, kind, date, lines, broken)
        for path, kind in ((quotes, "quote"), (trades, "trade"), (open_interest, "openinterest"))
    )
    minute = ["contract", "ms"]
    rows = quoted.join(traded.rename({LINE: "trade_line"}), on=minute, how="full", coalesce=True)
    rows = rows.with_columns(pl.coalesce(LINE, "trade_line").alias(LINE)).sort(minute)
    if trades is not None:
        so_far = pl.col("volume").fill_null(0).cum_sum().over("contract")
        rows = rows.with_columns(pl.col("close").forward_fill().over("contract"), volume=so_far)
    rows = rows.sort("ms").join_asof(
        told.select(*minute, "open_interest").sort("ms"), on="ms", by="contract", check_sortedness=False
    )
    spots = _bars(underlying, date, lines, broken).select("ms", spot=(pl.col("close") / underlying_scale).round(4))
    rows = rows.join_asof(spots.sort("ms"), on="ms").with_columns(osi.osi_parts(pl.col("contract")).alias("parts"))
    rows = rows.unnest("parts").with_columns(
        ts_event=((pl.col("ms") + _MINUTE_MS) * _NS_PER_MS + midnight_ns(date)).cast(INSTANT),
        bid=dollars(pl.col("bid_close")),
        ask=dollars(pl.col("ask_close")),
        last=dollars(pl.col("close")),
        underlying_price="spot",
    )
    facts = {"contracts": str(rows["contract"].n_unique())}
    return parted(_whole(rows, symbol), lambda wanted: [lines[number - 1] for number in wanted], broken, facts)


def read_universe(content: bytes, source: str, *, symbol: str, root: str, date: dt.date) -> Parsed:
    """Return a day's chain at the close of New York.

    `last` is the close of the contract: of its quotes where it did not trade. Greeks are null where Lean found no
    volatility. The underlying's line, where there is one, is the first of the file; in files of 2014 and 2015 it is the
    first minute of the day, and not at the close as the contracts are.

    Args:
        content: The CSV.
        source: Its name, for people and for the quarantine.
        symbol: The platform's name of the underlying.
        root: The root of the contracts' names, such as SPX or SPXW.
        date: The date in the file's name.

    Returns:
        Rows by contract. Facts: `contracts` (in the file), `expired`, `adjusted`.

    Raises:
        ChainError: It has another header: nothing of it is used.
    """
    lines = line_text(content).splitlines()
    if not lines or lines[0].strip() != _UNIVERSE_HEADER:
        raise ChainError(
            f"{source} is no option universe of Lean: its first line should be '{_UNIVERSE_HEADER}', and is "
            f"'{(lines or [''])[0][:200]}'. Nothing was loaded. Copy the file anew."
        )
    broken: list[pl.DataFrame] = []
    body = pl.DataFrame({"raw": lines[1:]}, schema={"raw": pl.String})
    body = body.with_columns(pl.Series(LINE, range(2, len(lines) + 1), pl.Int64)).filter(pl.col("raw") != "")
    split_up = cells(body, _UNIVERSE, broken)
    is_underlying = pl.all_horizontal(pl.col("expiry_text", "strike_text", "right").is_null())
    spots = split_up.filter(is_underlying)["close"].cast(pl.Float64, strict=False)
    listed = split_up.filter(~is_underlying)
    found = numbers(
        listed.with_columns(strike=pl.col("strike_text")),
        ["strike", "close", "volume", "open_interest", "iv", *_GREEKS],
        broken,
    )
    expiry, types = osi.expiries(pl.col("expiry_text")), osi.types(pl.col("right"))
    close = dt.datetime.combine(date, _CLOSE, _NEW_YORK)
    rows = found.with_columns(
        contract=osi.osi_names(pl.lit(root), expiry, types, pl.col("strike")),
        expiry=expiry,
        type=types,
        root=pl.lit(root),
        ts_event=instant_of(instant_ns(close)),
        last="close",
        underlying_price=pl.lit(spots[0] if len(spots) else None, pl.Float64),
        **{name: pl.when(pl.col("iv") != 0).then(pl.col(name)) for name in _GREEKS},
    )
    facts = {"contracts": str(listed.height)}
    return parted(_whole(rows, symbol), line_origins(lines, source), broken, facts)


def _whole(rows: pl.DataFrame, symbol: str) -> pl.DataFrame:
    return rows.with_columns(
        symbol=pl.lit(symbol),
        venue=pl.lit(VENUE),
        ts_expiry=osi.new_york_settlements(pl.col("expiry"), pl.col("root")),
        multiplier=pl.lit(_MULTIPLIER),
    )


def _minutes(
    path: Path | None, kind: str, date: dt.date, lines: list[tuple[str, int, str]], broken: list[pl.DataFrame]
) -> pl.DataFrame:
    """Return the minutes of all contracts of a zip: `contract`, its figures, the number of its line in `lines`."""
    contracts: list[str] = []
    first = len(lines)
    for name, content in _members(path):
        found = _MEMBER.fullmatch(name.lower())
        if found is None or (found["kind"], found["date"]) != (kind, f"{date:%Y%m%d}"):
            raise ChainError(
                f"{path} holds {name}, and the minutes of {kind} of options on {date} were expected, in files named "
                f"like {date:%Y%m%d}_spx_minute_{kind}_european_call_32000000_20210115.csv. Nothing was loaded. Name "
                "the right file, or copy it anew."
            )
        strike = int(found["strike"]) // 10
        contract = f"{found['root'].upper()}{found['expiry'][2:]}{found['right'][0].upper()}{strike:08d}"
        contracts += [contract] * _listed(f"{path.name if path else ''}/{name}", content, lines)
    return _typed(lines, first, kind, date, broken, contracts=pl.Series(contracts, dtype=pl.String))


def _bars(
    path: Path | None, date: dt.date, lines: list[tuple[str, int, str]], broken: list[pl.DataFrame]
) -> pl.DataFrame:
    first = len(lines)
    for name, content in _members(path):
        if not name.startswith(f"{date:%Y%m%d}_") or not name.endswith("_minute_trade.csv"):
            raise ChainError(
                f"{path} holds {name}, and the underlying's minutes of trades on {date} were expected. Nothing was "
                "loaded. Name the right file."
            )
        _listed(f"{path.name if path else ''}/{name}", content, lines)
    return _typed(lines, first, "trade", date, broken, contracts=pl.repeat("", len(lines) - first, eager=True))


def _listed(source: str, content: bytes, lines: list[tuple[str, int, str]]) -> int:
    texts = line_text(content).splitlines()
    lines += [(source, number, text) for number, text in enumerate(texts, start=1)]
    return len(texts)


def _typed(
    lines: list[tuple[str, int, str]],
    first: int,
    kind: str,
    date: dt.date,
    broken: list[pl.DataFrame],
    *,
    contracts: pl.Series,
) -> pl.DataFrame:
    body = pl.DataFrame(
        {
            "raw": pl.Series([text for _, _, text in lines[first:]], dtype=pl.String),
            LINE: pl.Series(range(first + 1, len(lines) + 1), dtype=pl.Int64),
            "contract": contracts,
        }
    )
    figures = list(_FIGURES[kind])
    typed = numbers(cells(body, _CELLS[kind], broken), figures, broken).with_columns(pl.col("ms").cast(pl.Int64))
    typed = take_out(typed, ~within(date, pl.col("ms") * _NS_PER_MS), "ts_event|outside_date", broken)
    typed = take_out(typed, ~pl.struct("contract", "ms").is_first_distinct(), "contract|duplicate", broken)
    return typed.select("contract", *figures, LINE)


def _members(path: Path | None) -> list[tuple[str, bytes]]:
    if path is None:
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return [(member.filename, inflated(path, archive, member)) for member in archive.infolist()]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise ChainError(f"{path} cannot be unzipped: {error}. Nothing was loaded. Copy the file anew.") from error
