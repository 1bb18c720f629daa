"""Opens the lake: a DuckDB connection on which its tables are `lake.<table>` and its evidence `ops.<table>`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb

from connectors.databases import database
from connectors.duck import connect, load_extension, quote_identifier, quote_literal, s3_secret
from connectors.errors import CausewayError, NotFoundError
from connectors.estate import Estate
from connectors.objects import objects
from datalake.translation import lake_errors

ALIAS = "lake"
_EXTENSIONS = ("httpfs", "postgres_scanner", "ducklake")

# A commit carries its load's key in this column of DuckLake's catalog, and PostgreSQL keeps it unique:
# of two processes that commit the same key, one fails, whatever the moment at which it was killed.
_KEY_INDEX = (
    "CREATE UNIQUE INDEX IF NOT EXISTS causeway_load_key "
    "ON public.ducklake_snapshot_changes (commit_extra_info) WHERE commit_extra_info IS NOT NULL"
)
_SETTINGS = MappingProxyType(
    {
        "preserve_insertion_order": "false",
        "enable_progress_bar": "false",
        # Parts of uploads are buffered whole: at DuckDB's default of 80 MB each they would be most of a load's
        # memory. With this largest file (of 10,000 parts) a part has S3's least size, 5 MB.
        "s3_uploader_max_filesize": "'50GB'",
        "http_timeout": "30",
        "http_retries": "2",
        "ducklake_max_retry_count": "15",
        "ducklake_retry_wait_ms": "20",
        "ducklake_retry_backoff": "1.2",
    }
)


@dataclass(frozen=True)
class Lake:
    """An open lake. One thread at a time uses a connection; open another for a second one."""

    estate: Estate
    connection: duckdb.DuckDBPyConnection

    @property
    def root(self) -> str:
        """URL below which every file of the lake lies, without a slash at its end."""
        return lake_root(self.estate)

    @property
    def place(self) -> str:
        """Name of the lake for people."""
        return f"{self.root} ({self.estate.lake.site})"

    def rows(self, sql: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Return all rows of a small statement; raises the lake's errors."""
        with lake_errors("query", self.place):
            found: list[tuple[Any, ...]] = self.connection.execute(sql, parameters).fetchall()
        return found

    def value(self, sql: str, parameters: list[Any] | None = None) -> Any:
        """Return the first column of the first row."""
        return self.rows(sql, parameters)[0][0]

    def version(self) -> int:
        """Return the number of the snapshot that this connection reads now."""
        return int(self.value(f"SELECT id FROM {ALIAS}.current_snapshot()"))

    def has_table(self, table: str, schema: str = "main") -> bool:
        """Whether a table exists in the snapshot that is read."""
        found = self.rows(
            "SELECT 1 FROM duckdb_tables() WHERE database_name = ? AND schema_name = ? AND table_name = ?",
            [ALIAS, schema, table],
        )
        return bool(found)

    def columns(self, table: str, schema: str = "main") -> dict[str, str]:
        """Return the DuckDB types of a table's columns in their order; empty when there is no table."""
        found = self.rows(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = ?"
            " AND schema_name = ? AND table_name = ? ORDER BY column_index",
            [ALIAS, schema, table],
        )
        return dict(found)

    def files(self, table: str) -> list[str]:
        """Return the URLs of a table's data files in the snapshot that is read."""
        found = self.rows(f"SELECT data_file FROM ducklake_list_files('{ALIAS}', ?)", [table])
        return [str(row[0]) for row in found]


def is_open(lake: Lake) -> bool:
    """Whether the connection has not been closed; whether the servers answer is not asked."""
    try:
        lake.connection.execute("SELECT 1")
    except duckdb.ConnectionException:
        return False
    return True


def lake_root(estate: Estate) -> str:
    """Return the URL below which every file of the estate's lake lies."""
    prefix = estate.lake.prefix.strip("/")
    return f"s3://{estate.lake.bucket}" + (f"/{prefix}" if prefix else "")


@contextmanager
def open_lake(
    estate: Estate,
    *,
    read_only: bool = True,
    version: int | None = None,
    at: datetime | None = None,
    memory_limit: int | None = None,
    threads: int | None = None,
    temp_directory: Path | None = None,
) -> Iterator[Lake]:
    """Open the lake at its newest snapshot, at a `version`, or as it was at a time (which reads only).

    `memory_limit` is in bytes. A lake that was never opened for writing is made by the first one that does.
    Raises NotFoundError for an unknown snapshot or a lake that is not there yet, AccessDeniedError,
    UnavailableError.
    """
    pinned = version is not None or at is not None
    if not read_only and not pinned:
        _prepare(estate)
    connection = connect(memory_limit, threads, temp_directory)
    try:
        _configure(connection)
        if not read_only:
            # What a load reads, it reads once; DuckDB's cache of it would come on top of the memory limit.
            connection.execute("SET enable_external_file_cache = false")
        with lake_errors("open", lake_root(estate)):
            create_secrets(connection, estate)
            _attach(connection, read_only=read_only or pinned, version=version, at=at)
        yield Lake(estate, connection)
    finally:
        connection.close()


def _configure(connection: duckdb.DuckDBPyConnection) -> None:
    for extension in _EXTENSIONS:
        load_extension(connection, extension)
    for name, value in _SETTINGS.items():
        connection.execute(f"SET {name} = {value}")


def create_secrets(connection: duckdb.DuckDBPyConnection, estate: Estate) -> None:
    """Give DuckDB the lake's credentials; they live in its memory and are shown redacted."""
    store = estate.objects(estate.lake.site)
    connection.execute(f"CREATE OR REPLACE SECRET lake_objects ({s3_secret(store, f's3://{estate.lake.bucket}/')})")
    if store.ca_file:
        connection.execute(f"SET ca_cert_file = {quote_literal(str(store.ca_file))}")
    catalog = estate.lake.catalog
    address = database(estate.database(catalog.site, catalog.database)).address()
    fields = {
        "HOST": quote_literal(address.host),
        "PORT": str(address.port),
        "DATABASE": quote_literal(address.database),
        "USER": quote_literal(address.username),
        "PASSWORD": quote_literal(address.password),
    }
    listed = ", ".join(f"{name} {value}" for name, value in fields.items())
    connection.execute(f"CREATE OR REPLACE SECRET lake_postgres (TYPE postgres, {listed})")
    options = f"connect_timeout=5 sslmode={address.sslmode}"
    if address.ca_file:
        options += f" sslrootcert={quote_literal(str(address.ca_file))}"
    connection.execute(
        f"CREATE OR REPLACE SECRET lake_catalog (TYPE ducklake, METADATA_PATH {quote_literal(options)}, "
        f"DATA_PATH {quote_literal(lake_root(estate) + '/data')}, "
        "METADATA_PARAMETERS MAP {'TYPE': 'postgres', 'SECRET': 'lake_postgres'})"
    )


def _attach(
    connection: duckdb.DuckDBPyConnection,
    *,
    read_only: bool,
    version: int | None,
    at: datetime | None,
) -> None:
    options = ["READ_ONLY", "CREATE_IF_NOT_EXISTS false"] if read_only else ["DATA_INLINING_ROW_LIMIT 0"]
    if version is not None:
        options.append(f"SNAPSHOT_VERSION {version}")
    elif at is not None:
        options.append(f"SNAPSHOT_TIME '{at.isoformat()}'")
    connection.execute(f"ATTACH 'ducklake:lake_catalog' AS {ALIAS} ({', '.join(options)})")
    connection.execute(f"USE {ALIAS}")


def _prepare(estate: Estate) -> None:
    """Make the lake unless it is there: bucket, catalog, evidence tables, the index on load keys.

    DuckLake does not serialise changes of schema, so that one process at a time does this.
    """
    from datalake.evidence import create_tables, is_complete

    catalog = database(estate.database(estate.lake.catalog.site, estate.lake.catalog.database))
    if _is_prepared(catalog) and is_complete(catalog):
        return
    with catalog.exclusive("causeway-lake"):
        objects(estate.objects(estate.lake.site)).ensure_bucket(estate.lake.bucket)
        connection = connect()
        try:
            _configure(connection)
            with lake_errors("prepare", lake_root(estate)):
                create_secrets(connection, estate)
                _attach(connection, read_only=False, version=None, at=None)
                catalog.execute(_KEY_INDEX)
                create_tables(Lake(estate, connection))
        finally:
            connection.close()


def _is_prepared(catalog: Any) -> bool:
    found = catalog.query("SELECT 1 FROM pg_indexes WHERE indexname = 'causeway_load_key'")
    return bool(found)


def require_table(lake: Lake, table: str) -> None:
    """Raise NotFoundError with the choices unless the lake has the table."""
    if not lake.has_table(table):
        names = lake.rows(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = ? AND schema_name = 'main'",
            [ALIAS],
        )
        listed = ", ".join(sorted(str(name) for (name,) in names)) or "none yet"
        raise NotFoundError("lake", "find", f"table '{table}'", "no such table", f"There are: {listed}.")


__all__ = ["ALIAS", "CausewayError", "Lake", "lake_root", "open_lake", "quote_identifier", "require_table"]
