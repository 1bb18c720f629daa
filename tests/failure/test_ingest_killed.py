"""Ingest is killed with SIGKILL: nothing partial is ever visible, and run again it brings every row once."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from minio import Minio

from connectors.errors import QuarantinedError
from datalake.batch import sweep
from datalake.session import open_lake
from flows.ingest import ingest
from tests.flows.child import Child
from tests.flows.estates import Declared
from tests.flows.server import Prefect, child_environment, prefect_server, wait_until
from tests.servers import Running

pytestmark = pytest.mark.servers

SEED = int(os.environ.get("CAUSEWAY_KILL_SEED") or random.randrange(1_000_000))
"""Set CAUSEWAY_KILL_SEED to repeat a run's points in time."""
APPENDS, MERGES = 14, 6
ROWS = 100_000
MERGED = 20_000


@pytest.fixture(scope="module")
def prefect() -> Iterator[Prefect]:
    """A Prefect server that this process and its children use."""
    with prefect_server() as running:
        yield running


@dataclass(frozen=True)
class Place:
    """An estate, the database that it loads from, and how children are started in it."""

    declared: Declared
    postgres: Running
    store: Running
    environment: dict[str, str]
    source: str

    def child(self, *bounds: str, table: str = "t") -> Child:
        return Child(self.environment, str(self.declared), table, *bounds)

    @contextmanager
    def sql(self, *, catalog: bool = False) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        url = self.declared.estate.database("idc", "catalog").url if catalog else self.postgres.url
        with psycopg.connect(url, password=self.postgres.password, autocommit=True) as connection:
            yield connection

    def minio(self) -> Minio:
        host = self.store.url.partition("://")[2]
        return Minio(host, self.store.username, self.store.password, secure=False)

    def visible(self) -> tuple[int, int, int]:
        """Return, of one snapshot, the rows and their sum, and the rows that ops.loads says were committed.

        The sum of a merge counts versions.
        """
        found = self.declared.rows(
            "SELECT (SELECT count(*) FROM lake.t), (SELECT sum(n)::BIGINT FROM lake.t), "
            "(SELECT sum(rows)::BIGINT FROM ops.loads WHERE table_name = 't' AND status = 'committed')"
        )
        rows, total, loaded = found[0]
        return int(rows), int(total), int(loaded)


@pytest.fixture
def place(estate_file: Path, postgres: Running, object_store: Running, prefect: Prefect, tmp_path: Path) -> Place:
    """An estate whose table `t` has nothing in it yet; its source is a table with the column `part`."""
    declared = Declared(estate_file)
    spill = tmp_path / "tmp"
    spill.mkdir()
    environment = {**child_environment(prefect.url), "TMPDIR": str(spill)}
    source = f"public.killed_{declared.bucket.removeprefix('lake-')}"
    return Place(declared, postgres, object_store, environment, source)


def append_source(place: Place, parts: int, rows: int = ROWS) -> None:
    """Make parts of `rows` rows each, every n once, and load part 0."""
    with place.sql() as connection:
        connection.execute(
            f"CREATE TABLE {place.source} AS SELECT g / {rows} AS part, g::bigint AS n, md5(g::text) AS text "
            f"FROM generate_series(0, {parts * rows - 1}) AS g".encode()
        )
    declare(place)
    assert ingest(str(place.declared), "t", start="0", end="1").rows == rows


def declare(place: Place, **fields: object) -> None:
    database = {"kind": "database", "site": "idc", "database": "business", "table": place.source}
    place.declared.add("t", database, **{"cursor": "part", **fields})


def total(rows: int) -> int:
    """The sum of 0, 1, ... rows - 1."""
    return rows * (rows - 1) // 2


def killed_at(child: Child, seconds: float) -> None:
    """Let a child load and kill it so much later, unless it has ended; what it started ends with it."""
    child.go()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not child.ended():
        time.sleep(0.005)
    kill_with_family(child)


def kill_with_family(child: Child) -> None:
    """Kill a child; the processes that it started end by themselves."""
    family = child.children()
    child.kill()
    assert wait_until(lambda: not any(_runs(pid) for pid in family), 30)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def duration(child: Child) -> float:
    """Return the seconds that a child takes that nobody disturbs."""
    child.go()
    began = time.monotonic()
    assert child.result()[1] == "committed"
    return time.monotonic() - began


def points(seconds: float, count: int) -> list[float]:
    """Return random points in time, one in each of `count` equal parts of a life, in random order."""
    chosen = random.Random(SEED)
    found = [(number + chosen.random()) / count * seconds for number in range(count)]
    chosen.shuffle(found)
    return found


def test_an_append_killed_at_random_points_adds_each_row_once(place: Place) -> None:
    append_source(place, APPENDS + 2)
    life = duration(place.child("1", "2"))
    print(f"CAUSEWAY_KILL_SEED={SEED}, one load takes {life:.2f} s")
    following = place.child("2", "3")
    for number, seconds in enumerate(points(life, APPENDS), 2):
        child, before, after = following, number * ROWS, (number + 1) * ROWS
        killed_at(child, seconds)
        rows, found, loaded = place.visible()
        moment = f"seed {SEED}: killed after {seconds:.3f} s of part {number}"
        assert rows in (before, after), moment
        assert (found, loaded) == (total(rows), rows), moment
        if number < APPENDS + 1:  # it imports while this process runs the load again
            following = place.child(str(number + 1), str(number + 2))
        again = ingest(str(place.declared), "t", start=str(number), end=str(number + 1))
        assert again.status == ("committed" if rows == before else "already-loaded"), moment
        assert place.visible() == (after, total(after), after), moment
    assert place.declared.value("SELECT count(DISTINCT n) FROM lake.t") == (APPENDS + 2) * ROWS


def test_a_merge_killed_at_random_points_shows_the_old_rows_or_the_new(place: Place) -> None:
    """Each time all rows get a new version in the source, and a hundred are added to it."""
    with place.sql() as connection:
        connection.execute(
            f"CREATE TABLE {place.source} AS SELECT g AS id, 0::bigint AS n, md5(g::text) AS text "
            f"FROM generate_series(1, {MERGED}) AS g".encode()
        )
    declare(place, mode="merge", key=["id"], cursor=None)
    ingest(str(place.declared), "t")

    def renew(version: int) -> tuple[int, int]:
        with place.sql() as connection:
            connection.execute(
                f"INSERT INTO {place.source} SELECT g, 0, 'new' FROM generate_series("
                f"{MERGED + 100 * version - 99}, {MERGED + 100 * version}) AS g".encode()
            )
            connection.execute(f"UPDATE {place.source} SET n = {version}".encode())
        rows = MERGED + 100 * version
        return rows, rows * version

    after = renew(1)
    life = duration(place.child())
    print(f"CAUSEWAY_KILL_SEED={SEED}, one merge takes {life:.2f} s")
    following = place.child()
    for version, seconds in enumerate(points(life, MERGES), 2):
        child, before, after = following, after, renew(version)
        killed_at(child, seconds)
        moment = f"seed {SEED}: killed after {seconds:.3f} s of version {version}"
        assert place.visible()[:2] in (before, after), moment
        if version < MERGES + 1:
            following = place.child()
        assert ingest(str(place.declared), "t").status == "committed"
        assert place.visible()[:2] == after, moment
    assert place.declared.rows("SELECT count(DISTINCT id), min(n), max(n) FROM lake.t") == [
        (after[0], MERGES + 1, MERGES + 1)
    ]


def first_sign(place: Place, child: Child) -> bool:
    """The first object or unfinished upload of the batch is there."""
    bucket, prefix = place.declared.bucket, "batches/t/"
    known = place.declared.batch_files("t")
    client = place.minio()

    def seen() -> bool:
        uploads = client._list_multipart_uploads(bucket, prefix=prefix).uploads
        return bool(uploads) or place.declared.batch_files("t") != known or child.ended()

    return wait_until(seen, 60)


def is_staged(place: Place, child: Child) -> bool:
    """The batch is whole, and nothing of it is committed."""
    return wait_until(lambda: child.says("staged") or child.ended(), 60)


@pytest.mark.parametrize("sign", [first_sign, is_staged])
def test_an_append_killed_at_a_sign_adds_each_row_once(place: Place, sign: Callable[[Place, Child], bool]) -> None:
    append_source(place, 2)
    child = place.child("1", "2")
    child.go()
    assert sign(place, child)
    kill_with_family(child)
    rows, found, loaded = place.visible()
    assert rows in (ROWS, 2 * ROWS)
    assert (found, loaded) == (total(rows), rows)
    ingest(str(place.declared), "t", start="1", end="2")
    assert place.visible() == (2 * ROWS, total(2 * ROWS), 2 * ROWS)


_WAITS = b"SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def waits(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Whether a session of this database waits for a lock."""
    found = connection.execute(_WAITS).fetchone()
    return bool(found and found[0])


def test_an_append_killed_while_its_commit_writes_the_catalog_is_not_visible(place: Place) -> None:
    append_source(place, 2)
    with place.sql(catalog=True) as watch, place.sql(catalog=True) as holder:
        holder.autocommit = False
        holder.execute("LOCK TABLE public.ducklake_snapshot IN SHARE MODE")
        child = place.child("1", "2")
        child.go()
        assert wait_until(lambda: waits(watch) or child.ended(), 60)
        assert not child.ended()
        kill_with_family(child)
        assert place.visible() == (ROWS, total(ROWS), ROWS)
        holder.rollback()
        assert wait_until(lambda: not waits(watch), 10)
    rows, found, loaded = place.visible()
    assert rows in (ROWS, 2 * ROWS)
    assert (found, loaded) == (total(rows), rows)
    ingest(str(place.declared), "t", start="1", end="2")
    assert place.visible() == (2 * ROWS, total(2 * ROWS), 2 * ROWS)


def test_an_append_killed_after_its_commit_was_sent_is_whole_and_not_loaded_again(place: Place) -> None:
    """The killed process never hears of its commit: a trigger holds PostgreSQL up in the COMMIT itself."""
    append_source(place, 2)
    with place.sql(catalog=True) as watch, place.sql(catalog=True) as holder:
        holder.execute(
            "CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END'"
        )
        holder.execute(
            "CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON public.ducklake_snapshot "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.hold()"
        )
        holder.execute("SELECT pg_advisory_lock(4711)")
        child = place.child("1", "2")
        child.go()
        assert wait_until(lambda: waits(watch) or child.ended(), 60)
        assert not child.ended()
        kill_with_family(child)
        assert place.visible() == (ROWS, total(ROWS), ROWS)
        holder.execute("SELECT pg_advisory_unlock(4711)")
        assert wait_until(lambda: not waits(watch), 10)
        assert wait_until(lambda: place.visible()[0] == 2 * ROWS, 10)
    assert place.visible() == (2 * ROWS, total(2 * ROWS), 2 * ROWS)
    again = ingest(str(place.declared), "t", start="1", end="2")
    assert again.status == "already-loaded"
    assert place.visible() == (2 * ROWS, total(2 * ROWS), 2 * ROWS)


def test_what_killed_loads_left_is_swept_and_nothing_else(place: Place) -> None:
    append_source(place, 4, rows=1000)
    orphans: set[str] = set()
    for part in ("1", "2"):
        known = place.declared.batch_files("t")
        with place.sql(catalog=True) as holder:  # so that it can't commit before it is killed
            holder.autocommit = False
            holder.execute("LOCK TABLE public.ducklake_snapshot IN SHARE MODE")
            child = place.child(part, str(int(part) + 1))
            child.go()
            assert is_staged(place, child)
            kill_with_family(child)
            holder.rollback()
        left = place.declared.batch_files("t") - known
        assert left
        orphans |= left
    client, bucket = place.minio(), place.declared.bucket
    client._create_multipart_upload(bucket, "batches/t/killed/data_0.parquet", {})

    refused = {"expect": "column_values_to_be_between", "column": "n", "max_value": 0}
    declare(place, expectations=[refused])
    with pytest.raises(QuarantinedError):
        ingest(str(place.declared), "t", start="3", end="4")
    before = place.declared.batch_files("t")
    (batch_url,) = place.declared.rows("SELECT DISTINCT batch_url FROM ops.quarantine")[0]

    with open_lake(place.declared.estate, read_only=False) as lake:
        assert sweep(lake, "t", older_than=timedelta(hours=1)) == 0
        assert place.declared.batch_files("t") == before
        assert sweep(lake, "t", older_than=timedelta(0)) == len(orphans)
        assert sweep(lake, "t", older_than=timedelta(0)) == 0
        kept = set(lake.files("t")) | set(str(batch_url).split())
    assert place.declared.batch_files("t") == before - orphans == kept
    assert not client._list_multipart_uploads(bucket, prefix="batches/").uploads
    assert place.visible() == (1000, total(1000), 1000)
    read = place.declared.value("SELECT count(*) FROM read_parquet(?)", str(batch_url).split())
    assert read == 1000

    declare(place)
    for number in (1, 2, 3):
        assert ingest(str(place.declared), "t", start=str(number), end=str(number + 1)).status == "committed"
    assert place.visible() == (4000, total(4000), 4000)
