"""Servers are killed with SIGKILL in mid-load: clear errors, nothing partial, and every row once afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

import flows.ingest
from connectors.errors import CausewayError, StorageFullError, UnavailableError
from connectors.objects import Objects
from datalake.session import open_lake
from deployments.embedded import Home, State, remove, status, up
from deployments.embedded.ports import load_ports
from deployments.embedded.secrets import load_secrets
from flows.ingest import ingest
from tasks.ingest import steps
from tests import servers
from tests.flows.child import Child
from tests.flows.estates import Declared
from tests.flows.server import child_environment, prefect_server, wait_until
from tests.servers import Running, seaweedfs, weed_binary

pytestmark = pytest.mark.servers

SERVERS = ("prefect", "idc-objects", "idc-database")
ROWS = 300_000
_GATE = 4711
_VIEW = f"""
CREATE TABLE public.source AS SELECT g::bigint AS id, md5(g::text) AS text FROM generate_series(1, {ROWS}) AS g;
CREATE FUNCTION public.gate(id bigint) RETURNS bigint LANGUAGE plpgsql AS '
    BEGIN IF id = {ROWS // 2} THEN PERFORM pg_advisory_xact_lock_shared({_GATE}); END IF; RETURN id; END';
"""


class Installation:
    """The embedded estate, with two tables whose loads stop in the middle while the gate is closed."""

    def __init__(self, home: Path) -> None:
        self.home = Home(home)
        self.declared = Declared(home.parent / "estate.yaml")

    def up(self) -> None:
        """Mend what is broken, and write the estate with this test's tables."""
        assert up(self.home, progress=lambda _: None, services=SERVERS).healthy
        content = yaml.safe_load(self.home.estate_file.read_text())
        self.declared.path.write_text(yaml.safe_dump({**content, "sources": {}, "tables": {}}))
        shutil.copy2(self.home.secrets_file, self.declared.path.parent / "secrets.json")
        gated = "SELECT public.gate(id) AS id, text FROM public.source"
        database = {"kind": "database", "site": "idc", "database": "business"}
        self.declared.add("t", {**database, "query": gated}, mode="replace")
        self.declared.add(
            "events", {"kind": "objects", "site": "idc", "bucket": "events", "path": "*.jsonl", "format": "jsonl"},
            mode="replace",
        )  # fmt: skip
        self.declared.add(
            "bad", {**database, "table": "public.source"},
            expectations=[{"expect": "table_row_count_to_be_between", "max_value": 1}],
        )  # fmt: skip

    def sql(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            host="127.0.0.1", port=load_ports(self.home)["IDC_DATABASE_PORT"], dbname="business",
            user="business", password=load_secrets(self.home)["BUSINESS_PASSWORD"], autocommit=True,
        )  # fmt: skip

    def prefect_url(self) -> str:
        return f"http://127.0.0.1:{load_ports(self.home)['PREFECT_PORT']}/api"

    def child(self, table: str = "t") -> Child:
        environment = {
            **child_environment(self.prefect_url()),
            "CHILD_RETRY_SECONDS": "1",
            "PREFECT_CLIENT_MAX_RETRIES": "1",
        }
        return Child(environment, str(self.declared), table)

    def kill(self, name: str) -> None:
        pid = status(self.home)[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: status(self.home)[name].state is State.DEAD, 20)

    @contextmanager
    def gate(self, child: Child) -> Iterator[None]:
        """Let a child load until it has half of its rows; it goes on when the context ends."""
        with closing(self.sql()) as holder:  # closing does not mind that the server is gone
            holder.execute("SELECT pg_advisory_lock(%s)", [_GATE])
            child.go()
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'"
            assert wait_until(lambda: bool(holder.execute(waits).fetchall()) or child.ended(), 120)
            assert not child.ended(), "\n".join(child.lines)
            yield

    def require_once(self, table: str = "t", rows: int = ROWS) -> None:
        found = self.declared.rows(f"SELECT count(*), count(DISTINCT id), sum(id) FROM lake.{table}")
        assert found == [(rows, rows, rows * (rows + 1) // 2)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose lake has a quarantined batch, and in `t` the rows of an earlier load."""
    made = Installation(tmp_path_factory.mktemp("killed") / "home")
    try:
        made.up()
        with made.sql() as connection:
            connection.execute(_VIEW.encode())
        store = made.declared.store
        store.ensure_bucket("events")
        for part in range(2):
            lines = "".join(json.dumps({"id": part * 5000 + n}) + "\n" for n in range(1, 5001))
            store.put("events", f"{part}.jsonl", lines.encode())
        assert made.child("bad").result()[1] == "QuarantinedError"
        assert made.child().result() == ["report", "committed", str(ROWS)]
        yield made
    finally:
        remove(made.home)


@pytest.fixture
def mended(shared: Installation) -> Iterator[Installation]:
    """The installation, whole; afterwards whole again, with its old rows and its quarantine intact."""
    shared.up()
    shared.require_once()
    yield shared
    shared.up()
    shared.require_once()
    assert shared.declared.count("bad") is None
    (batch_url,) = shared.declared.rows("SELECT DISTINCT batch_url FROM ops.quarantine")[0]
    with open_lake(shared.declared.estate) as lake:
        kept = lake.value("SELECT count(*) FROM read_parquet(?)", [str(batch_url).split()])
    assert kept == ROWS


def test_the_object_store_killed_in_mid_load_is_named_and_the_old_rows_stay(mended: Installation) -> None:
    child = mended.child()
    with mended.gate(child):
        mended.kill("idc-objects")
    kind, error, text = child.result()
    assert (kind, error) == ("error", "UnavailableError")
    assert "causeway status" in text or "Check that the store is running" in text
    mended.up()
    mended.require_once()
    assert mended.declared.loads("t")[-1][0] == "committed"  # the failure itself could not be written
    assert mended.child().result() == ["report", "committed", str(ROWS)]


def test_an_object_store_that_is_back_in_time_is_not_even_noticed(mended: Installation) -> None:
    child = mended.child()
    with mended.gate(child):
        mended.kill("idc-objects")
        mended.up()
    assert child.result() == ["report", "committed", str(ROWS)]


def test_the_database_killed_in_mid_load_is_named_and_the_old_rows_stay(mended: Installation) -> None:
    child = mended.child()
    with mended.gate(child):
        mended.kill("idc-database")
    with pytest.raises(psycopg.OperationalError):
        mended.sql()
    kind, error, text = child.result()
    assert (kind, error) == ("error", "UnavailableError")
    assert str(load_ports(mended.home)["IDC_DATABASE_PORT"]) in text or "postgresql" in text
    assert load_secrets(mended.home)["BUSINESS_PASSWORD"] not in "\n".join(child.lines)
    mended.up()
    mended.require_once()
    assert mended.child().result() == ["report", "committed", str(ROWS)]


def test_the_prefect_server_killed_in_mid_load_does_not_stop_the_load_but_its_end_is_not_told(
    mended: Installation,
) -> None:
    before = mended.declared.loads("t")
    child = mended.child()
    with mended.gate(child):
        mended.kill("prefect")
    assert wait_until(child.ended, 240)
    child.close()
    assert child.process.returncode != 0
    assert child.says("httpx.ConnectError")  # no error of ours: Prefect can't keep an artifact or end a run
    assert mended.declared.loads("t") == [*before, ("committed", ROWS, None)]
    mended.require_once()
    mended.up()
    assert mended.child().result() == ["report", "committed", str(ROWS)]


def test_all_servers_killed_at_once_are_mended_and_objects_and_tables_are_loaded_once(
    mended: Installation,
) -> None:
    child = mended.child()
    with mended.gate(child):
        for name in SERVERS:
            mended.kill(name)
        child.kill()
    with pytest.raises(psycopg.OperationalError):
        mended.sql()
    mended.up()
    for _ in range(2):
        assert mended.child("events").result() == ["report", "committed", "10000"]
        mended.require_once("events", 10_000)
    assert mended.child().result() == ["report", "committed", str(ROWS)]


def fill(declared: Declared) -> None:
    """Write until nothing more fits."""
    store = declared.store
    store.ensure_bucket("filler")
    store.ensure_bucket(declared.bucket)  # each bucket has volumes of its own
    for bucket in ("filler", declared.bucket):
        with pytest.raises(CausewayError):
            _put_until_refused(store, bucket)


def _put_until_refused(store: Objects, bucket: str) -> None:
    for number in range(100):
        store.put(bucket, f"filler/{number}", os.urandom(1 << 20))


def takes_writes(declared: Declared) -> bool:
    """Whether the lake's bucket takes a small object."""
    try:
        declared.store.put(declared.bucket, "filler/small", b"small")
    except CausewayError:
        return False
    return True


def test_a_full_store_is_named_shows_nothing_and_the_load_works_once_there_is_room(
    estate_file: Path, postgres: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, small = weed_binary(), tmp_path / "weed"
    small.write_text(f'#!/bin/sh\nexec {real} "$@" -volume.max=8 -master.volumeSizeLimitMB=1\n')
    small.chmod(0o755)
    declared, place = Declared(estate_file), tmp_path / "store"
    source = f"public.full_{declared.bucket.removeprefix('lake-')}"
    with psycopg.connect(postgres.url, password=postgres.password, autocommit=True) as connection:
        connection.execute(
            f"CREATE TABLE {source} AS SELECT g::bigint AS id, md5(g::text) || md5((-g)::text) AS text "
            f"FROM generate_series(1, {ROWS}) AS g".encode()
        )
    database = {"kind": "database", "site": "idc", "database": "business", "table": source}
    declared.add("t", database)

    def use(store: Running) -> None:
        monkeypatch.setenv("SMALL_ACCESS", store.username)
        monkeypatch.setenv("SMALL_SECRET", store.password)
        sites = declared.content()["sites"]
        keys = {"access_key": "secret:SMALL_ACCESS", "secret_key": "secret:SMALL_SECRET"}
        sites["idc"]["objects"] = {"url": store.url, **keys}
        declared.change(sites=sites)

    hasty = steps.stage_batch.with_options(retry_delay_seconds=[0, 0, 0])
    monkeypatch.setattr(flows.ingest, "stage_batch", hasty)
    with prefect_server():
        with monkeypatch.context() as patch:
            patch.setattr(servers, "weed_binary", lambda: small)
            with seaweedfs(place) as store:
                use(store)
                fill(declared)
                # SeaweedFS answers 500 and no more, so that it can't be a StorageFullError.
                with pytest.raises((StorageFullError, UnavailableError)) as caught:
                    ingest(str(declared), "t", load_key="full")
                assert "free space" in str(caught.value) or "room" in str(caught.value)
                assert store.password not in str(caught.value)
                assert declared.count("t") is None
        with seaweedfs(place) as store:
            use(store)
            assert wait_until(lambda: takes_writes(declared), 30)  # its volumes are back later than its gateway
            assert declared.count("t") is None
            assert ingest(str(declared), "t", load_key="full").rows == ROWS
            assert declared.rows("SELECT count(*), count(DISTINCT id) FROM lake.t") == [(ROWS, ROWS)]
            assert ingest(str(declared), "t", load_key="full").status == "already-loaded"
