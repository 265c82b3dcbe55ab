"""Trading dates as partitions. Symbols are not a dimension: inside a run the work is cut into units (pipeline)."""

from datetime import date

import dagster as dg


def daily(start: date) -> dg.DailyPartitionsDefinition:
    """Return trading dates from `start` up to tomorrow: an open date is a partition too."""
    return dg.DailyPartitionsDefinition(start_date=start.isoformat(), end_offset=2)


def dates_of(context: dg.AssetExecutionContext) -> list[date]:
    """Return the trading dates of a run, oldest first, whether it has one or a range."""
    return [date.fromisoformat(key) for key in context.partition_keys]
