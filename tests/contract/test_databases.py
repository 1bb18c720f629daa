"""What every database driver does, against real servers."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from connectors.databases import ColumnInfo, Database, database
from connectors.errors import (
    AccessDeniedError,
    BadDataError,
    CausewayError,
    ConflictError,
    FixableError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)
from connectors.estate import Endpoint
from connectors.secrets import SecretRef

pytestmark = pytest.mark.servers


def test_logging_in_gives_the_version(business: Database) -> None:
    assert int(business.version().split(".")[0]) >= 15


def test_a_table_and_a_query_are_described(business: Database, table: str) -> None:
    business.execute(f"CREATE TABLE {table} (id bigint NOT NULL, price numeric(10,2), tags text[])")
    assert business.columns(table) == [
        ColumnInfo("id", "bigint", nullable=False),
        ColumnInfo("price", "numeric(10,2)", nullable=True),
        ColumnInfo("tags", "text[]", nullable=True),
    ]
    described = business.columns(f"SELECT price, now() AS at FROM {table};")
    assert [(one.name, one.type) for one in described] == [
        ("price", "numeric(10,2)"),
        ("at", "timestamp with time zone"),
    ]


def test_rows_are_streamed_into_a_new_table_in_one_transaction(business: Database, table: str) -> None:
    def rows(bad: bool) -> Iterator[tuple[object, object]]:
        yield from ((number, f"name {number}") for number in range(1000))
        if bad:
            yield "no number", None

    columns = {"id": "integer", "a name": "text"}
    assert business.write_rows(table, columns, rows(bad=False)) == 1000
    with pytest.raises(BadDataError, match='"no number"'):
        business.write_rows(table, columns, rows(bad=True))
    assert business.query(f"SELECT count(*) AS n FROM {table}") == [{"n": 1000}]


def test_parameters_and_percent_signs_are_taken_literally(business: Database, table: str) -> None:
    business.execute(f"CREATE TABLE {table} (a text)")
    assert business.execute(f"INSERT INTO {table} VALUES (%s), (%s)", ["x'; --", "y"]) == 2
    assert business.query(f"SELECT a FROM {table} WHERE a LIKE 'x%'") == [{"a": "x'; --"}]


def test_one_at_a_time_is_let_into_the_exclusive_context(business: Database) -> None:
    inside, most = [0], [0]

    def enter() -> None:
        with business.exclusive("test-lock"):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            inside[0] -= 1

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def _hold(endpoint: Endpoint) -> None:
    with database(endpoint).exclusive("killed-lock"):
        time.sleep(60)


def test_a_killed_holder_lets_go_of_the_lock(endpoint: Endpoint, business: Database) -> None:
    holder = multiprocessing.get_context("fork").Process(target=_hold, args=(endpoint,))
    holder.start()
    held = "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND granted"
    end = time.monotonic() + 10
    while business.query(held) == [{"n": 0}] and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()
    with business.exclusive("killed-lock"):
        pass


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT * FROM absent_table", NotFoundError),
        ("SELECT absent_column FROM pg_class", NotFoundError),
        ("SELEC 1", FixableError),
        ("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$", ConflictError),
        ("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '53100'; END $$", StorageFullError),
        ("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '53300'; END $$", UnavailableError),
        ("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '42501'; END $$", AccessDeniedError),
        ("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '57P03'; END $$", UnavailableError),
    ],
)
def test_errors_say_what_to_do_next(business: Database, sql: str, kind: type[CausewayError]) -> None:
    with pytest.raises(kind) as caught:
        business.execute(sql)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_missing_table_is_named(business: Database) -> None:
    with pytest.raises(NotFoundError, match=r"public\.absent.*Create the table"):
        business.columns("public.absent")


def test_a_wrong_password_is_denied_and_never_shown(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRONG_PASSWORD", "not-the-right-one")
    wrong = database(endpoint.model_copy(update={"password": SecretRef("WRONG_PASSWORD")}))
    with pytest.raises(AccessDeniedError) as caught:
        wrong.version()
    shown = f"{caught.value!r} {caught.value} {wrong!r} {wrong.address()!r} {endpoint!r}"
    assert "not-the-right-one" not in shown
    assert "password's secret" in shown


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ((r"/business$", "/absent"), NotFoundError),
        (("business@", "somebody@"), AccessDeniedError),
        (("127.0.0.1", "absent.invalid"), UnavailableError),
    ],
)
def test_a_wrong_address_is_told_apart(endpoint: Endpoint, change: tuple[str, str], kind: type[CausewayError]) -> None:
    with pytest.raises(kind):
        database(endpoint.model_copy(update={"url": re.sub(*change, endpoint.url)})).version()


def test_a_server_that_is_not_there_is_unavailable(endpoint: Endpoint) -> None:
    gone = endpoint.model_copy(update={"url": "postgresql://business@127.0.0.1:9/business"})
    with pytest.raises(UnavailableError, match="refused"):
        database(gone).version()


def test_tls_that_the_server_lacks_is_no_reason_to_try_again(endpoint: Endpoint) -> None:
    strict = endpoint.model_copy(update={"url": f"{endpoint.url}?sslmode=require"})
    with pytest.raises(FixableError, match="sslmode"):
        database(strict).version()
