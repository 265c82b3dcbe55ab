"""The code location that workspace.yaml loads."""

import gc

gc.disable()  # what is loaded stays: looking through it again and again takes a fifth of the time

from quant_platform.defs.build import build_defs  # noqa: E402  # after the collector was stopped

defs = build_defs()
gc.enable()
