"""How the servers of an installation are, seen afresh."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from deployments.embedded.home import Home
from deployments.embedded.ports import load_ports
from deployments.embedded.process import Process, Record, read_record
from deployments.embedded.secrets import load_secrets
from deployments.embedded.services import NAMES, SITES, Service, describe

_PROBE_SECONDS = 2.0
_PATIENCE_SECONDS = 10.0


class State(StrEnum):
    """`dead` was started and has ended; `stopped` was never started, or was stopped on request."""

    RUNNING = "running"
    STARTING = "starting"
    DEAD = "dead"
    STOPPED = "stopped"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class ServiceStatus:
    name: str
    site: str | None
    state: State
    pid: int | None = None
    url: str | None = None
    since: datetime | None = None
    detail: str | None = None
    """Why it is not running, where that is known."""


@dataclass(frozen=True)
class Status:
    home: Path
    services: tuple[ServiceStatus, ...]

    @property
    def healthy(self) -> bool:
        return all(service.state is State.RUNNING for service in self.services)

    def __getitem__(self, name: str) -> ServiceStatus:
        return next(service for service in self.services if service.name == name)


def status(home: Home) -> Status:
    """Return how every server is now; changes nothing, and answers where nothing was started."""
    ports = load_ports(home)
    if not ports or not home.secrets_file.exists():
        stopped = (ServiceStatus(name, SITES[name], State.STOPPED) for name in NAMES)
        return Status(home.path, tuple(stopped))
    return observe(home, describe(home, ports, load_secrets(home)).values())


def observe(home: Home, services: Iterable[Service], *, patient: bool = False) -> Status:
    """Return how these servers are now; a patient look gives a busy one 10 s to answer."""
    chosen = tuple(services)
    with ThreadPoolExecutor(max_workers=len(chosen)) as pool:
        found = pool.map(lambda service: _look(home, service, patient), chosen)
        return Status(home.path, tuple(found))


def _look(home: Home, service: Service, patient: bool) -> ServiceStatus:
    record = read_record(home.record(service.name))
    if record is None:
        ended = home.record(service.name).exists()
        return ServiceStatus(service.name, service.site, State.DEAD if ended else State.STOPPED)
    process = record.process
    if not process.alive():
        return ServiceStatus(service.name, service.site, State.DEAD, detail="its process has ended")
    state, detail = _judge(service, record, patient)
    return ServiceStatus(service.name, service.site, state, process.pid, service.url, process.since(), detail)


def _judge(service: Service, record: Record, patient: bool) -> tuple[State, str | None]:
    process = record.process
    if process.suspended():
        return State.UNHEALTHY, "its process is suspended (SIGSTOP)"
    if changed := _changed(service.inputs, record.inputs):
        return State.UNHEALTHY, f"it was started with another {changed}"
    answer = service.probe(process.pid)(_PROBE_SECONDS)
    if answer is None:
        return State.RUNNING, None
    if age_seconds(process) < service.start_seconds:
        return State.STARTING, answer
    deadline = time.monotonic() + (_PATIENCE_SECONDS if patient else 0.0)
    while time.monotonic() < deadline and process.alive():
        time.sleep(0.2)
        answer = service.probe(process.pid)(_PROBE_SECONDS)
        if answer is None:
            return State.RUNNING, None
    return State.UNHEALTHY, answer


def age_seconds(process: Process) -> float:
    return (datetime.now(UTC) - process.since()).total_seconds()


def outdated(home: Home, service: Service) -> bool:
    """True when a server runs with other ports or another estate than it would get now."""
    record = read_record(home.record(service.name))
    return record is not None and _changed(service.inputs, record.inputs) is not None


def _changed(wanted: Mapping[str, str], actual: Mapping[str, str]) -> str | None:
    return next((name for name, value in wanted.items() if actual.get(name) != value), None)
