"""Ingest in a process of its own, which a test kills: `python -m tests.flows.child ESTATE TABLE [START END]`.

It says `ready` when all is imported, loads when it reads a line, and ends with `report STATUS ROWS` or with
`error CLASS TEXT`. With CHILD_RETRY_SECONDS set, tasks wait that long before they try again.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """A process that loads a table; its output is read all the time, so that it never waits for us."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.flows.child", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, cwd=ROOT, env={**environment, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self._ready, self._went = threading.Event(), False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("ready"):
                self._ready.set()
        self._ready.set()

    def go(self) -> None:
        """Let it load, once it has imported everything."""
        assert self._ready.wait(120)
        self._went = True
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def says(self, words: str) -> bool:
        """Whether it has said this."""
        return any(words in line for line in list(self.lines))

    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self.process.poll() is not None

    def children(self) -> list[int]:
        """Return the pids of the processes that it has started."""
        try:
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    def kill(self) -> None:
        """Kill it with SIGKILL and wait until it is gone."""
        self.process.kill()
        self.close()

    def result(self, seconds: float = 180) -> list[str]:
        """Let it load if it does not yet; return the words of its last line, once it has ended."""
        if not self._went:
            self.go()
        try:
            self.process.wait(seconds)
        finally:
            self.kill()
        found = [line for line in self.lines if line.startswith(("report ", "error "))]
        assert found, "\n".join(self.lines[-60:])
        return found[-1].split(" ", 2)

    def close(self) -> None:
        """Free what the process held."""
        self.process.wait(30)
        self._reader.join(30)
        for stream in (self.process.stdin, self.process.stdout):
            if stream and not stream.closed:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _hasten(seconds: float) -> None:
    import flows.ingest as module

    changed: Any = module
    changed.ACTS = {**changed.ACTS, "retry_delay_seconds": [seconds] * 3}
    for name in ("stage_batch", "check_batch", "quarantine_batch"):
        setattr(module, name, getattr(module, name).with_options(retry_delay_seconds=[seconds] * 3))


def main() -> None:
    """Load a table and say how it went."""
    from connectors.errors import CausewayError
    from flows.ingest import ingest

    if seconds := os.environ.get("CHILD_RETRY_SECONDS"):
        _hasten(float(seconds))
    estate, table, *bounds = sys.argv[1:]
    start, end = bounds or (None, None)
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        report = ingest(estate, table, start=start, end=end)
    except CausewayError as error:
        print("error", type(error).__name__, " ".join(str(error).split()), flush=True)
    else:
        print("report", report.status, report.rows, flush=True)


if __name__ == "__main__":
    main()
