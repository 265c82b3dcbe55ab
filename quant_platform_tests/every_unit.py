"""The units of all recipes over some symbols and dates, as plain loops name them."""

from collections.abc import Collection
from datetime import date

from quant_platform.pipeline.desk import DESK
from quant_platform.pipeline.events import EVENTS
from quant_platform.pipeline.execution import EXECUTION
from quant_platform.pipeline.options import OPTIONS
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import Unit
from quant_platform.pipeline.vix1d import VOL_INDICES
from quant_platform.storage.lake import ALL_SYMBOLS

UNFED = {recipe.table for recipe in (*OPTIONS, *VOL_INDICES, *DESK, *EXECUTION, *EVENTS)}
"""Tables that are absent where no symbol has options, nobody reads VIX1D, and no desk trades."""


def every_unit(symbols: Collection[str], days: Collection[date], tables: Collection[str] = RECIPES) -> set[Unit]:
    """Return them; a table that belongs to no symbol has one unit a date."""
    return {
        Unit(table, symbol, day)
        for table in tables
        for symbol in ((ALL_SYMBOLS,) if RECIPES[table].is_cross_symbol else symbols)
        for day in days
    }
