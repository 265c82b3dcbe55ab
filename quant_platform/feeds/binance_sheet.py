"""One zip of the Binance archive, its columns checked. What rows mean: binance_csv.py."""

import re
import zipfile
import zlib
from pathlib import Path

from quant_platform.feeds.binance_archive import ArchiveError, Kind
from quant_platform.feeds.sheet import FLAG, INTEGER, REAL, Column, Layout, Sheet, inflated, line_text

AGAIN = (
    "Nothing was loaded. Delete the file from landing so that it is fetched again; if it comes back the same, "
    "the publisher's file is at fault."
)

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_BOOLEAN = re.compile(r"true|false", re.IGNORECASE)
_WHOLE_TIME = re.compile(r"\d{13}|\d{16}")

_MAKER = (Column("is_buyer_maker", "aggressor", FLAG), Column("is_best_match"))
_PRICE = (Column("price", "price", REAL), Column("qty quantity", "size", REAL))
_LAYOUTS: dict[Kind, Layout] = {
    "trades": Layout(
        (
            Column("id trade_id", "trade_id", INTEGER),
            *_PRICE,
            Column("quote_qty base_qty"),
            Column("time", "ts_event", INTEGER),
            *_MAKER,
        ),
        _BOOLEAN,
        optional=1,
    ),
    "aggTrades": Layout(
        (
            Column("agg_trade_id agg_id"),
            *_PRICE,
            Column("first_trade_id first_id", "trade_id", INTEGER),
            Column("last_trade_id last_id", "last_trade_id", INTEGER),
            Column("transact_time time", "ts_event", INTEGER),
            *_MAKER,
        ),
        _BOOLEAN,
        optional=1,
    ),
    "bookTicker": Layout(
        (
            Column("update_id", "sequence", INTEGER),
            Column("best_bid_price", "bid_price", REAL),
            Column("best_bid_qty", "bid_size", REAL),
            Column("best_ask_price", "ask_price", REAL),
            Column("best_ask_qty", "ask_size", REAL),
            Column("transaction_time", "ts_event", INTEGER),
            Column("event_time"),
        ),
        _WHOLE_TIME,
    ),
    "klines": Layout(
        (
            Column("open_time", "ts_open", INTEGER),
            Column("open", "open", REAL),
            Column("high", "high", REAL),
            Column("low", "low", REAL),
            Column("close", "close", REAL),
            Column("volume", "volume", REAL),
            Column("close_time"),
            Column("quote_volume quote_asset_volume"),
            Column("count number_of_trades", "trade_count", INTEGER),
            Column("taker_buy_volume taker_buy_base_asset_volume", "taker_buy_volume", REAL),
            Column("taker_buy_quote_volume taker_buy_quote_asset_volume"),
            Column("ignore"),
        ),
        re.compile(".+"),
    ),
}


def opened(path: Path, kind: Kind) -> Sheet:
    """Return a file's one member, its columns checked against the layout of its kind.

    Raises:
        ArchiveError: The zip is damaged, holds another file than its own day, or has other columns.
    """
    content, layout = _unzipped(path), _LAYOUTS[kind]
    first = line_text(content[: content.find(b"\n") if b"\n" in content else None]).strip()
    fields = [field.strip() for field in first.split(",")]
    known = ", ".join(column.headers.split()[0] for column in layout.columns)
    if content and len(fields) not in layout.widths:
        expected = " or ".join(str(width) for width in layout.widths)
        raise ArchiveError(
            f"{path.name}, line 1 has {len(fields)} columns, and a {kind} file has {expected} ({known}): "
            f"'{first[:200]}'. Nothing was loaded. The publisher changed the format, or the file is another kind."
        )
    has_header = bool(content) and not any(_NUMBER.fullmatch(field) for field in fields)
    for position, (field, column) in enumerate(zip(fields, layout.columns, strict=False), start=1):
        if has_header and field not in column.headers.split():
            raise ArchiveError(
                f"{path.name}, line 1: column {position} is called '{field}', and '{column.headers.split()[0]}' is "
                f"expected there (columns of a {kind} file: {known}). Nothing was loaded. The publisher changed "
                "the format, or the file is another kind."
            )
    width = len(fields) if content else len(layout.columns)
    return Sheet(path.name, content, layout, width, has_header)


def _unzipped(path: Path) -> bytes:
    expected = f"{path.stem}.csv"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if names != [expected]:
                found = ", ".join(names) or "no file at all"
                raise ArchiveError(
                    f"{path.name} must hold one file, {expected}, and holds {found}. Which one is the day cannot "
                    f"be told. {AGAIN}"
                )
            return inflated(path, archive, archive.infolist()[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise ArchiveError(f"{path.name} cannot be unzipped: {error}. {AGAIN}") from error
