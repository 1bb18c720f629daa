"""Follows a source of changes in a process of its own: `python -m tests.flows.follower ESTATE SOURCE SECONDS`."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from connectors.errors import ConflictError
from connectors.estate import load_estate
from tasks.replicate.steps import follow


def main() -> None:
    """Follow until killed; wait where the database has not noticed yet that the one before is dead."""
    path, source, seconds = sys.argv[1:]
    until = datetime.now(UTC) + timedelta(seconds=int(seconds))
    while True:
        try:
            follow(
                load_estate(path), Path(path).parent, source, until=until,
                messages=20_000, pause=lambda: time.sleep(0.2),
            )  # fmt: skip
        except ConflictError:
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    main()
