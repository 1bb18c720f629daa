"""What every source of rows does: the same rows from a database, from objects, from files and over HTTP."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest

from connectors.databases import Database
from connectors.duck import connect
from connectors.errors import AccessDeniedError, BadDataError, FixableError, NotFoundError
from connectors.estate import Endpoint, ObjectStore
from connectors.objects import Objects
from connectors.secrets import SecretRef
from connectors.sources import Slice, Source, source
from tests.contract.conftest import MakeSource, estate_of
from tests.json_api import JsonApi

pytestmark = pytest.mark.servers

ROWS = [(number, f"name {number}", f"2024-01-{number % 28 + 1:02}") for number in range(500)]
CSV = "id,name,day\n" + "".join(f"{a},{b},{c}\n" for a, b, c in ROWS)
JSONL = "".join(json.dumps({"id": a, "name": b, "day": c}) + "\n" for a, b, c in ROWS)
TYPES = {"day": "DATE"}
ALL = Slice()


def rows_of(made: Source, connection: duckdb.DuckDBPyConnection, part: Slice = ALL) -> list[tuple[Any, ...]]:
    """Return all rows; what DuckDB raises while it pulls is translated, as a load does it."""
    with made.scan(connection, part) as select:
        try:
            return connection.execute(select).fetchall()
        except duckdb.Error as error:
            raise made.translate(error) from error


@pytest.fixture(params=["table", "query", "csv", "jsonl", "parquet", "objects csv", "objects parquet", "http"])
def same_rows(
    request: pytest.FixtureRequest,
    make_source: MakeSource,
    tmp_path: Path,
    business: Database,
    table: str,
    stored: Objects,
    bucket: str,
) -> Iterator[Source]:
    """ROWS, behind each kind of source."""
    kind = str(request.param)
    if kind in ("table", "query"):
        business.write_rows(table, {"id": "bigint", "name": "text", "day": "date"}, ROWS)
        asked = {"table": table} if kind == "table" else {"query": f"SELECT * FROM {table};"}
        yield make_source(TYPES, kind="database", site="here", database="business", **asked)
    elif kind == "http":
        with JsonApi([{"id": a, "name": b, "day": c} for a, b, c in ROWS]) as api:
            yield make_source(TYPES, kind="http", url=api.url, items="items", pagination="page")
    else:
        file_format = kind.rsplit(maxsplit=1)[-1]
        data = {"csv": CSV, "jsonl": JSONL}.get(file_format, "").encode() or _parquet(tmp_path)
        if kind.startswith("objects"):
            stored.put(bucket, f"in/a b/1.{file_format}", data)
            where = {"kind": "objects", "site": "here", "bucket": bucket, "path": f"in/**/*.{file_format}"}
        else:
            (tmp_path / f"1.{file_format}").write_bytes(data)
            where = {"kind": "files", "path": f"*.{file_format}"}
        yield make_source(TYPES, **where, format=file_format)


def _parquet(folder: Path) -> bytes:
    connection = connect()
    (folder / "made.csv").write_text(CSV)
    connection.execute(f"COPY (FROM '{folder}/made.csv') TO '{folder}/made' (FORMAT parquet)")
    (folder / "made.csv").unlink()
    return (folder / "made").read_bytes()


def test_all_rows_arrive_typed_as_declared(same_rows: Source, duck: duckdb.DuckDBPyConnection) -> None:
    rows = rows_of(same_rows, duck)
    assert sorted((a, b, str(c)) for a, b, c in rows) == ROWS
    assert {type(row[2]).__name__ for row in rows} == {"date"}


def test_a_slice_begins_at_its_start_and_ends_before_its_end(
    same_rows: Source, duck: duckdb.DuckDBPyConnection
) -> None:
    rows = rows_of(same_rows, duck, Slice("day", "2024-01-05", "2024-01-07"))
    assert sorted((a, b, str(c)) for a, b, c in rows) == [row for row in ROWS if "2024-01-05" <= row[2] < "2024-01-07"]
    open_ended = rows_of(same_rows, duck, Slice("day", None, "2024-01-02"))
    assert len(open_ended) == len([row for row in ROWS if row[2] == "2024-01-01"])


def test_slices_cover_every_row_once(same_rows: Source, duck: duckdb.DuckDBPyConnection) -> None:
    edges = [None, "2024-01-03", "2024-01-20", None]
    parts = [Slice("day", start, end) for start, end in pairwise(edges)]
    ids = [row[0] for part in parts for row in rows_of(same_rows, duck, part)]
    assert sorted(ids) == [row[0] for row in ROWS]


def test_a_cursor_that_is_no_column_is_refused_with_the_choices(
    same_rows: Source, duck: duckdb.DuckDBPyConnection
) -> None:
    with pytest.raises(NotFoundError, match="Choose one of: id, name, day"):
        rows_of(same_rows, duck, Slice("absent", "1", "2"))
    with pytest.raises(FixableError, match="no cursor"):
        rows_of(same_rows, duck, Slice(None, "1", "2"))


def test_nothing_is_left_on_the_connection(same_rows: Source, duck: duckdb.DuckDBPyConnection) -> None:
    rows_of(same_rows, duck)
    for left in (
        "duckdb_secrets()",
        "duckdb_views() WHERE NOT internal",
        "duckdb_databases() WHERE NOT internal AND database_name <> 'memory'",
    ):
        assert duck.execute(f"SELECT count(*) FROM {left}").fetchall() == [(0,)]


def test_a_select_can_be_described_and_run_again(same_rows: Source, duck: duckdb.DuckDBPyConnection) -> None:
    with same_rows.scan(duck, ALL) as select:
        duck.execute(f"DESCRIBE {select}")
        counts = [duck.execute(f"SELECT count(*) FROM ({select})").fetchall() for _ in range(2)]
    assert counts == [[(500,)], [(500,)]]


def test_a_description_names_the_place(same_rows: Source) -> None:
    assert same_rows.describe().startswith("source 'x' (")


# --- Databases -----------------------------------------------------------------------------------


@pytest.fixture
def typed(business: Database, table: str, make_source: MakeSource) -> Any:
    """Make a table of one column with one value, and the source that reads it."""

    def make(kind: str, value: str, declared: str | None = None) -> Source:
        business.execute(f"CREATE TABLE {table} (c {kind})")
        business.execute(f"INSERT INTO {table} VALUES ({value})")
        types = {"c": declared} if declared else {}
        return make_source(types, kind="database", site="here", database="business", table=table)

    return make


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("numeric(38,10)", "1.5", "DECIMAL(38,10)"),
        ("timestamptz", "now()", "TIMESTAMP WITH TIME ZONE"),
        ("uuid", "gen_random_uuid()", "UUID"),
        ("jsonb", "'{\"a\": [1]}'", "JSON"),
        ("int[]", "'{1,2}'", "INTEGER[]"),
        ("bytea", "'\\x00ff'", "BLOB"),
        ("interval", "'1 month'", "INTERVAL"),
        ("boolean", "true", "BOOLEAN"),
        ("double precision", "'NaN'", "DOUBLE"),
    ],
)
def test_types_of_a_database_arrive_as_they_are(
    typed: Any, duck: duckdb.DuckDBPyConnection, kind: str, value: str, expected: str
) -> None:
    with typed(kind, value).scan(duck, ALL) as select:
        assert str(duck.execute(f"DESCRIBE {select}").fetchall()[0][1]) == expected


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("timestamptz", "'infinity'", "infinity"),
        ("timestamp", "'-infinity'", "-infinity"),
        ("date", "'20000-01-01'", "20000-01-01"),
        ("date", "'0044-03-15 BC'", "0044-03-15 (BC)"),
        ("timestamptz", "'280000-01-01 10:00+00'", "280000-01-01 10:00:00+00"),
        ("real", "'NaN'", "nan"),
        ("int4range", "'[1,5)'", "[1,5)"),
        ("int4multirange", "'{[1,5)}'", "{[1,5)}"),
        ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
        ("bit(3)", "B'101'", "101"),
        ("text[]", "'{a,NULL}'", "[a, NULL]"),
        ("timestamptz[]", "'{infinity}'", "[infinity]"),
        ("point", "'(1,2)'", "(1,2)"),
        ("oid", "4294967295", "4294967295"),
        ("bytea[]", "ARRAY['\\x00'::bytea]", '{"\\\\x00"}'),
        ("pair", "ROW(1, 'a')", "(1,a)"),
        ("mood[]", "'{fine}'", "[fine]"),
        ("positive", "5", "5"),
        ("exact", "1.5", "1.50"),
    ],
)
def test_a_value_is_the_same_in_a_whole_table_a_slice_and_a_query(
    business: Database,
    table: str,
    make_source: MakeSource,
    duck: duckdb.DuckDBPyConnection,
    kind: str,
    value: str,
    expected: str,
) -> None:
    made = {
        "mood": "TYPE mood AS ENUM ('fine', 'bad')",
        "pair": "TYPE pair AS (a int, b text)",
        "positive": "DOMAIN positive AS int",
        "exact": "DOMAIN exact AS numeric(10,2)",
    }.get(kind.removesuffix("[]"))
    if made:
        business.execute(f"DROP {made.split(' AS')[0]} CASCADE" if _has_type(business, kind) else "SELECT 1")
        business.execute(f"CREATE {made}")
    business.execute(f"CREATE TABLE {table} (id int, c {kind})")
    business.execute(f"INSERT INTO {table} VALUES (1, {value})")
    place = {"kind": "database", "site": "here", "database": "business"}
    whole, query = make_source({}, **place, table=table), make_source({}, **place, query=f"SELECT * FROM {table}")
    found = set()
    for made_source, part in ((whole, ALL), (whole, Slice("id", "1", "2")), (query, ALL)):
        with made_source.scan(duck, part) as select:
            found |= set(duck.execute(f"SELECT typeof(c), c::VARCHAR FROM ({select})").fetchall())
    assert [text for _, text in found] == [expected]


def _has_type(business: Database, kind: str) -> bool:
    return bool(business.query("SELECT 1 FROM pg_type WHERE typname = %s", [kind.removesuffix("[]")]))


def test_a_nan_below_a_domain_never_becomes_zero(
    business: Database, table: str, make_source: MakeSource, duck: duckdb.DuckDBPyConnection
) -> None:
    business.execute("DROP DOMAIN IF EXISTS amount CASCADE")
    business.execute("CREATE DOMAIN amount AS numeric(10,2)")
    business.execute(f"CREATE TABLE {table} (c amount)")
    business.execute(f"INSERT INTO {table} VALUES ('NaN')")
    with pytest.raises(BadDataError, match="column 'c'"):
        rows_of(make_source({}, kind="database", site="here", database="business", table=table), duck)


def test_an_enum_arrives_as_text(business: Database, typed: Any, duck: duckdb.DuckDBPyConnection) -> None:
    business.execute("DROP TYPE IF EXISTS mood CASCADE")
    business.execute("CREATE TYPE mood AS ENUM ('fine', 'bad')")
    assert rows_of(typed("mood", "'fine'"), duck) == [("fine",)]


@pytest.mark.parametrize("kind", ["numeric", "numeric(40,2)", "numeric(5,-2)", "numeric[]", "money"])
def test_a_type_that_duckdb_would_round_is_refused_by_name(
    typed: Any, duck: duckdb.DuckDBPyConnection, kind: str
) -> None:
    with pytest.raises(BadDataError, match=r"column 'c' is .*no exact type in DuckDB.*Declare its type"):
        rows_of(typed(kind, "NULL"), duck)


def test_a_declared_type_makes_a_free_numeric_exact(typed: Any, duck: duckdb.DuckDBPyConnection) -> None:
    exact = "12345678901234567.0123456789"
    assert rows_of(typed("numeric", exact, "DECIMAL(38,10)"), duck) == [(Decimal(exact),)]


def test_a_declared_type_never_rounds_in_silence(typed: Any, duck: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(BadDataError, match="column 'c' holds a value that is not a number that fits"):
        rows_of(typed("numeric", "1.239", "DECIMAL(10,2)"), duck)


@pytest.mark.parametrize(("kind", "declared"), [("numeric(10,2)", None), ("numeric", "DECIMAL(10,2)")])
def test_a_numeric_nan_never_becomes_zero(
    typed: Any, duck: duckdb.DuckDBPyConnection, kind: str, declared: str | None
) -> None:
    with pytest.raises(BadDataError, match="column 'c'"):
        rows_of(typed(kind, "'NaN'", declared), duck)


@pytest.mark.parametrize("kind", ["numeric(10,2)", "numeric(10,2)[]"])
@pytest.mark.parametrize("by", ["view", "query", "slice"])
def test_a_numeric_nan_never_becomes_zero_however_it_is_read(
    business: Database,
    table: str,
    make_source: MakeSource,
    duck: duckdb.DuckDBPyConnection,
    kind: str,
    by: str,
) -> None:
    business.execute(f"CREATE TABLE {table} (id int, c {kind})")
    nan = "'{1,NaN}'" if kind.endswith("[]") else "'NaN'"
    business.execute(f"INSERT INTO {table} VALUES (1, NULL), (2, {nan})")
    business.execute(f"CREATE VIEW {table}_v AS SELECT * FROM {table}")
    asked = {"query": f"SELECT * FROM {table}"} if by == "query" else {"table": f"{table}{'_v' * (by == 'view')}"}
    made = make_source(kind="database", site="here", database="business", **asked)
    part = Slice("id", "1", "3") if by == "slice" else ALL
    with pytest.raises(BadDataError, match=r": column 'c' holds a value that is not a number that fits its type\."):
        rows_of(made, duck, part)
    assert rows_of(made, duck, Slice("id", "1", "2")) == [(1, None)]


MEMORY = """
import re, sys
from pathlib import Path
from connectors.duck import connect, load_extension
from connectors.estate import Estate
from connectors.sources import Slice, source
estate = Estate.model_validate_json(sys.argv[1])
connection = connect(memory_limit=128 * 2**20, threads=2)
load_extension(connection, "postgres_scanner")
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
with source(estate, "x", {}, Path()).scan(connection, Slice(*sys.argv[2:])) as select:
    print(*connection.execute(f"SELECT count(*), count(DISTINCT length(pad)) FROM ({select})").fetchall()[0])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.parametrize("by", ["table", "analysed table", "view", "query", "slice"])
def test_a_large_table_is_never_held_whole(
    business: Database, table: str, store: ObjectStore, endpoint: Endpoint, by: str
) -> None:
    """400 MB of rows, with a numeric to watch, under a limit of 128 MB."""
    business.execute(
        f"CREATE TABLE {table} AS SELECT i AS id, i::numeric(10,2) AS n, repeat(md5(i::text), 25) AS pad "
        "FROM generate_series(1, 500000) i"
    )
    if by == "analysed table":
        business.execute(f"ANALYZE {table}")
    business.execute(f"CREATE VIEW {table}_v AS SELECT * FROM {table}")
    asked = {"query": f"SELECT * FROM {table}"} if by == "query" else {"table": f"{table}{'_v' * (by == 'view')}"}
    declared = {"kind": "database", "site": "here", "database": "business", **asked}
    estate = estate_of(declared, objects=store, databases={"business": endpoint})
    part = ["id", "0", "1000000"] if by == "slice" else []
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, estate.model_dump_json(exclude_none=True), *part],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    base, counts, peak = done.stdout.splitlines()
    assert counts == "500000 1"
    assert (int(peak) - int(base)) // 1024 < 128 + 64  # DuckDB's limit, and what libpq buffers for two threads


def test_a_numeric_nan_stays_one_where_double_is_declared(typed: Any, duck: duckdb.DuckDBPyConnection) -> None:
    assert math.isnan(rows_of(typed("numeric(10,2)", "'NaN'", "DOUBLE"), duck)[0][0])


def test_infinite_dates_stay_infinite(typed: Any, duck: duckdb.DuckDBPyConnection) -> None:
    with typed("timestamptz", "'infinity'").scan(duck, ALL) as select:
        assert duck.execute(f"SELECT isinf(c) FROM ({select})").fetchall() == [(True,)]


def test_arrays_of_several_dimensions_are_refused(typed: Any, duck: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(BadDataError, match="dimensions"):
        rows_of(typed("int[]", "'{{1,2},{3,4}}'"), duck)


def test_an_extract_is_one_snapshot(
    business: Database, table: str, make_source: MakeSource, duck: duckdb.DuckDBPyConnection
) -> None:
    """Two columns of each row are always equal; updates that run beside the scan must not show in part."""
    business.execute(
        f"CREATE TABLE {table} AS SELECT i AS id, 0 AS a, repeat('x', 500) AS pad FROM generate_series(1, 60000) i"
    )
    made = make_source(kind="database", site="here", database="business", table=table)
    stop = threading.Event()

    def update() -> None:
        while not stop.is_set():
            business.execute(f"UPDATE {table} SET a = a + 1")

    writer = threading.Thread(target=update)
    writer.start()
    try:
        for _ in range(3):
            with made.scan(duck, ALL) as select:
                found = duck.execute(f"SELECT count(*), count(DISTINCT id), count(DISTINCT a) FROM ({select})")
                assert found.fetchall() == [(60000, 60000, 1)]
    finally:
        stop.set()
        writer.join()


def test_views_partitions_and_odd_names_are_read(
    business: Database, table: str, make_source: MakeSource, duck: duckdb.DuckDBPyConnection
) -> None:
    business.execute(f'CREATE TABLE {table} ("A b" int, n numeric(5,2)) PARTITION BY LIST ("A b")')
    for number in (1, 2):
        business.execute(f"CREATE TABLE {table}_{number} PARTITION OF {table} FOR VALUES IN ({number})")
    business.execute(f"INSERT INTO {table} VALUES (1, 1), (2, 2)")
    business.execute(f"CREATE VIEW {table}_v AS SELECT * FROM {table}")
    for name in (table, f"{table}_v"):
        made = make_source(kind="database", site="here", database="business", table=name)
        assert sorted(rows_of(made, duck)) == [(1, Decimal("1.00")), (2, Decimal("2.00"))]
        assert rows_of(made, duck, Slice("A b", "2", None)) == [(2, Decimal("2.00"))]


def test_a_table_has_an_estimate_once_it_is_analysed(business: Database, table: str, make_source: MakeSource) -> None:
    business.write_rows(table, {"id": "int"}, [(number,) for number in range(100)])
    business.execute(f"ANALYZE {table}")
    assert make_source(kind="database", site="here", database="business", table=table).estimate() == 100


def test_a_bad_bound_is_told_before_rows_flow(typed: Any, duck: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(FixableError, match="invalid input syntax for type integer"):
        rows_of(typed("integer", "1"), duck, Slice("c", "x'; --", None))


def test_a_transaction_may_still_be_open_when_the_scan_ends(typed: Any, duck: duckdb.DuckDBPyConnection) -> None:
    made = typed("integer", "1")
    duck.execute("BEGIN")
    with made.scan(duck, ALL) as select:
        duck.execute(f"CREATE TABLE copied AS {select}")
    duck.execute("COMMIT")
    assert duck.execute("FROM copied").fetchall() == [(1,)]


# --- Secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["database", "objects"])
def test_no_secret_is_shown_when_access_is_denied(
    kind: str,
    store: ObjectStore,
    endpoint: Endpoint,
    bucket: str,
    duck: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WRONG", "not-the-right-'one")
    sites = {
        "objects": store.model_copy(update={"secret_key": SecretRef("WRONG")}),
        "databases": {"business": endpoint.model_copy(update={"password": SecretRef("WRONG")})},
    }
    declared: dict[str, Any] = {"kind": "database", "site": "here", "database": "business", "table": "public.t"}
    if kind == "objects":
        declared = {"kind": "objects", "site": "here", "bucket": bucket, "path": "*.csv", "format": "csv"}
    made = source(estate_of(declared, **sites), "x", {}, tmp_path)
    with pytest.raises(AccessDeniedError) as caught:
        rows_of(made, duck)
    shown = f"{caught.value!r} {caught.value} {made!r} {vars(made)!r} {capfd.readouterr()}"
    assert "not-the-right" not in shown


def test_what_duckdb_says_of_a_failed_attach_is_translated_without_secrets(
    make_source: MakeSource, endpoint: Endpoint, duck: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is changed between the look at the columns and DuckDB's own login."""
    made = make_source(kind="database", site="here", database="business", query="SELECT 1 AS a")
    columns = made._columns()  # type: ignore[attr-defined]
    monkeypatch.setattr(made, "_columns", lambda: columns)
    monkeypatch.setenv("DB_PASSWORD", "not-the-right-one")
    with pytest.raises(AccessDeniedError, match="password authentication failed") as caught:
        rows_of(made, duck)
    assert "not-the-right-one" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_a_secret_that_duckdb_refuses_is_not_shown(
    make_source: MakeSource, duck: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_source(kind="database", site="here", database="business", query="SELECT 1 AS a")
    columns = made._columns()  # type: ignore[attr-defined]
    monkeypatch.setattr(made, "_columns", lambda: columns)
    monkeypatch.setattr("connectors.sources.database.unique_name", lambda kind: f"not valid {kind}")
    monkeypatch.setenv("DB_PASSWORD", "not-the-right-one")
    with pytest.raises(Exception, match=r".") as caught:
        rows_of(made, duck)
    assert "not-the-right-one" not in f"{caught.value!r} {caught.value}"


# --- Objects -------------------------------------------------------------------------------------


def test_a_missing_bucket_and_a_missing_object_are_named(
    make_source: MakeSource, bucket: str, duck: duckdb.DuckDBPyConnection
) -> None:
    with pytest.raises(NotFoundError, match=r"absent-bucket.*Create the bucket"):
        rows_of(make_source(kind="objects", site="here", bucket="absent-bucket", path="*.csv", format="csv"), duck)
    with pytest.raises(NotFoundError, match="no file matches"):
        rows_of(make_source(kind="objects", site="here", bucket=bucket, path="*.csv", format="csv"), duck)


def test_odd_keys_are_read_and_one_that_duckdb_cannot_read_is_named(
    make_source: MakeSource, stored: Objects, bucket: str, duck: duckdb.DuckDBPyConnection
) -> None:
    made = make_source(kind="objects", site="here", bucket=bucket, path="**.csv", format="csv")
    for key in ("plain.csv", "a b/ü&+%20[1]*.csv"):
        stored.put(bucket, key, b"id\n1\n")
    assert rows_of(made, duck) == [(1,), (1,)]
    stored.put(bucket, "what?.csv", b"id\n1\n")
    with pytest.raises(BadDataError, match=r"what\?\.csv.*Rename"):
        rows_of(made, duck)


def test_bad_input_in_an_object_is_named_by_line(
    make_source: MakeSource, stored: Objects, bucket: str, duck: duckdb.DuckDBPyConnection
) -> None:
    stored.put(bucket, "bad.csv", CSV.encode() + b"1,ragged\n" + CSV.encode())
    made = make_source(kind="objects", site="here", bucket=bucket, path="*.csv", format="csv")
    with pytest.raises(BadDataError, match=r"bad\.csv: line 502: 2 columns where the header has 3"):
        rows_of(made, duck)


def test_parquet_objects_have_an_exact_estimate(
    make_source: MakeSource, stored: Objects, bucket: str, tmp_path: Path
) -> None:
    for number in (1, 2):
        stored.put(bucket, f"{number}.parquet", _parquet(tmp_path))
    made = make_source(kind="objects", site="here", bucket=bucket, path="*.parquet", format="parquet")
    assert made.estimate() == 1000
