"""Causeway's whole flow, for one table of the estate: `python -m benchmarks.peers.causeway ESTATE TABLE`."""

from __future__ import annotations

import json
import sys
import time


def main(estate: str, table: str) -> None:
    """Run the flow as its users do, and print as JSON how long it took from the call to the return."""
    from flows.ingest import ingest

    started = time.monotonic()
    report = ingest(estate, table)
    seconds = time.monotonic() - started
    shown = {"stage": report.stage_seconds, "check": report.check_seconds}
    print(json.dumps({"flow_seconds": seconds, "part_seconds": shown}))


if __name__ == "__main__":
    main(*sys.argv[1:])
