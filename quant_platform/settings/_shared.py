"""What every section of the settings builds on."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PREFIX = "QP_"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SettingsError(ValueError):
    """The configuration is wrong; the message names file, line and key, and says what to do."""


class Section(BaseModel):
    """A part of the tree: it knows its keys, and refuses others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def config_path() -> Path:
    """Return the configuration file's path: `QP_CONFIG`, else ./platform.yaml."""
    return Path(os.environ.get("QP_CONFIG") or "platform.yaml").expanduser()
