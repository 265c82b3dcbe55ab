"""The files around the package agree with one another. What the package does is tested elsewhere."""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]

# Of the text as the Apache Software Foundation publishes it, without its empty first line.
APACHE_2_SHA256 = "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4"

# A path below one person's folders: never relative, never the tail of an address.
MACHINE_PATH = re.compile(r"(?<![\w.~})>*-])/(?:work|root|home|Users)/\w")


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def locked_versions() -> dict[str, Version]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line.removesuffix("\\").strip()) for line in lines if re.match(r"\w", line)]
    return {canonicalize_name(pin.name): Version(str(pin.specifier).removeprefix("==")) for pin in pins}


def declared_requirements() -> list[Requirement]:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [*pyproject["project"]["dependencies"], *pyproject["dependency-groups"]["dev"]]
    return [Requirement(text) for text in declared]


def repository_files() -> list[Path]:
    """Return what git tracks or would track; without git there is no saying what belongs to the project."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_named_in_documents_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    fenced = re.findall(r"^```.*?^```", text, flags=re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", text)
    named = {name for code in [*fenced, *inline] for name in re.findall(r"\bmake ([a-z]+)", code)}

    assert named
    assert named - makefile_targets() == set()


def test_makefile_keeps_its_promised_targets() -> None:
    promised = {"help", "demo", "up", "test", "check", "bench", "soak", "lock", "clean"}

    assert promised - makefile_targets() == set()


def test_requirements_lock_has_hashes_and_no_addresses() -> None:
    text = (ROOT / "requirements.lock").read_text()
    blocks = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]

    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert re.findall(r"https?:|file:|--(?:extra-)?index-url|--find-links", text) == []


@pytest.mark.parametrize("requirement", declared_requirements(), ids=lambda requirement: requirement.name)
def test_requirements_lock_satisfies_pyproject(requirement: Requirement) -> None:
    locked = locked_versions()
    name = canonicalize_name(requirement.name)

    assert name in locked, f"{name} is not in requirements.lock: run `make lock`"
    assert requirement.specifier.contains(locked[name], prereleases=True)


def test_workspace_names_the_one_code_location() -> None:
    (location,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]

    assert location["python_module"] == {
        "module_name": "quant_platform.definitions",
        "attribute": "defs",
        "location_name": "quant_platform",
    }


def test_license_is_apache_2() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_SHA256


def test_pre_commit_hooks_start_locked_tools() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]

    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        tool = Path(shlex.split(hook["entry"])[0])
        assert tool.parent == Path(".venv/bin")
        assert hook["language"] == "system"
        assert f"$(BIN)/{tool.name}" in (ROOT / "Makefile").read_text(), f"make check does not run {tool.name}"


def test_continuous_integration_script_can_be_run() -> None:
    script = ROOT / ".ci/run"

    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("line", ["see /" + "work/main/x.py", "archive_url: file:///" + "root/data"])
def test_machine_path_is_recognised(line: str) -> None:
    assert MACHINE_PATH.search(line)


@pytest.mark.parametrize("line", ["git.example.org/" + "work/main", "../" + "home/data", "/var/lib/quant_platform"])
def test_path_of_any_machine_is_no_machine_path(line: str) -> None:
    assert not MACHINE_PATH.search(line)


def test_no_file_names_a_path_of_one_machine() -> None:
    found = []
    for file in repository_files():
        if not file.is_file():
            continue
        for number, line in enumerate(file.read_text(errors="ignore").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}")

    assert found == []
