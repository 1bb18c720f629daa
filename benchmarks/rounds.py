"""The runs: all entrants in turn, then all again, each on the same servers and each verified."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import servers, source
from benchmarks.entrants import Entrant, Run
from benchmarks.estate import CATALOG, write_estate
from benchmarks.measure import Usage, measure
from benchmarks.objects import make_bucket
from benchmarks.setting import Setting
from benchmarks.source import Totals
from connectors.estate import load_estate
from datalake.session import open_lake

Verdict = str
"""ok, WRONG, FAILED, or - where nothing lands"""


@dataclass(frozen=True)
class Result:
    """One run of one entrant."""

    name: str
    round: int
    usage: Usage
    flow_seconds: float | None
    """Causeway only: from the call of the flow to its return"""
    verdict: Verdict


@dataclass(frozen=True)
class Arena:
    """Servers that run, and the source that they hold."""

    setting: Setting
    estate: Path
    pids: dict[str, int]
    prefect_url: str | None
    expected: Totals
    folder: Path


@contextmanager
def arena(scale: float, data: Path, *, with_causeway: bool) -> Iterator[Arena]:
    """Start the servers over a PostgreSQL in `data` that holds lineitem; the rest lies in a folder of its own."""
    stored = data / f"scale-{scale:g}"
    stored.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="causeway-bench-")))
        postgres = stack.enter_context(servers.postgresql(stored))
        weed = stack.enter_context(servers.seaweedfs(folder / "objects"))
        setting = setting_of(postgres, weed)
        expected = source.prepare(setting, scale, stored / "lineitem.json")
        make_bucket(setting)
        pids = {"postgres": postgres.pid, "s3": weed.pid}
        estate, url = folder / "estate.yaml", None
        if with_causeway:
            prefect = stack.enter_context(servers.prefect(folder / "prefect-server"))
            pids["prefect"], url = prefect.pid, prefect.url
            _prepare_lake(setting, estate)
        yield Arena(setting, estate, pids, url, expected, folder)


def compete(held: Arena, entrants: Sequence[Entrant], rounds: int) -> Iterator[Result]:
    """Run all entrants in turn, `rounds` times; a first COPY that does not count warms the caches."""
    _run(held, entrants[0], 0)
    for number in range(1, rounds + 1):
        for entrant in entrants:
            yield _run(held, entrant, number)


def _run(held: Arena, entrant: Entrant, number: int) -> Result:
    label = f"{entrant.name}-{number}"
    folder = held.folder / label
    folder.mkdir()
    run = Run(held.setting, held.estate, held.prefect_url, folder, label)
    command, environment = entrant.start(run)
    os.sync()  # what the last one has left to be written is not this one's burden
    usage = measure(command, environment, folder, held.pids, discard_output=entrant.landed is None)
    shutil.rmtree(folder)
    return Result(entrant.name, number, usage, _flow_seconds(usage), _verdict(held, entrant, run, usage))


def _verdict(held: Arena, entrant: Entrant, run: Run, usage: Usage) -> Verdict:
    if usage.exit_code != 0:
        return "FAILED"
    if entrant.landed is None:
        return "-"
    return "ok" if entrant.landed(run) == held.expected else "WRONG"


def _flow_seconds(usage: Usage) -> float | None:
    last = usage.output.strip().rpartition("\n")[2]
    return float(json.loads(last)["flow_seconds"]) if last.startswith('{"flow_seconds"') else None


def setting_of(postgres: servers.Running, weed: servers.Running) -> Setting:
    """Return what every entrant is told of the servers."""
    address = urlsplit(postgres.url)
    return Setting(
        pg_host=str(address.hostname),
        pg_port=str(address.port),
        pg_user=postgres.username,
        pg_database=address.path.removeprefix("/"),
        pg_password=postgres.password,
        s3_host=str(urlsplit(weed.url).netloc),
        s3_access_key=weed.username,
        s3_secret_key=weed.password,
    )


def _prepare_lake(setting: Setting, estate: Path) -> None:
    """Make the lake, as it is there before any load of its life but the first."""
    os.environ.update(setting.environment())
    source.recreate_database(setting, CATALOG)
    write_estate(setting, estate)
    with open_lake(load_estate(estate), read_only=False):
        pass
