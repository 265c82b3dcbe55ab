"""platform.yaml and the environment, read; a mistake in them, told."""

import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_settings import SettingsError as SourceError

from quant_platform.settings._shared import PREFIX, SettingsError, config_path
from quant_platform.settings.tree import Settings

_USERINFO = re.compile(r"://[^/\s]+@")


class _Loader(yaml.SafeLoader):
    """YAML whose dates stay text, so that pydantic judges them and the message can name the key."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def load_settings(path: Path | None = None) -> Settings:
    """Read platform.yaml and the environment.

    Raises:
        SettingsError: A file, line and key that does not fit, in whole sentences, one line each.
    """
    path = path or config_path()
    if not path.is_file():
        raise SettingsError(f"There is no configuration file {path}. Write one, or set QP_CONFIG to its path.")
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader
        nodes = yaml.compose(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(f"{path}, line {line}: this is not YAML: {error.problem}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} is not YAML in UTF-8: {error}.") from None
    if not isinstance(tree, dict | None) or not all(isinstance(key, str) for key in tree or ()):
        raise SettingsError(f"{path}, line 1: the file must hold names and values, not a {type(tree).__name__}.")
    try:
        return Settings(**(tree or {}))
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(path, nodes, problem) for problem in error.errors())) from None
    except SourceError as error:
        named = [f"{PREFIX}{name}".upper() for name in Settings.model_fields if f'"{name}"' in str(error)]
        variables = ", ".join(sorted(v for v in os.environ if v.upper().startswith(tuple(named))))
        raise SettingsError(
            f"environment variable {variables}: a whole section must be JSON ({error.__cause__}). "
            "Set its parts one by one instead, as QP_SECTION__KEY."
        ) from None


def masked(text: str) -> str:
    """Return the text with user and password in URLs replaced."""
    return _USERINFO.sub("://***@", text)


def _sentence(path: Path, nodes: yaml.Node | None, problem: Any) -> str:
    location = [str(part) if not isinstance(part, int) else part for part in problem["loc"]]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "there is no such setting; look at its spelling"
    is_shown = problem["type"] != "extra_forbidden" and isinstance(problem["input"], str | int | float)
    given = f" (it is {masked(repr(problem['input']))})" if is_shown else ""
    where = f"{path}, line {_line(nodes, location)}"
    # A part, or the section that holds it, may come from the environment, which wins.
    names = {
        PREFIX + "__".join(str(part) for part in location[:depth]).upper() for depth in range(1, len(location) + 1)
    }
    if variables := sorted(v for v in os.environ if v.upper() in names):
        where = f"environment variable {', '.join(variables)}"
    return f"{where}: {key or 'the file'}: {message}{given}."


def _line(node: yaml.Node | None, location: list[str | int]) -> int:
    line = node.start_mark.line + 1 if node else 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
