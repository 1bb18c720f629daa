"""Many processes on one table: 8 writers, 2 compactions and 4 readers, quietly and while processes are killed.

CAUSEWAY_SOAK=1 runs them at full length: 50 commits of each writer, and kills for two minutes.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connectors.estate import load_estate
from datalake.maintenance import remove_orphans, table_states
from tests.failure.contender import ROWS
from tests.lake.loading import load, writing

pytestmark = pytest.mark.servers

_SOAK = bool(os.environ.get("CAUSEWAY_SOAK"))
_COMMITS = 50 if _SOAK else 12
_KILL_SECONDS = 120 if _SOAK else 20


class Crowd:
    """The processes, each started again by its name when it was killed."""

    def __init__(self, estate: Path, folder: Path, commits: int) -> None:
        self._estate, self._folder, self._commits = estate, folder, commits
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        role = name.rstrip("0123456789")
        with (self._folder / f"{name}.out").open("ab") as out:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.failure.contender", role, str(self._estate), name,
                 str(self._commits), str(self.log(name))],
                stdout=out, stderr=out,
            )  # fmt: skip

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def lines(self, name: str) -> list[str]:
        return self.log(name).read_text(encoding="utf-8").splitlines() if self.log(name).exists() else []

    def said(self, name: str) -> str:
        return (self._folder / f"{name}.out").read_text(encoding="utf-8")[-2000:]

    def writers_done(self) -> bool:
        return all(one.poll() is not None for name, one in self.running.items() if name.startswith("writer"))

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running[name].wait()


@contextmanager
def crowd(estate: Path, folder: Path, commits: int) -> Iterator[Crowd]:
    made = Crowd(estate, folder, commits)
    names = [f"writer{n}" for n in range(8)] + [f"compactor{n}" for n in range(2)] + [f"reader{n}" for n in range(4)]
    try:
        for name in names:
            made.start(name)
        yield made
    finally:
        for name in made.running:
            made.kill(name)


def check(estate_file: Path, found: Crowd, commits: int) -> None:
    """Every acknowledged row once, nothing else, and no reader ever saw a half commit."""
    for name in (f"reader{n}" for n in range(4)):
        assert found.lines(name) == [], found.said(name)
    with writing(load_estate(estate_file)) as lake:
        rows = lake.rows("SELECT writer, batch, row, count(*) FROM lake.busy WHERE writer <> 'first' GROUP BY ALL")
        wanted = {(f"writer{n}", batch, row, 1) for n in range(8) for batch in range(commits) for row in range(ROWS)}
        assert set(rows) == wanted
        assert lake.value("SELECT count(*) FROM ops.loads WHERE load_key LIKE 'writer%'") == 8 * commits


def test_eight_writers_two_compactions_and_four_readers(estate_file: Path, tmp_path: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        load(lake, "busy", f"SELECT 'first' AS writer, 0 AS batch, range AS row FROM range({ROWS})", "first")
    started = time.monotonic()
    with crowd(estate_file, tmp_path, _COMMITS) as found:
        while not found.writers_done():
            assert time.monotonic() - started < 600
            time.sleep(0.1)
        seconds = time.monotonic() - started
        for n in range(8):
            assert found.running[f"writer{n}"].returncode == 0, found.said(f"writer{n}")
        assert found.lines("compactor0") or found.lines("compactor1")
    print(f"{8 * _COMMITS} commits in {seconds:.1f} s beside compactions and readers")
    check(estate_file, found, _COMMITS)


def test_the_same_while_a_random_process_is_killed_every_second(estate_file: Path, tmp_path: Path) -> None:
    commits = _COMMITS * (8 if _SOAK else 4)
    with writing(load_estate(estate_file)) as lake:
        load(lake, "busy", f"SELECT 'first' AS writer, 0 AS batch, range AS row FROM range({ROWS})", "first")
    chance, killed, started = random.Random(11), 0, time.monotonic()
    with crowd(estate_file, tmp_path, commits) as found:
        while time.monotonic() - started < _KILL_SECONDS:
            time.sleep(1)
            name = chance.choice(list(found.running))
            if found.running[name].poll() is None:
                killed += 1
            found.kill(name)
            found.start(name)
        while not found.writers_done():
            assert time.monotonic() - started < 900
            time.sleep(0.1)
    assert killed >= _KILL_SECONDS // 2
    print(f"{8 * commits} commits, {killed} kills")
    for n in range(8):
        if len(found.lines(f"writer{n}")) < commits:  # the last start was killed with the crowd, or failed
            pytest.fail(found.said(f"writer{n}"))
    check(estate_file, found, commits)
    with writing(load_estate(estate_file)) as lake:
        from datetime import UTC, datetime

        before = lake.value("SELECT sum(row) FROM lake.busy")
        remove_orphans(lake, before=datetime.now(UTC))
        assert lake.value("SELECT sum(row) FROM lake.busy") == before
        assert len(lake.files("busy")) == next(one.files for one in table_states(lake, 1 << 20) if one.table == "busy")
