"""What a process and all that it starts use: time, processor, memory; and what the servers use for it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SAMPLE_MS = 50
_TICKS = os.sysconf("SC_CLK_TCK")
_SETTLE_SECONDS = 0.3  # for servers to reap those of their processes that served the run
_ERROR_PART = 1500


@dataclass(frozen=True)
class Usage:
    """What one run has used. Memory is resident; shared pages count once for every process of the tree."""

    exit_code: int
    wall_seconds: float
    cpu_seconds: float
    """user and system time of the process and of its descendants"""
    server_cpu_seconds: dict[str, float]
    """the same for each server, from the start of the run to its end"""
    largest_bytes: int
    """peak of the largest single process, as the kernel counts it"""
    tree_bytes: int
    """peak of the sum over all processes, sampled every 50 ms"""
    output: str
    errors: str
    """beginning and end of what was written to stderr"""


def measure(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    servers: Mapping[str, int],
    *,
    discard_output: bool = False,
) -> Usage:
    """Run a command in `folder` to its end; `servers` are process ids by name.

    The command and its descendants are killed when this is interrupted.
    """
    before = {name: _tree_cpu_seconds(pid) for name, pid in servers.items()}
    output, errors = folder / "stdout", folder / "stderr"
    with Path(os.devnull if discard_output else output).open("wb") as out, errors.open("wb") as err:
        started = time.monotonic()
        process = subprocess.Popen(
            command, stdout=out, stderr=err, stdin=subprocess.DEVNULL,
            cwd=folder, env=dict(environment), start_new_session=True,
        )  # fmt: skip
        try:
            largest, tree = _watch(process.pid)
            wall = time.monotonic() - started
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    time.sleep(_SETTLE_SECONDS)
    after = {name: _tree_cpu_seconds(pid) for name, pid in servers.items()}
    return Usage(
        exit_code=process.returncode,
        wall_seconds=wall,
        cpu_seconds=used.ru_utime + used.ru_stime,
        server_cpu_seconds={name: after[name] - before[name] for name in servers},
        largest_bytes=largest,
        tree_bytes=tree,
        output="" if discard_output else output.read_text(errors="replace"),
        errors=_ends(errors.read_text(errors="replace")),
    )


def _ends(text: str) -> str:
    if len(text) <= 2 * _ERROR_PART:
        return text
    return f"{text[:_ERROR_PART]}\n[...]\n{text[-_ERROR_PART:]}"


def _watch(pid: int) -> tuple[int, int]:
    """Wait until a child has ended (it is not reaped yet) and return its two peaks of memory in bytes.

    `ru_maxrss` is of no use for this: a child inherits the peak of the process that has forked it.
    """
    peaks: dict[int, int] = {}
    tree_peak = 0
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while not poll.poll(_SAMPLE_MS):
            resident = 0
            for member in _tree(pid):
                now, peak = _memory_bytes(member)
                resident += now
                peaks[member] = max(peak, peaks.get(member, 0))
            tree_peak = max(tree_peak, resident)
    finally:
        os.close(descriptor)
    largest = max(peaks.values(), default=0)
    return largest, max(tree_peak, largest)


def _tree(pid: int) -> Iterator[int]:
    """Yield a process and its descendants; those that end meanwhile are passed over."""
    yield pid
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - twenty times a second
            with suppress(OSError):
                text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
                for child in text.split():
                    yield from _tree(int(child))


def _memory_bytes(pid: int) -> tuple[int, int]:
    """Return what is resident now, and its peak; zeros for a process that has ended."""
    found = {"VmRSS": 0, "VmHWM": 0}
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in found:
                found[name] = int(rest.split()[0]) * 1024
    return found["VmRSS"], found["VmHWM"]


def _tree_cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, of its descendants, and of those that they have reaped."""
    return sum(_cpu_ticks(member) for member in _tree(pid)) / _TICKS


def _cpu_ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces
    return sum(int(value) for value in fields[11:15])
