"""Daemons without a supervisor: how one is started, recognised again, and stopped.

A process is recognised by boot, pid and start time, and signalled through a pidfd, so that neither
a reused pid nor a like name is ever hit.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from connectors.errors import ServiceError
from deployments.embedded import launch

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_GONE, _STOPPED = "ZX", "Tt"


@dataclass(frozen=True)
class Process:
    """One process of this boot: its pid, and the clock ticks after boot at which it began."""

    pid: int
    start_ticks: int

    def alive(self) -> bool:
        """True until it exits; a zombie that its parent has not collected counts as gone."""
        found = _stat(self.pid)
        return found is not None and found.start_ticks == self.start_ticks and not found.gone

    def suspended(self) -> bool:
        """True while it is held by SIGSTOP or a debugger."""
        found = _stat(self.pid)
        return found is not None and found.start_ticks == self.start_ticks and found.suspended

    def since(self) -> datetime:
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return datetime.fromtimestamp(booted + self.start_ticks / _TICKS_PER_SECOND, UTC)

    def signal(self, *numbers: int, wait_seconds: float = 0.0) -> bool:
        """Send the signals in order; return whether it is gone after at most `wait_seconds`."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            # Looked at after the handle was opened: from here on the pid cannot change hands.
            if not self.alive():
                return True
            for number in numbers:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)
            return bool(select.select([handle], [], [], wait_seconds)[0])
        finally:
            os.close(handle)


@dataclass(frozen=True)
class Record:
    """What is known of a daemon that was started: its process, and what it was started with."""

    process: Process
    inputs: Mapping[str, str]


@dataclass(frozen=True)
class _Stat:
    start_ticks: int
    state: str

    @property
    def gone(self) -> bool:
        return self.state in _GONE

    @property
    def suspended(self) -> bool:
        return self.state in _STOPPED


def _stat(pid: int) -> _Stat | None:
    try:
        # proc(5): the name in brackets may hold anything, so count from the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return _Stat(start_ticks=int(fields[19]), state=fields[0])


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_record(path: Path) -> Record | None:
    """Return the recorded daemon, or None if its record is absent, torn or of another boot."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["boot"] != boot_id():
            return None
        return Record(Process(int(found["pid"]), int(found["start_ticks"])), dict(found["inputs"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def spawn(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path,
    log: Path,
    record: Path,
    inputs: Mapping[str, str],
) -> Process:
    """Start a daemon with exactly this environment; on return its program runs and is recorded.

    Raises ServiceError if the program cannot be run.
    """
    facts = {"boot": boot_id(), "inputs": dict(inputs), "command": list(command)}
    order = {
        "command": list(command), "folder": str(folder), "log": str(log),
        "record": str(record), "facts": facts,
    }  # fmt: skip
    launcher = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(launch.__file__).resolve())],
        input=json.dumps(order), env=dict(environment),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    written = read_record(record)
    if launcher.returncode or written is None:
        raise ServiceError("embedded estate", "start", name, launcher.stdout.strip())
    return written.process


def all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def command_name(pid: int) -> str:
    """Return the kernel's name of a live process, else nothing; anybody may read it."""
    found = _stat(pid)
    if found is None or found.gone:
        return ""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def relatives(marks: Mapping[str, str], title: str | None) -> list[Process]:
    """Return every live process that was started with all of `marks` in its environment.

    Also those whose command line begins with `title`: PostgreSQL overwrites its environment.
    """
    wanted = {f"{name}={value}".encode() for name, value in marks.items()}
    found = []
    for pid in all_pids():
        if pid != os.getpid() and (_marked(pid, wanted) or (title and _titled(pid, title))):
            state = _stat(pid)
            if state and not state.gone:
                found.append(Process(pid, state.start_ticks))
    return found


def _marked(pid: int, wanted: set[bytes]) -> bool:
    try:
        return wanted <= set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return False


def _titled(pid: int, title: str) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode())
    except OSError:
        return False


def stop(
    leader: Process | None,
    rest: Callable[[], list[Process]],
    *,
    soft: signal.Signals,
    soft_seconds: float,
) -> None:
    """End a daemon and all that it started; gently for `soft_seconds`, then by SIGKILL.

    `rest` looks afresh for processes of the same service. Raises ServiceError if one outlives
    SIGKILL.
    """
    if leader is not None:
        leader.signal(soft, signal.SIGCONT, wait_seconds=soft_seconds)
    for _ in range(5):
        remaining = [*rest(), *([leader] if leader and leader.alive() else [])]
        if not remaining:
            return
        for process in remaining:
            process.signal(signal.SIGKILL, wait_seconds=2.0)
    raise ServiceError(
        "embedded estate", "stop", f"pid {remaining[0].pid}", "it outlives SIGKILL",
        "It hangs in the kernel, mostly on a disk or a network file system; look at `dmesg`.",
    )  # fmt: skip
