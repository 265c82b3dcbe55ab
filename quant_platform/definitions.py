"""The code location that workspace.yaml loads."""

from quant_platform.defs.build import build_defs

defs = build_defs()
