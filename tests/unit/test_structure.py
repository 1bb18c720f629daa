"""Rules of the house that no linter holds."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.unit.estates import REPOSITORY

_LONGEST = 420
_CODE = ("connectors", "datalake", "tasks", "flows", "deployments")
# Written in two parts, so that this file does not hold what it looks for.
_MACHINE = re.compile("|".join([r"(?<![\w.$}/-])/" + name + r"(?:/|\b(?![-/]))" for name in ("work", "root")]))
_REGISTRY = re.compile(
    r"https?://(?!(?:pypi\.org|files\.pythonhosted\.org)\b)[\w.-]*(?:" + "pypi|" + "registry|" + r"nexus|artifactory)"
)


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.split("\0") if name and name != "uv.lock"]
    return [REPOSITORY / name for name in names if (REPOSITORY / name).is_file()]


def test_no_module_is_longer_than_a_reader_bears() -> None:
    long = {
        str(path.relative_to(REPOSITORY)): lines
        for folder in _CODE
        for path in (REPOSITORY / folder).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > _LONGEST
    }
    assert long == {}


def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in _tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        for number, line in enumerate(text.splitlines(), start=1):
            if _MACHINE.search(line) or _REGISTRY.search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:80]}")
    assert found == []


def test_only_the_lock_file_may_name_where_packages_come_from() -> None:
    assert "index" not in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")


def test_the_search_for_machine_paths_finds_them_and_spares_others() -> None:
    assert _MACHINE.search("cd /" + "work/main")
    assert _MACHINE.search("open('/" + "root')")
    assert not any(
        map(_MACHINE.search, ["$HOME/work/x", "artwork/", "/workers", "the work/pool", "https://a.example/root-ca"])
    )
