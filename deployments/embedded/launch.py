"""Starts one daemon: the small program behind `process.spawn`, whose child is nobody's child.

Reads a JSON object from standard input: command, folder, log, record (a path), facts (what to
record). Exits with 0 once the daemon's own program runs, else prints why not. Only the standard
library is imported, so that it starts in milliseconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    order = json.load(sys.stdin)
    reading, writing = os.pipe()  # closed by a successful exec; carries the reason of a failed one
    if os.fork() == 0:
        os.close(reading)
        try:
            _become(order)
        except BaseException as error:  # noqa: BLE001 - the daemon has no other way to speak
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        os._exit(127)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        reason = pipe.read().decode()
    print(reason, end="")
    return 1 if reason else 0


def _become(order: dict[str, Any]) -> None:
    """Turn this process into the daemon; its record is on disk before its program runs."""
    os.setsid()
    os.umask(0o077)
    os.chdir(order["folder"])
    log = os.open(order["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _record(order["record"], order["facts"])
    os.execvp(order["command"][0], order["command"])  # noqa: S606


def _record(path: str, facts: dict[str, Any]) -> None:
    started = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    draft = Path(f"{path}.{os.getpid()}")
    text = json.dumps({"pid": os.getpid(), "start_ticks": started, **facts}, indent=2)
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main())
