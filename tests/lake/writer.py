"""Loads a table several times, as a process of its own: `python -m tests.lake.writer ESTATE MODE TABLE KEY TIMES`."""

from __future__ import annotations

import sys

from connectors.estate import load_estate
from tests.lake.loading import load, writing


def main() -> None:
    """Load 100 rows TIMES times; with one time the key is KEY itself. Print each outcome."""
    estate, mode, table, key, times = sys.argv[1:]
    with writing(load_estate(estate)) as lake:
        for number in range(int(times)):
            name = key if times == "1" else f"{key}-{number}"
            outcome = load(
                lake, table, f"SELECT range AS id, '{name}' AS v FROM range(100)", name, mode=mode, key=["id"]
            )
            print(type(outcome).__name__, flush=True)


if __name__ == "__main__":
    main()
