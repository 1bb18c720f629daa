"""DuckDB connections and extensions."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors import duck
from connectors.errors import CapabilityError


def test_a_connection_reaches_for_nothing_by_itself() -> None:
    connection = duck.connect()
    settings = dict(connection.execute("SELECT name, value FROM duckdb_settings()").fetchall())
    assert settings["autoinstall_known_extensions"] == "false"
    assert settings["autoload_known_extensions"] == "false"
    assert settings["allow_community_extensions"] == "false"
    assert settings["allow_persistent_secrets"] == "false"
    assert settings["TimeZone"] == "UTC"


def test_memory_and_threads_are_limited_and_nothing_is_spilled_unasked(tmp_path: Path) -> None:
    connection = duck.connect(memory_limit=64 * 2**20, threads=1)
    with pytest.raises(duckdb.OutOfMemoryException):
        connection.execute("CREATE TABLE t AS SELECT i, md5(i::VARCHAR) FROM range(5000000) r(i)")
    spilling = duck.connect(memory_limit=64 * 2**20, threads=1, temp_directory=tmp_path)
    assert spilling.execute("SELECT current_setting('temp_directory')").fetchall() == [(str(tmp_path),)]
    assert not Path(".tmp").exists()


@pytest.mark.parametrize("name", ["httpfs", "ducklake", "postgres_scanner"])
def test_the_packaged_extensions_are_found_without_running_package_code(name: str) -> None:
    file = duck.extension_file(name)
    assert file is not None
    assert os.access(file, os.R_OK)


def test_an_extension_is_loaded_once_and_asked_for_again_without_harm() -> None:
    connection = duck.connect()
    duck.load_extension(connection, "httpfs")
    duck.load_extension(connection, "httpfs")


def test_an_absent_extension_is_a_lost_capability_with_a_next_step() -> None:
    with pytest.raises(CapabilityError, match=r"Install duckdb-extension-no-such==1\.5\.5"):
        duck.load_extension(duck.connect(), "no_such")


@pytest.mark.parametrize("default", ["memory", "lake"])
def test_an_open_transaction_is_noticed_and_kept(default: str, tmp_path: Path) -> None:
    connection = duck.connect()
    duck.load_extension(connection, "ducklake")
    connection.execute(f"ATTACH 'ducklake:{tmp_path}/catalog' AS lake (DATA_PATH '{tmp_path}/data')")
    connection.execute(f"USE {default}")
    assert not any(duck.in_transaction(connection) for _ in range(50))
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE made AS SELECT 1 AS a")
    assert all(duck.in_transaction(connection) for _ in range(50))
    connection.execute("COMMIT")
    assert connection.execute("FROM made").fetchall() == [(1,)]
    connection.execute("BEGIN")
    with pytest.raises(duckdb.Error):
        connection.execute("SELECT 'x'::INTEGER")
    assert duck.in_transaction(connection)
    connection.execute("ROLLBACK")
    assert not duck.in_transaction(connection)


QUOTING = duck.connect(threads=1)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_quoted_texts_and_names_come_back_as_they_were(text: str) -> None:
    found = QUOTING.execute(f"SELECT {duck.quote_literal(text)} AS {duck.quote_identifier(text)}")
    assert found.fetchall() == [(text,)]
    assert found.description
    assert found.description[0][0] == text
