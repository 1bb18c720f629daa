"""One of many processes on one table: `python -m tests.failure.contender ROLE ESTATE NAME COMMITS LOG`.

A writer commits batches of 20 rows, each once, and writes a line to LOG after each that was acknowledged; started
again it goes on after the last. A compactor merges the table's files, a reader looks for half commits; both go on
until they are stopped. What a reader sees that must not be goes to LOG.
"""

from __future__ import annotations

import sys
from pathlib import Path

from connectors.errors import RetryableError
from connectors.estate import load_estate
from datalake.maintenance import compact, table_states
from datalake.session import open_lake
from tests.lake.loading import load, writing

ROWS = 20


def write(estate: str, name: str, commits: int, log: Path) -> None:
    """Commit what is not acknowledged yet."""
    done = len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0
    with writing(load_estate(estate)) as lake, log.open("a", encoding="utf-8") as ledger:
        for number in range(done, commits):
            select = f"SELECT '{name}' AS writer, {number} AS batch, range AS row FROM range({ROWS})"
            load(lake, "busy", select, f"{name}-{number}")
            ledger.write(f"{number}\n")
            ledger.flush()


def merge(estate: str, log: Path) -> None:
    """Compact the table again and again."""
    with writing(load_estate(estate)) as lake:
        while True:
            for state in table_states(lake, 1 << 20):
                if state.table == "busy" and state.small_files > 1:
                    try:
                        compact(lake, state, file_size=1 << 20, rewrite_deleted=0.2, sort_by=[])
                    except RetryableError as error:
                        print(error, flush=True)
                    else:
                        with log.open("a", encoding="utf-8") as ledger:
                            ledger.write("merged\n")


def read(estate: str, log: Path) -> None:
    """Look for batches that are there in part or twice, and for rows that were there and are gone."""
    before = 0
    with open_lake(load_estate(estate)) as lake:
        while True:
            found = lake.rows(
                f"SELECT writer, batch, count(*) FROM lake.busy GROUP BY ALL HAVING count(*) <> {ROWS}"
                " UNION ALL SELECT 'all', 0, count(*) FROM lake.busy"
            )
            total = next(count for writer, _, count in found if writer == "all")
            wrong = [row for row in found if row[0] != "all"]
            if wrong or total < before:
                with log.open("a", encoding="utf-8") as ledger:
                    ledger.write(f"wrong: {wrong}, {before} rows and then {total}\n")
            before = total


def main() -> None:
    """Play one role."""
    role, estate, name, commits, log = sys.argv[1:]
    if role == "writer":
        write(estate, name, int(commits), Path(log))
    elif role == "compactor":
        merge(estate, Path(log))
    else:
        read(estate, Path(log))


if __name__ == "__main__":
    main()
