"""The command says what is wrong in words, on standard error, with exit code 1."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.estate import json_schema
from deployments.cli import main
from tests.unit.estates import EXAMPLES, REPOSITORY, changed, plain, written


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for command in ("up", "status", "down", "env", "ingest", "backfill", "sql", "check", "schema", "probe"):
        assert f"\n    {command} " in shown


@pytest.mark.parametrize("arguments", [[], ["fly"], ["sql"], ["sql", "select 1", "--format", "xml"]])
def test_a_wrong_call_shows_the_usage_and_ends_with_two(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: causeway" in capsys.readouterr().err


def test_a_good_estate_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, plain())
    assert main(["check", str(path)]) == 0
    assert main(["--estate", str(path), "check"]) == 0
    assert "ok (2 sites, 2 applications, 1 tables)" in capsys.readouterr().out


def test_a_bad_estate_is_explained_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = changed("sites.idc.kind", "privat")
    data["tables"]["orders"]["owner"] = "nobody"
    path = written(tmp_path, data)
    assert main(["check", str(path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("causeway: ")
    assert "2 mistakes" in shown.err
    line = path.read_text(encoding="utf-8").splitlines().index("    kind: privat") + 1
    assert f"{path}:{line}: `sites.idc.kind`" in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("command", [["check"], ["sql", "select 1"], ["probe"], ["env"]])
def test_without_an_estate_every_command_says_so(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", str(tmp_path / "none"), *command]) == 1
    shown = capsys.readouterr().err
    assert "causeway up" in shown
    assert "Traceback" not in shown


def test_as_a_process_too_it_ends_with_one_and_no_traceback(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "check", str(tmp_path / "no.yaml")],
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "there is no such file" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_schema_is_printed_as_json_just_as_it_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown) == json_schema()
    assert shown == (EXAMPLES / "estate.schema.json").read_text(encoding="utf-8")
