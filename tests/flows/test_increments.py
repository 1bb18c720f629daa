"""Increments: what is new by a cursor, late rows by an overlap, and deletions by tombstones and absent keys."""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from connectors.errors import BadDataError, PolicyError
from flows.ingest import ingest
from tests.flows.estates import Declared
from tests.servers import Running

pytestmark = pytest.mark.servers

_HOUR_OVERLAP = {"cursor": "changed", "increment": {"overlap": "1h"}}


@pytest.fixture
def orders(postgres: Running, declared: Declared) -> str:
    """A table of the business database: id, changed (a time), v; returns its name."""
    name = f"public.orders_{declared.bucket.removeprefix('lake-')}"
    run(
        postgres,
        f"CREATE TABLE {name} (id bigint PRIMARY KEY, changed timestamptz, v text, gone boolean DEFAULT false)",
    )
    return name


def run(postgres: Running, sql: str, *parameters: Any) -> None:
    with psycopg.connect(postgres.url, password=postgres.password, autocommit=True) as connection:
        connection.execute(sql.encode(), parameters or None)


def declare(declared: Declared, name: str, **fields: Any) -> None:
    source = {"kind": "database", "site": "idc", "database": "business", "table": name}
    declared.add("orders", source, key=["id"], **fields)


def put(postgres: Running, name: str, *rows: tuple[int, str | None, str]) -> None:
    for one in rows:
        run(
            postgres,
            f"INSERT INTO {name} (id, changed, v) VALUES (%s, %s, %s)"
            " ON CONFLICT (id) DO UPDATE SET changed = excluded.changed, v = excluded.v",
            *one,
        )


def same(declared: Declared, postgres: Running, name: str) -> bool:
    """Whether the lake's table has the source's rows, each once."""
    with psycopg.connect(postgres.url, password=postgres.password) as connection:
        wanted = connection.execute(f"SELECT id, v FROM {name} ORDER BY id".encode()).fetchall()
    return declared.rows("SELECT id, v FROM lake.orders ORDER BY id") == wanted


@pytest.mark.parametrize("mode", ["merge", "append", "replace"])
def test_an_increment_takes_what_is_new_and_late_rows_within_the_overlap(
    declared: Declared, orders: str, postgres: Running, mode: str
) -> None:
    declare(declared, orders, mode=mode, **_HOUR_OVERLAP)
    put(postgres, orders, (1, "2020-01-01 10:00Z", "a"), (2, "2020-01-01 12:00Z", "a"), (3, None, "a"))
    assert ingest(str(declared), "orders").rows == 3
    put(postgres, orders, (4, "2020-01-01 11:15Z", "late"), (5, "2020-01-01 13:00Z", "new"), (6, None, "new"))
    second = ingest(str(declared), "orders")
    assert second.rows == 5  # 2 and 4 of the overlap, 5, and those without a time: 3 and 6
    assert second.written == (3 if mode == "append" else 5)
    assert same(declared, postgres, orders)
    third = ingest(str(declared), "orders")
    assert (third.status, third.rows) == ("committed", 4)
    assert same(declared, postgres, orders)
    marks = declared.rows("SELECT cursor_mark FROM ops.loads WHERE table_name = 'orders' ORDER BY started_at")
    assert [datetime.fromisoformat(mark) for (mark,) in marks] == [
        datetime(2020, 1, 1, 12, tzinfo=UTC),
        datetime(2020, 1, 1, 13, tzinfo=UTC),
        datetime(2020, 1, 1, 13, tzinfo=UTC),
    ]


def test_increments_by_a_number_begin_the_overlap_before_the_greatest(
    declared: Declared, orders: str, postgres: Running
) -> None:
    declare(declared, orders, mode="append", cursor="id", increment={"overlap": 2})
    put(postgres, orders, *((number, None, "a") for number in (1, 2, 3, 7, 8, 9)))
    assert ingest(str(declared), "orders").rows == 6
    put(postgres, orders, (6, None, "missed: beyond the overlap"), (10, None, "new"))
    report = ingest(str(declared), "orders")
    assert (report.rows, report.written) == (4, 1)
    full = ingest(str(declared), "orders", full=True)
    assert (full.rows, full.written) == (8, 1)
    assert same(declared, postgres, orders)


def test_a_row_from_the_future_does_not_hide_what_follows(declared: Declared, orders: str, postgres: Running) -> None:
    declare(declared, orders, mode="merge", **_HOUR_OVERLAP)
    put(postgres, orders, (1, "2999-01-01 00:00Z", "wrong date"))
    ingest(str(declared), "orders")
    put(postgres, orders, (2, (datetime.now(UTC) - timedelta(minutes=10)).isoformat(), "new"))
    ingest(str(declared), "orders")
    assert same(declared, postgres, orders)


def test_two_increments_at_once_are_one(declared: Declared, orders: str, postgres: Running) -> None:
    declare(declared, orders, mode="append", **_HOUR_OVERLAP)
    put(postgres, orders, *((number, "2020-01-01 10:00Z", "a") for number in range(50)))
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(ingest(str(declared), "orders"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "committed" in {one.status for one in reports}
    assert same(declared, postgres, orders)


@pytest.mark.parametrize("mode", ["merge", "append"])
def test_rows_that_come_at_random_are_each_there_once(
    declared: Declared, orders: str, postgres: Running, mode: str
) -> None:
    declare(declared, orders, mode=mode, **_HOUR_OVERLAP)
    chance = random.Random(7)
    now, number = datetime(2020, 1, 1, tzinfo=UTC), 0
    for _ in range(4):
        for _ in range(20):
            number += 1
            late = timedelta(seconds=chance.uniform(0, 3500))
            put(postgres, orders, (number, (now - late).isoformat(), f"v{number}"))
            now += timedelta(seconds=chance.uniform(0, 5))
        ingest(str(declared), "orders")
    assert same(declared, postgres, orders)


def test_a_tombstone_deletes_its_key_also_in_the_first_load(declared: Declared, orders: str, postgres: Running) -> None:
    declare(declared, orders, mode="merge", deleted_when="gone", **_HOUR_OVERLAP)
    put(postgres, orders, (1, "2020-01-01 10:00Z", "a"), (2, "2020-01-01 10:01Z", "a"), (3, "2020-01-01 10:02Z", "a"))
    run(postgres, f"UPDATE {orders} SET gone = true WHERE id = 1")
    ingest(str(declared), "orders")
    assert declared.rows("SELECT id FROM lake.orders ORDER BY id") == [(2,), (3,)]
    run(postgres, f"UPDATE {orders} SET gone = true, changed = '2020-01-01 10:30Z' WHERE id = 2")
    report = ingest(str(declared), "orders")
    assert report.deleted == 1
    assert declared.rows("SELECT id FROM lake.orders ORDER BY id") == [(3,)]
    assert ingest(str(declared), "orders").deleted == 0
    run(postgres, f"UPDATE {orders} SET gone = false, changed = '2020-01-01 10:40Z' WHERE id = 2")
    ingest(str(declared), "orders")
    assert declared.rows("SELECT id FROM lake.orders ORDER BY id") == [(2,), (3,)]


@pytest.mark.parametrize("by", ["increment", "whole"])
def test_keys_that_the_source_lost_are_deleted(declared: Declared, orders: str, postgres: Running, by: str) -> None:
    declare(declared, orders, mode="merge", delete_absent=True, **(_HOUR_OVERLAP if by == "increment" else {}))
    put(postgres, orders, *((number, f"2020-01-01 {number:02}:00Z", "a") for number in range(10)))
    ingest(str(declared), "orders")
    run(postgres, f"DELETE FROM {orders} WHERE id < 3")
    put(postgres, orders, (11, "2020-01-01 20:00Z", "new"))
    report = ingest(str(declared), "orders")
    assert report.deleted == 3
    assert same(declared, postgres, orders)
    assert declared.value("SELECT rows_deleted FROM ops.loads ORDER BY started_at DESC LIMIT 1") == 3


def test_a_source_that_lost_most_of_its_keys_is_not_believed(
    declared: Declared, orders: str, postgres: Running
) -> None:
    declare(declared, orders, mode="merge", delete_absent=True, delete_at_most=0.3)
    put(postgres, orders, *((number, None, "a") for number in range(10)))
    ingest(str(declared), "orders")
    run(postgres, f"DELETE FROM {orders} WHERE id > 3")
    with pytest.raises(PolicyError, match=r"6 of 10 rows would go, and delete_at_most is 0\.3"):
        ingest(str(declared), "orders")
    assert declared.count("orders") == 10


def test_a_changed_cursor_begins_anew_and_a_wrong_overlap_is_refused(
    declared: Declared, orders: str, postgres: Running
) -> None:
    declare(declared, orders, mode="merge", **_HOUR_OVERLAP)
    put(postgres, orders, (1, "2020-01-01 10:00Z", "a"), (2, "2020-01-02 10:00Z", "a"))
    ingest(str(declared), "orders")
    content = declared.content()
    content["tables"]["orders"] |= {"cursor": "id", "increment": {"overlap": 1}}
    declared.change(tables=content["tables"])
    assert ingest(str(declared), "orders").rows == 2
    content["tables"]["orders"] |= {"increment": {"overlap": "1h"}}
    declared.change(tables=content["tables"])
    with pytest.raises(BadDataError, match="the overlap is a time, and the cursor id is BIGINT"):
        ingest(str(declared), "orders")


def test_an_increment_takes_no_key_of_the_users(declared: Declared, orders: str, postgres: Running) -> None:
    declare(declared, orders, mode="merge", **_HOUR_OVERLAP)
    with pytest.raises(BadDataError, match="an increment has a key of its own"):
        ingest(str(declared), "orders", load_key="mine")
