"""What dagster-dbt makes of the project: assets and checks, kept beside the manifest that they were made of.

Importing dagster-dbt, and dbt with it, takes longer than all the rest of the definitions, in each run's process too.
"""

import hashlib
import json
import pickle
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg

from quant_platform.storage.atomic import published

_OF_THE_PROCESS = ("dagster_dbt/manifest", "dagster_dbt/dagster_dbt_translator")


class DbtSpecs(NamedTuple):
    """Every model as an asset's specification, and every test as a check's."""

    assets: Sequence[dg.AssetSpec]
    checks: Sequence[dg.AssetCheckSpec]


def specs(manifest: Path) -> DbtSpecs:
    """Return the specifications, from beside the manifest where they were made of the same one.

    Args:
        manifest: Of the dbt project.

    Raises:
        OSError: The manifest cannot be read.
    """
    content = manifest.read_bytes()
    made_by = "".join(version(package) for package in ("dagster", "dagster-dbt")).encode()
    key = hashlib.sha256(content + made_by).hexdigest()
    path = manifest.with_name("dagster_specs.pickle")
    with suppress(OSError, pickle.UnpicklingError, EOFError, AttributeError, ImportError, TypeError, ValueError):
        # Ours alone: it lies in the project's own folder, beside what dbt keeps there for itself.
        kept_key, *kept = pickle.loads(path.read_bytes())  # noqa: S301  # a file of ours
        if kept_key == key:
            return DbtSpecs(*kept)
    made = _made(content)
    with suppress(OSError), published(path) as temporary, temporary.open("wb") as file:
        _Pickler(file, protocol=5).dump((key, *made))  # a folder that is read-only only costs time
    return made


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: object) -> Any:
        """Take over dependencies, whose constructor does not take what they say of themselves."""
        if not isinstance(thing, dg.AssetDep):
            return NotImplemented
        return partial(
            dg.AssetDep, thing.asset_key, partition_mapping=thing.partition_mapping, metadata=thing.metadata
        ), ()


def _made(manifest: bytes) -> DbtSpecs:
    from dagster_dbt import dbt_assets

    @dbt_assets(manifest=json.loads(manifest))
    def models() -> Iterator[Any]:
        yield from ()  # only its specifications are wanted

    return DbtSpecs([_kept(spec) for spec in models.specs], list(models.check_specs))


def _kept(spec: dg.AssetSpec) -> dg.AssetSpec:
    """Return the specification without the objects that dagster-dbt hangs on it."""
    metadata = {name: value for name, value in spec.metadata.items() if name not in _OF_THE_PROCESS}
    return spec.replace_attributes(metadata=metadata)
