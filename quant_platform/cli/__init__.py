"""`qp`: starts what stands below, and says in whole sentences what happened. No calculation, no orchestration.

A command stands in `history` where it is about dates, in `live` where it runs beside the market, else in `setup`.
"""

from quant_platform.cli import _environment, history, live, setup  # noqa: F401  # the commands register themselves
from quant_platform.cli._app import app, main

__all__ = ["app", "main"]
