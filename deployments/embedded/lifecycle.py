"""Brings the servers of an installation up, mends them, and takes them down."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from connectors.errors import FixableError, ServiceError
from deployments.embedded.home import Home
from deployments.embedded.ports import GROUPS, ensure_ports, remove_sockets
from deployments.embedded.process import Process, read_record, relatives, spawn, stop
from deployments.embedded.rendering import render_files
from deployments.embedded.secrets import ensure_secrets
from deployments.embedded.services import NAMES, NEEDS, Service, describe, ending, marks
from deployments.embedded.status import State, Status, age_seconds, observe, outdated

Progress = Callable[[str], None]

_KEPT_LOG_BYTES = 1_000_000
_SHOWN_LOG_LINES = 20
_POLL_SECONDS = 0.1
_PROBE_SECONDS = 2.0


def up(home: Home, *, progress: Progress, services: Collection[str] | None = None) -> Status:
    """Bring the named servers (default: all) and those that they need up, and return how they are.

    Running ones are left alone, all others are mended or started, so it is safe at any time. Two
    at once do the work once. Raises ServiceError, with the end of the log, for one that does not
    become ready.
    """
    names = _with_needs(services)
    home.create()
    with home.locked(lambda: progress("waiting for another command on this installation to end")):
        secrets = ensure_secrets(home)
        ports, _ = ensure_ports(home, unused=())
        render_files(home, ports)
        before = observe(home, _chosen(describe(home, ports, secrets), names), patient=True)
        if before.healthy:
            progress(f"all {len(names)} servers are running")
            return before
        kept = {one.name for one in before.services if one.state in (State.RUNNING, State.STARTING)}
        _report_broken(before, progress)
        _stop_all(home, names - kept)
        ports, moves = ensure_ports(home, unused=names - kept)
        for line in moves:
            progress(line)
        render_files(home, ports)
        chosen = _chosen(describe(home, ports, secrets), names)
        old = {one.name for one in chosen if one.name in kept and outdated(home, one)}
        for name in sorted(old):
            progress(f"{name:<14} restarts: its ports or its estate changed")
        _stop_all(home, old)
        ready = {one.name for one in before.services if one.state is State.RUNNING} - old
        _start_all(home, {one.name: one for one in chosen if one.name not in ready}, progress)
        return observe(home, chosen)


def down(home: Home, *, progress: Progress) -> None:
    """Stop every server, those that need others first; what they hold is kept."""
    if not home.exists():
        progress("nothing was ever started here")
        return
    with home.locked(lambda: progress("waiting for another command on this installation to end")):
        dependents = set(NEEDS)
        for layer in (dependents, set(NAMES) - dependents):
            _stop_all(home, layer, progress)


def remove(home: Home, *, progress: Progress = lambda _: None) -> None:
    """Stop every server and delete all that the installation made: data and credentials too."""
    down(home, progress=progress)
    home.delete()


def _with_needs(services: Collection[str] | None) -> set[str]:
    wanted = set(NAMES if services is None else services)
    if unknown := wanted - set(NAMES):
        raise FixableError(
            "embedded estate", "start", ", ".join(sorted(unknown)), "there is no such server",
            f"Choose from: {', '.join(NAMES)}.",
        )  # fmt: skip
    return wanted.union(*(NEEDS.get(name, ()) for name in wanted))


def _chosen(described: Mapping[str, Service], names: set[str]) -> list[Service]:
    return [service for name, service in described.items() if name in names]


def _report_broken(before: Status, progress: Progress) -> None:
    for one in before.services:
        if one.state in (State.DEAD, State.UNHEALTHY):
            progress(f"{one.name:<14} {one.state}: {one.detail or 'its record is from earlier'}")


# --- stopping


def _stop_all(home: Home, names: set[str], progress: Progress | None = None) -> None:
    if not names:
        return
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        running = {pool.submit(_stop, home, name): name for name in names}
        for done in as_completed(running):
            seconds = done.result()
            if progress is not None and seconds is not None:
                progress(f"{running[done]:<14} stopped  ({seconds:.1f} s)")


def _stop(home: Home, name: str) -> float | None:
    """End a server and all it left; return the seconds it took, or None if nothing ran."""
    began = time.monotonic()
    how, record = ending(home, name), read_record(home.record(name))
    found = relatives(marks(home, name), how.title)
    stop(
        record.process if record else None,
        lambda: relatives(marks(home, name), how.title),
        soft=how.soft,
        soft_seconds=how.soft_seconds,
    )
    if record is not None:
        remove_sockets(int(record.inputs[port]) for port in GROUPS.get(name, ()) if port in record.inputs)
    home.record(name).unlink(missing_ok=True)
    home.ready_file(name).unlink(missing_ok=True)
    return time.monotonic() - began if found else None


# --- starting


def _start_all(home: Home, services: Mapping[str, Service], progress: Progress) -> None:
    """Start each as soon as what it needs is ready; raises the first failure, at the end."""
    futures: dict[str, Future[float]] = {}
    cancelled = threading.Event()

    def bring_up(service: Service) -> float:
        for name in service.needs & services.keys():
            if futures[name].exception() is not None:
                raise ServiceError(
                    "embedded estate",
                    "start",
                    service.name,
                    f"it needs {name}, which did not start",
                )
        return _start(home, service, cancelled)

    with ThreadPoolExecutor(max_workers=len(services)) as pool:
        # In the order of needs, so that a future is there before somebody waits for it.
        futures.update((name, pool.submit(bring_up, one)) for name, one in services.items())
        try:
            _report(futures, services, progress)
        except BaseException:
            cancelled.set()
            raise


def _report(futures: Mapping[str, Future[float]], services: Mapping[str, Service], progress: Progress) -> None:
    names = {future: name for name, future in futures.items()}
    failures = []
    for future in as_completed(futures.values()):
        name = names[future]
        if error := future.exception():
            progress(f"{name:<14} failed")
            failures.append(error)
        else:
            url = services[name].url or ""
            progress(f"{name:<14} ready  {url}  ({future.result():.1f} s)".replace("    (", "  ("))
    if failures:
        raise failures[0]


def _start(home: Home, service: Service, cancelled: threading.Event) -> float:
    """Make one server ready, also one that is starting already; return the seconds it took."""
    began = time.monotonic()
    if starting := read_record(home.record(service.name)):
        try:
            _wait_until_ready(home, service, starting.process, cancelled)
        except ServiceError:
            if cancelled.is_set():
                raise
            _stop(home, service.name)  # it hangs: begin anew
        else:
            return time.monotonic() - began
    service.prepare()
    _shorten(home.log(service.name))
    process = spawn(
        service.name, service.command, service.environment,
        folder=home.data(service.name), log=home.log(service.name),
        record=home.record(service.name), inputs=service.inputs,
    )  # fmt: skip
    _wait_until_ready(home, service, process, cancelled)
    return time.monotonic() - began


def _wait_until_ready(home: Home, service: Service, process: Process, cancelled: threading.Event) -> None:
    probe = service.probe(process.pid)
    while (answer := probe(_PROBE_SECONDS)) is not None:
        if not process.alive():
            raise _failure(home, service, "it ended before it was ready")
        if age_seconds(process) > service.start_seconds:
            raise _failure(home, service, f"not ready after {service.start_seconds:.0f} s: {answer}")
        if cancelled.wait(_POLL_SECONDS):
            raise _failure(home, service, "the command was interrupted")


def _failure(home: Home, service: Service, cause: str) -> ServiceError:
    log = home.log(service.name)
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    tail = "\n".join(f"  {line}" for line in lines[-_SHOWN_LOG_LINES:])
    return ServiceError(
        "embedded estate", "start", service.name, f"{cause}\nThe end of {log}:\n{tail}\n",
        "Mend what it names, then run `causeway up` again: it continues where this one ended.",
    )  # fmt: skip


def _shorten(log: Path) -> None:
    """Move the end of the last run's log aside: the log begins anew, and the old is bounded."""
    if not log.exists():
        return
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _KEPT_LOG_BYTES))
        end = file.read()
    old = log.with_name(f"{log.name}.1")
    old.touch(mode=0o600)
    old.write_bytes(end)
    log.unlink()
