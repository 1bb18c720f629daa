"""The lake in depth: queries, small files, commits and checks: `python -m benchmarks.depth --help`.

Each figure is a ratio to a limit that is measured in the same run, on the same servers.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, perf_counter

import duckdb

from benchmarks import servers, source
from benchmarks.estate import CATALOG, CHECKED, PLAIN, write_estate
from benchmarks.machine import describe
from benchmarks.rounds import setting_of
from connectors.duck import connect, load_extension, quote_identifier, quote_literal
from connectors.estate import Estate, Table, load_estate
from connectors.sources import Slice
from datalake.batch import Batch, new_load_id, stage
from datalake.evidence import LoadRecord
from datalake.judge import Judge
from datalake.load import commit
from datalake.maintenance import compact, table_states
from datalake.quality import considered_rows, count_violations, unexpected_rows
from datalake.session import Lake, create_secrets, open_lake

_TABLES = ("customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier")
_WRITERS, _COMMITS = 4, 25


class Select:
    """A source by shape: DuckDB makes the rows of a SELECT."""

    def __init__(self, select: str) -> None:
        self._select = select

    @contextmanager
    def scan(self, connection: duckdb.DuckDBPyConnection, part: Slice):  # type: ignore[no-untyped-def]
        """Give the SELECT."""
        yield self._select

    def translate(self, error: Exception) -> Exception:
        """Return the error as it is."""
        return error

    def describe(self) -> str:
        """Return the SELECT."""
        return self._select

    def estimate(self) -> int | None:
        """Return None."""
        return None


@dataclass(frozen=True)
class QueryTime:
    """A query of TPC-H: medians in seconds, the median of the rounds' ratios, and whether its answer is right."""

    number: int
    lake: float
    direct: float
    ratio: float
    right: bool


def load(lake: Lake, table: str, select: str, key: str) -> Batch:
    """Stage and commit the rows of a SELECT."""
    batch = stage(lake, table, Select(select), Slice(), new_load_id())
    adopt(lake, table, batch, key)
    return batch


def adopt(lake: Lake, table: str, batch: Batch, key: str) -> None:
    """Commit a batch."""
    now = datetime.now(UTC)
    record = LoadRecord(
        load_id=batch.load_id, load_key=key, table_name=table, mode="append", status="committed", source="bench",
        slice_start=None, slice_end=None, rows=batch.rows, bytes=batch.bytes, files=len(batch.files), started_at=now,
        finished_at=now, stage_seconds=0.0, check_seconds=0.0, flow_run_id=None, reason=None,
    )  # fmt: skip
    commit(lake, table, Table.model_validate({"source": "bench", "owner": "bench"}), batch, Slice(), [record])


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    started = perf_counter()
    action()
    return perf_counter() - started


# --- TPC-H ---------------------------------------------------------------------------------------


def prepare_tpch(lake: Lake, scale: float, folder: Path) -> int:
    """Make the eight tables and load them; return the bytes of lineitem as CSV."""
    connection, csv = lake.connection, folder / "lineitem.csv"
    load_extension(connection, "tpch")
    connection.execute(f"ATTACH '{folder / 'tpch.duckdb'}' AS made")
    connection.execute("USE made")
    connection.execute(f"CALL dbgen(sf = {scale})")
    connection.execute("USE lake")
    for table in _TABLES:
        load(lake, table, f"SELECT * FROM made.main.{table}", f"tpch-{table}")
    connection.execute(f"COPY made.main.lineitem TO '{csv}' (FORMAT csv)")
    size = csv.stat().st_size
    csv.unlink()
    return size


def queries(estate: Estate, scale: float, rounds: int) -> list[QueryTime]:
    """Time the 22 queries on the lake and on its very files read directly, in turn."""
    with open_lake(estate) as lake:
        direct = connect()
        for extension in ("httpfs", "tpch"):
            load_extension(direct, extension)
        for extension in ("postgres_scanner", "ducklake"):  # for the lake's secrets
            load_extension(direct, extension)
        create_secrets(direct, estate)
        for table in _TABLES:
            listed = ", ".join(map(quote_literal, lake.files(table)))
            direct.execute(f"CREATE VIEW {quote_identifier(table)} AS SELECT * FROM read_parquet([{listed}])")
        texts = direct.execute("SELECT query_nr, query FROM tpch_queries() ORDER BY 1").fetchall()
        answers = dict(
            direct.execute("SELECT query_nr, answer FROM tpch_answers() WHERE scale_factor = ?", [scale]).fetchall()
        )
        found = []
        for number, sql in texts:
            times: list[tuple[float, float]] = []
            for _ in range(rounds + 1):  # the first one warms both caches
                of_lake = timed(lambda sql=sql: lake.connection.execute(sql).fetchall())  # type: ignore[misc]
                of_files = timed(lambda sql=sql: direct.execute(sql).fetchall())  # type: ignore[misc]
                times.append((of_lake, of_files))
            rows = lake.connection.execute(sql).fetchall()
            found.append(
                QueryTime(
                    int(number),
                    statistics.median(one for one, _ in times[1:]),
                    statistics.median(other for _, other in times[1:]),
                    statistics.median(one / other for one, other in times[1:]),
                    number in answers and is_right(rows, answers[number]),
                )
            )
        direct.close()
    return found


def is_right(rows: Sequence[Sequence[object]], reference: str) -> bool:
    """Whether rows are a reference answer: texts and dates as they are, numbers to nine digits."""
    wanted = [line.split("|") for line in reference.removesuffix("\n").split("\n")[1:]]
    return len(rows) == len(wanted) and all(
        len(row) == len(line) and all(_same(value, text) for value, text in zip(row, line, strict=True))
        for row, line in zip(rows, wanted, strict=True)
    )


def _same(value: object, text: str) -> bool:
    if str(value if value is not None else "") == text:
        return True
    try:
        number, other = float(str(value)), float(text)
    except ValueError:
        return False
    return abs(number - other) <= 1e-9 * max(abs(number), abs(other), 1.0)


# --- Small files ---------------------------------------------------------------------------------


def small_files(lake: Lake, count: int) -> list[str]:
    """Load and compact small files; return lines for people."""
    folder = f"{lake.root}/batches/small/bench"
    made = timed(lambda: _write_small(lake, folder, count))
    files = [f"{folder}/part={number}/data_0.parquet" for number in range(count)]
    columns = {"id": "BIGINT", "n": "INTEGER"}
    direct = timed(lambda: load(lake, "joined", f"SELECT id, n FROM read_parquet('{folder}/*/*.parquet')", "joined"))
    batch = Batch(new_load_id(), "small", tuple(files), count * 1000, 0, columns)
    committed = timed(lambda: adopt(lake, "small", batch, "small"))
    sql = "SELECT count(*), sum(n) FROM lake.small WHERE id % 7 = 0"
    lake.rows(sql)
    before = statistics.median(timed(lambda: lake.rows(sql)) for _ in range(3))
    answer = lake.rows(sql)
    state = next(one for one in table_states(lake, 256 << 20) if one.table == "small")
    done = compact(lake, state, file_size=256 << 20, rewrite_deleted=0.2, sort_by=[])
    lake.rows(sql)
    after = statistics.median(timed(lambda: lake.rows(sql)) for _ in range(3))
    right = "the same answer" if lake.rows(sql) == answer else "ANOTHER ANSWER"
    return [
        f"{count:,} Parquet files of 1,000 rows on S3 (made in {made:.0f} s):",
        f"  read as the source of one load: {direct:.1f} s, into {len(lake.files('joined'))} file",
        f"  made a table's own as they are: {committed:.1f} s, {state.files:,} files",
        f"  compacted: {done.seconds:.1f} s, {done.after.files:,} files"
        + (f" (conflict: {done.conflict})" if done.conflict else ""),
        f"  a query: {before:.2f} s before, {after:.3f} s after: {before / after:.0f} times faster, {right}",
    ]


def _write_small(lake: Lake, folder: str, count: int) -> None:
    lake.connection.execute(
        f"COPY (SELECT range AS id, (range % 100)::INTEGER AS n, range // 1000 AS part FROM range({count * 1000})) "
        f"TO {quote_literal(folder)} (FORMAT parquet, PARTITION_BY (part), FILENAME_PATTERN 'data_{{i}}')"
    )


# --- Commits and checks --------------------------------------------------------------------------


def commits_per_second(estate_path: Path) -> float:
    """Return how many commits of 1,000 rows four processes bring into one table in a second."""
    command = [sys.executable, "-m", "benchmarks.depth", "--writer", str(estate_path)]
    with open_lake(load_estate(estate_path), read_only=False) as lake:
        load(lake, "busy", "SELECT range AS id FROM range(1000)", "busy-first")
    writers = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for number in range(_WRITERS)
    ]
    for one in writers:
        assert one.stdout is not None
        one.stdout.readline()  # its lake is open
    started = monotonic()
    for one in writers:
        one.communicate(b"go\n")
    seconds = monotonic() - started
    if any(one.returncode for one in writers):
        raise RuntimeError("a writer failed")
    return _WRITERS * _COMMITS / seconds


def write(estate: str, name: str) -> None:
    """Be one of the writers: wait for the word, then commit."""
    with open_lake(load_estate(estate), read_only=False) as lake:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(_COMMITS):
            load(
                lake,
                "busy",
                f"SELECT range AS id FROM range({number} * 1000, {number} * 1000 + 1000)",
                f"busy-{name}-{number}",
            )


def check_cost(lake: Lake, rounds: int) -> tuple[float, float, float]:
    """Return the seconds of counting lineitem's violations, of a bare pass with the same conditions, and of judging."""
    declared = lake.estate.table(CHECKED).expectations
    files = tuple(lake.files("lineitem"))
    batch = Batch("bench", "lineitem", files, 0, 0, lake.columns("lineitem"))
    conditions = [
        f"count(*) FILTER (WHERE {considered_rows(one)}), count(*) FILTER (WHERE {condition})"
        for one in declared
        if (condition := unexpected_rows(one))
    ]
    bare = f"SELECT count(*), {', '.join(conditions)} FROM {batch.relation}"
    counted, passed, judged = [], [], []
    for _ in range(rounds):
        counts = count_violations(lake, batch, declared)
        counted.append(timed(lambda: count_violations(lake, batch, declared)))
        passed.append(timed(lambda: lake.rows(bare)))
        with Judge() as judge:
            judged.append(timed(lambda: judge.verdicts("lineitem", counts)))  # noqa: B023
    return statistics.median(counted), statistics.median(passed), statistics.median(judged)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when every answer is right, whether the targets are met or not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.depth", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of TPC-H (default 1)")
    parser.add_argument("--runs", type=int, default=3, help="rounds (default 3)")
    parser.add_argument("--files", type=int, default=10_000, help="small files (default 10,000)")
    parser.add_argument("--writer", nargs=2, metavar=("ESTATE", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.writer:
        write(*options.writer)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    print(describe(), flush=True)
    with tempfile.TemporaryDirectory(prefix="causeway-depth-") as place:
        folder = Path(place)
        with servers.postgresql(folder) as postgres, servers.seaweedfs(folder / "objects") as weed:
            setting = setting_of(postgres, weed)
            os.environ.update(setting.environment())
            source.recreate_database(setting, CATALOG)
            write_estate(setting, folder / "estate.yaml")
            return _report(load_estate(folder / "estate.yaml"), folder, options)


def _report(estate: Estate, folder: Path, options: argparse.Namespace) -> int:
    with open_lake(estate, read_only=False, memory_limit=2 << 30, temp_directory=folder / "spill") as lake:
        csv = prepare_tpch(lake, options.scale, folder)
        held = next(one.bytes for one in table_states(lake, 1) if one.table == PLAIN)
        counted, passed, judged = check_cost(lake, options.runs)
    print(f"\nlineitem in the lake: {held / 1e6:,.0f} MB, {held / csv:.2f} bytes a byte of CSV")
    print(
        f"checking lineitem: counts {counted:.2f} s, {counted / passed:.2f} times a bare pass with the same conditions "
        f"({passed:.2f} s; target 1.5); Great Expectations' start and verdict {judged:.1f} s beside the load"
    )
    found = queries(estate, options.scale, options.runs)
    print("\nquery   lake s   direct s   ratio   answer")
    for one in found:
        print(
            f"{one.number:>5} {one.lake:8.3f} {one.direct:10.3f} {one.ratio:7.2f}   {'right' if one.right else 'WRONG'}"
        )
    print(f"median of the ratios: {statistics.median(one.ratio for one in found):.2f} (target 1.2)")
    print(f"\ncommits of 1,000 rows by {_WRITERS} writers: {commits_per_second(folder / 'estate.yaml'):.1f} a second\n")
    with open_lake(estate, read_only=False, memory_limit=1 << 30, temp_directory=folder / "spill") as lake:
        print("\n".join(small_files(lake, options.files)))
    return 0 if all(one.right for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
