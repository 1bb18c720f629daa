"""Changes by logical replication: snapshot and stream join, each change once, whatever is killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from connectors.changes import changes
from connectors.errors import BadDataError, ConflictError, EstateError, FixableError
from connectors.estate import Estate, load_estate
from datalake.session import open_lake
from tasks.replicate.steps import Caught, follow
from tests.servers import Running, postgres_binaries

pytestmark = pytest.mark.servers

_SOAK = bool(os.environ.get("CAUSEWAY_SOAK"))


class Shop:
    """A database of its own whose tables an estate follows."""

    def __init__(self, estate_file: Path, postgres: Running) -> None:
        self.path, self._postgres = estate_file, postgres
        content = yaml.safe_load(estate_file.read_text(encoding="utf-8"))
        catalog = content["sites"]["idc"]["databases"]["catalog"]["url"]
        self.url = catalog.replace("/lake_", "/shop_")
        content["sites"]["idc"]["databases"]["shop"] = {"url": self.url, "password": "secret:DB_PASSWORD"}
        estate_file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        self.run(f"CREATE DATABASE {self.url.rpartition('/')[2]}", url=postgres.url)

    def run(self, *statements: str, url: str | None = None) -> None:
        with psycopg.connect(url or self.url, password=self._postgres.password, autocommit=True) as connection:
            for sql in statements:
                connection.execute(sql.encode())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, password=self._postgres.password) as connection:
            return connection.execute(sql.encode()).fetchall()

    def follow_tables(self, **fields: dict[str, Any]) -> None:
        """Declare the source `shop` and its tables, each with the key `id` unless its fields say otherwise."""
        content = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        slot = self.url.rpartition("/")[2]
        content["sources"]["shop"] = {
            "kind": "changes", "site": "idc", "database": "shop", "slot": slot,
            "tables": {name: f"public.{name}" for name in fields},
        }  # fmt: skip
        for name, more in fields.items():
            content["tables"][name] = {"source": "shop", "mode": "merge", "key": ["id"], "owner": "team", **more}
        self.path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    @property
    def estate(self) -> Estate:
        return load_estate(self.path)

    def catch_up(self, **options: Any) -> list[Caught]:
        return follow(self.estate, self.path.parent, "shop", say=lambda _: None, **options)

    def lake(self, sql: str) -> list[tuple[Any, ...]]:
        with open_lake(self.estate) as lake:
            return lake.rows(sql)

    def same(self, table: str, columns: str = "*", order: str = "1") -> bool:
        query = f"SELECT {columns} FROM {{}} ORDER BY {order}"
        return self.lake(query.format(f"lake.{table}")) == self.rows(query.format(f"public.{table}"))


@pytest.fixture
def shop(estate_file: Path, postgres: Running) -> Iterator[Shop]:
    made = Shop(estate_file, postgres)
    yield made
    made.run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")


def test_inserts_updates_deletes_and_truncations_follow_the_snapshot(shop: Shop) -> None:
    shop.run(
        "CREATE TABLE a (id bigint PRIMARY KEY, v text)",
        "INSERT INTO a SELECT g, 'first' FROM generate_series(1, 100) g",
    )
    shop.follow_tables(a={})
    first = shop.catch_up()
    assert [one.snapshots for one in first] == [("a",)]
    assert shop.same("a")
    shop.run(
        "INSERT INTO a VALUES (200, 'new')",
        "UPDATE a SET v = 'changed' WHERE id <= 10",
        "DELETE FROM a WHERE id > 90 AND id < 150",
        "UPDATE a SET id = 300 WHERE id = 50",
        "INSERT INTO a VALUES (400, 'short life')",
        "DELETE FROM a WHERE id = 400",
    )
    second = shop.catch_up()
    assert sum(one.changes for one in second) == 1 + 10 + 10 + 2 + 2
    assert shop.same("a")
    shop.run("TRUNCATE a", "INSERT INTO a VALUES (1, 'after')")
    shop.catch_up()
    assert shop.same("a")
    assert shop.catch_up() == []
    assert shop.lake("SELECT DISTINCT mode FROM ops.loads") == [("changes",)]


def test_every_type_arrives_through_the_stream_as_through_the_snapshot(shop: Shop) -> None:
    kinds = {
        "b": "boolean", "i": "integer", "n": "numeric(12, 3)", "f": "double precision", "t": "text", "c": "varchar(9)",
        "ts": "timestamp", "tz": "timestamptz", "d": "date", "ti": "time", "u": "uuid", "j": "jsonb", "by": "bytea",
        "ia": "integer[]", "ta": "text[]", "iv": "interval", "nd": "numeric[]",
    }  # fmt: skip
    values = (
        "true, -5, 12345.678, 1e300, 'ä\"\\\\'', x', 'c', '2024-02-29 12:00:00.123456', '2024-02-29 12:00+02',"
        " '2024-02-29', '23:59:59.5', '0b0f1d6e-0000-4000-8000-000000000001', '{\"a\": [1, null]}',"
        " '\\x00ff10', '{1,NULL,3}',"
        ' \'{"a,b","q\\"",NULL,""}\', \'1 mon 2 days 03:04:05\', NULL'
    )
    listed = ", ".join(f"{name} {kind}" for name, kind in kinds.items() if name != "nd")
    names = ", ".join(name for name in kinds if name != "nd")
    values = values.rpartition(", NULL")[0]
    shop.run(f"CREATE TABLE a (id integer PRIMARY KEY, {listed})", f"INSERT INTO a (id, {names}) VALUES (1, {values})")
    shop.follow_tables(a={})
    shop.catch_up()
    shop.run(f"INSERT INTO a (id, {names}) VALUES (2, {values})", "INSERT INTO a (id) VALUES (3)")
    shop.catch_up()
    found = shop.lake("SELECT * EXCLUDE (id) FROM lake.a ORDER BY id")
    assert len(found) == 3
    assert found[0] == found[1]
    assert set(found[2]) == {None}


def test_a_large_value_that_an_update_leaves_out_is_kept(shop: Shop) -> None:
    large = "string_agg(md5(g::text), '')"
    shop.run(
        "CREATE TABLE a (id integer PRIMARY KEY, n integer, large text)",
        f"INSERT INTO a SELECT i, 0, (SELECT {large} FROM generate_series(i, i + 500) g) FROM generate_series(1, 3) i",
    )
    shop.follow_tables(a={})
    shop.catch_up()
    shop.run(
        "UPDATE a SET n = 1 WHERE id = 1",
        f"UPDATE a SET large = (SELECT {large} FROM generate_series(5, 600) g) WHERE id = 2",
        "UPDATE a SET n = 2 WHERE id = 2",
        f"INSERT INTO a SELECT 4, 0, {large} FROM generate_series(1, 700) g",
        "UPDATE a SET n = 3 WHERE id = 4",
    )
    shop.catch_up()
    assert shop.same("a")
    assert shop.lake("SELECT min(length(large)) > 10000 FROM lake.a") == [(True,)]


def test_a_table_that_joins_the_group_later_is_read_whole_and_the_others_go_on(shop: Shop) -> None:
    shop.run(
        "CREATE TABLE a (id integer PRIMARY KEY)", "CREATE TABLE b (id integer PRIMARY KEY)", "INSERT INTO a VALUES (1)"
    )
    shop.follow_tables(a={})
    shop.catch_up()
    shop.run("INSERT INTO a VALUES (2)", "INSERT INTO b VALUES (7)")
    shop.follow_tables(a={}, b={})
    assert [one.snapshots for one in shop.catch_up()] == [("b",)]
    shop.run("INSERT INTO a VALUES (3)", "INSERT INTO b VALUES (8)")
    shop.catch_up()
    assert shop.same("a")
    assert shop.same("b")


def test_a_new_column_arrives_and_one_that_is_dropped_stays(shop: Shop) -> None:
    shop.run("CREATE TABLE a (id integer PRIMARY KEY, v text)", "INSERT INTO a VALUES (1, 'x')")
    shop.follow_tables(a={})
    shop.catch_up()
    shop.run("ALTER TABLE a ADD COLUMN n integer", "INSERT INTO a VALUES (2, 'y', 5)")
    shop.catch_up()
    assert shop.lake("SELECT id, v, n FROM lake.a ORDER BY id") == [(1, "x", None), (2, "y", 5)]
    shop.run("ALTER TABLE a DROP COLUMN v", "INSERT INTO a VALUES (3, 6)")
    shop.catch_up()
    assert shop.lake("SELECT id, v, n FROM lake.a ORDER BY id") == [(1, "x", None), (2, "y", 5), (3, None, 6)]


def test_what_is_confirmed_is_what_the_lake_has_and_the_log_held_back_is_seen(shop: Shop) -> None:
    shop.run("CREATE TABLE a (id integer PRIMARY KEY, v text)", "CREATE TABLE other (v text)")
    shop.follow_tables(a={})
    shop.catch_up()
    stream = changes(shop.estate, "shop")
    before = stream.state()
    assert before.exists
    shop.run(
        "INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 5000)", "INSERT INTO a VALUES (1, 'x')"
    )
    assert stream.state().held_back > before.held_back + 4_000_000
    assert stream.state().confirmed == before.confirmed
    assert shop.catch_up()[0].changes == 1
    position = stream.state().confirmed
    assert position > before.confirmed
    shop.run("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 5000)", "CHECKPOINT")
    assert shop.catch_up() == []  # nothing of ours, and yet the log is let go of
    assert stream.state().confirmed > position


def test_a_slot_that_is_lost_is_said_and_a_resync_mends_it(shop: Shop) -> None:
    shop.run("CREATE TABLE a (id integer PRIMARY KEY)", "INSERT INTO a VALUES (1)")
    shop.follow_tables(a={})
    shop.catch_up()
    changes(shop.estate, "shop").drop()
    shop.run("INSERT INTO a VALUES (2)", "DELETE FROM a WHERE id = 1")
    with pytest.raises(
        FixableError, match=r"changes are missing\. Read the tables anew: causeway replicate shop --resync"
    ):
        shop.catch_up()
    shop.catch_up(resync=True)
    assert shop.same("a")
    shop.run("INSERT INTO a VALUES (3)")
    shop.catch_up()
    assert shop.same("a")


def test_a_table_without_a_key_and_two_followers_at_once_are_refused(shop: Shop) -> None:
    shop.run("CREATE TABLE a (id integer)")
    shop.follow_tables(a={})
    with pytest.raises(FixableError, match="has no primary key"):
        shop.catch_up()
    shop.run("ALTER TABLE a ADD PRIMARY KEY (id)")
    stop = threading.Event()
    refused = []

    def second() -> None:
        try:
            shop.catch_up()
        except ConflictError as error:
            refused.append(str(error))
        stop.set()

    thread = threading.Thread(target=second)
    from datetime import UTC, datetime, timedelta

    shop.catch_up()
    until = datetime.now(UTC) + timedelta(seconds=20)
    first = threading.Thread(
        target=lambda: shop.catch_up(until=until if not stop.is_set() else None, pause=lambda: time.sleep(0.1))
    )
    first.start()
    time.sleep(3)
    thread.start()
    thread.join()
    first.join()
    assert len(refused) == 1
    assert "another process has it" in refused[0]


def test_the_estate_says_what_does_not_fit_together(shop: Shop) -> None:
    shop.run("CREATE TABLE a (id integer PRIMARY KEY)")
    shop.follow_tables(a={"mode": "append"})
    with pytest.raises(EstateError, match="a table that follows changes is merged"):
        load_estate(shop.path)
    shop.follow_tables(a={})
    from tasks.ingest.plan import plan_load

    with pytest.raises(BadDataError, match="causeway replicate shop"):
        plan_load(shop.estate, "a", None, None, None, "run")


def test_pgbench_with_a_consumer_that_is_killed_leaves_the_same_rows(shop: Shop, postgres: Running) -> None:
    """CAUSEWAY_SOAK=1: scale 10, 4 clients, 120 s and 20 kills; else a short one."""
    scale, seconds, kills = (10, 120, 20) if _SOAK else (1, 15, 4)
    binaries = postgres_binaries()
    assert binaries is not None
    environment = {**os.environ, "PGPASSWORD": postgres.password}
    name = shop.url.rpartition("/")[2]
    port = shop.url.rpartition(":")[2].partition("/")[0]
    client = ["-h", "127.0.0.1", "-p", port, "-U", "business", name]
    pgbench = str(binaries / "pgbench")
    subprocess.run([pgbench, "-i", "-q", "-s", str(scale), *client], env=environment, check=True, capture_output=True)
    # The history of pgbench has no key; it names its columns when it inserts.
    shop.run("ALTER TABLE pgbench_history ADD COLUMN id bigserial PRIMARY KEY")
    shop.follow_tables(
        pgbench_accounts={"key": ["aid"]},
        pgbench_branches={"key": ["bid"]},
        pgbench_tellers={"key": ["tid"]},
        pgbench_history={},
    )
    load = subprocess.Popen(
        [pgbench, "-c", "4", "-T", str(seconds), "-n", *client], env=environment, stdout=subprocess.PIPE, text=True
    )
    chance, killed, started = random.Random(3), 0, time.monotonic()
    command = [sys.executable, "-m", "tests.flows.follower", str(shop.path), "shop", str(seconds + 600)]
    consumer = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while load.poll() is None:
        time.sleep(chance.uniform(0.4, 1.6) * seconds / kills)
        consumer.kill()
        consumer.wait()
        killed += 1
        consumer = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    consumer.kill()
    consumer.wait()
    behind = time.monotonic()
    shop.catch_up()
    report = load.communicate()[0]
    print(f"{killed} kills in {behind - started:.0f} s, caught up in {time.monotonic() - behind:.0f} s")
    print("\n".join(line for line in report.splitlines() if "processed" in line or "tps" in line))
    assert killed >= kills // 2
    for table, key in (("accounts", "aid"), ("branches", "bid"), ("tellers", "tid"), ("history", "id")):
        columns = {
            "history": "id, tid, bid, aid, delta",
            "accounts": "aid, bid, abalance",
            "branches": "bid, bbalance",
            "tellers": "tid, bid, tbalance",
        }
        assert shop.same(f"pgbench_{table}", columns[table], key), table
