"""How rows lie in a lake file: types, encodings, statistics, levels of zstd. Figures: docs/decisions/006."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from quant_platform.contracts._schema import INSTANT, Contract, polars_schema

ROW_GROUP_ROWS = 1_048_576
_TRIAL_ROWS = 8_192
_FAST_LEVEL, _TRIAL_LEVEL, _HARD_LEVEL = 4, 9, 15
_HARD_ROWS = 65_536


def arrow(rows: pl.DataFrame, contract: type[Contract]) -> pa.Table:
    """Return the rows for the writer: columns without nulls as such, a text that never changes as one entry."""
    arrays = [
        _repeated(rows[name]) or rows[name].to_arrow(compat_level=pl.CompatLevel.oldest()) for name in rows.columns
    ]
    columns = contract.columns()
    fields = [
        pa.field(name, array.type, nullable=columns[name].nullable)
        for name, array in zip(rows.columns, arrays, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _repeated(values: pl.Series) -> pa.DictionaryArray | None:
    """Return a text column of one value as its one entry, which the file has as plain text; None for any other."""
    if values.dtype != pl.String or values.is_empty() or values.null_count() or not (values == values[0]).all():
        return None
    return pa.DictionaryArray.from_arrays(np.zeros(len(values), np.int8), [values[0]])


def options(contract: type[Contract], rows: pa.Table, *, is_passing: bool) -> dict[str, Any]:
    """Return what pyarrow's writer is told of a table's columns: the same rows give the same answer.

    Args:
        contract: The table's.
        rows: What will be written.
        is_passing: Whether the file stands only until another takes its place.
    """
    dtypes = polars_schema(contract)
    # What a feed told is kept for good: where that takes moments, it is pressed hard. What is derived can be remade.
    is_kept = "ts_recv" in dtypes and not is_passing
    level = _HARD_LEVEL if is_kept and rows.num_rows <= _HARD_ROWS else _FAST_LEVEL
    deltas = [name for name, dtype in dtypes.items() if dtype in {pl.Int64, INSTANT}]
    reals = [name for name, dtype in dtypes.items() if dtype == pl.Float64]
    # A derived part is written again in moments: to try encodings would take longer than to write it.
    is_tried = "ts_recv" in dtypes or not is_passing
    plain = [n for n in reals if not is_tried or _is_smaller_plain(rows[n], min(level, _TRIAL_LEVEL))]
    return {
        "compression": "zstd",
        "compression_level": level,
        "use_dictionary": [name for name in dtypes if name not in {*deltas, *plain}],
        "column_encoding": {
            **dict.fromkeys(deltas, "DELTA_BINARY_PACKED"),
            **dict.fromkeys(plain, "PLAIN"),
        },
        "dictionary_pagesize_limit": 4 * 1024 * 1024,
        "max_rows_per_page": ROW_GROUP_ROWS,  # the default of 20,000 costs a tenth of the file
        "write_page_checksum": True,
        # Statistics are for skipping files and row groups by time, key and symbol: nobody looks for a price.
        "write_statistics": [n for n in dtypes if dtypes[n] == INSTANT or n in {"symbol", *contract.sorted_by}],
        "store_schema": False,  # 1 kB a file for what Parquet's own types already say
    }


def _is_smaller_plain(values: pa.ChunkedArray, level: int) -> bool:
    """Try both encodings on the first rows: runs and repeats favour plain pages, few scattered values a dictionary."""
    head = pa.table({"values": values.slice(0, _TRIAL_ROWS)})
    sizes: list[int] = []
    for is_dictionary in (False, True):
        sink = pa.BufferOutputStream()
        pq.write_table(
            head, sink, compression="zstd", compression_level=level, use_dictionary=is_dictionary, store_schema=False
        )
        sizes.append(sink.tell())
    return sizes[0] < sizes[1]
