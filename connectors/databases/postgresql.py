"""A PostgreSQL database, through psycopg."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from connectors.databases import Address, ColumnInfo
from connectors.databases.postgresql_errors import postgresql_errors
from connectors.errors import ConflictError, NotFoundError
from connectors.estate import Endpoint

_CONNECT_SECONDS = 10
# DuckDB reads these by one way of asking as structs, numbers or lists and by another as texts; domains as texts.
_SENT_AS = """
    CASE WHEN t.typtype = 'd' THEN format_type(b.oid, b.modifier)
         WHEN t.typtype = 'c' OR t.typcategory = 'G' OR e.typtype = 'c' OR e.typname = 'bytea' THEN 'text'
         WHEN t.typname = 'oid' THEN 'bigint'
         WHEN e.typtype IN ('e', 'd') THEN 'text[]' END
    FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
"""
_COLUMNS = f"""
    SELECT a.attname, format_type(b.oid, b.modifier), NOT a.attnotnull, s.sent_as
    FROM pg_attribute a
    CROSS JOIN LATERAL (
        WITH RECURSIVE below(oid, modifier) AS (
            SELECT a.atttypid, a.atttypmod
            UNION ALL
            SELECT d.typbasetype, d.typtypmod FROM below JOIN pg_type d ON d.oid = below.oid AND d.typtype = 'd'
        )
        SELECT below.oid, below.modifier FROM below JOIN pg_type t ON t.oid = below.oid AND t.typtype <> 'd'
    ) b
    CROSS JOIN LATERAL (SELECT {_SENT_AS} WHERE t.oid = a.atttypid) AS s(sent_as)
    WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_QUERY_COLUMN = f"""
    SELECT format_type(b.oid, b.modifier), (SELECT {_SENT_AS} WHERE t.oid = b.oid)
    FROM (SELECT %s::oid AS oid, %s::int AS modifier) b
"""


class PostgreSQL:
    """One database; the URL's parameter `sslmode` is libpq's, and is `verify-full` with a `ca_file`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._url = urlsplit(endpoint.url)

    def __repr__(self) -> str:
        return f"PostgreSQL({self._where()})"

    def address(self) -> Address:
        """Return where it is, with the password, for other clients such as DuckDB."""
        url, endpoint = self._url, self._endpoint
        mode = parse_qs(url.query).get("sslmode", ["verify-full" if endpoint.ca_file else "prefer"])[0]
        return Address(
            host=url.hostname or "localhost",
            port=url.port or 5432,
            database=unquote(url.path.lstrip("/")),
            username=unquote(url.username or endpoint.username or ""),
            password=endpoint.password.reveal() if endpoint.password else "",
            sslmode=mode,
            ca_file=endpoint.ca_file,
        )

    def version(self) -> str:
        """Return the server's version; the cheapest call that proves that logging in works."""
        with self._connected("log in to") as connection:
            row = connection.execute("SHOW server_version").fetchone()
        return str(row[0]) if row else ""

    def columns(self, table_or_query: str) -> list[ColumnInfo]:
        """Describe a table (`schema.name`) or a SELECT without running it; NotFoundError when absent.

        What has a space in it is a SELECT. Of its columns it is not known whether they are nullable.
        """
        with self._connected("describe") as connection:
            if " " in table_or_query.strip() or "\n" in table_or_query.strip():
                return _query_columns(connection, table_or_query)
            rows = connection.execute(_COLUMNS, [_identifier(table_or_query).as_string()]).fetchall()
        if not rows:
            raise NotFoundError(
                "postgresql", "describe", f"{table_or_query} in {self._where()}", "no such table",
                "Create the table, or correct its name (schema.name).",
            )  # fmt: skip
        return [ColumnInfo(*row) for row in rows]

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return all rows of a small SELECT."""
        with self._connected("query") as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(sql.encode(), parameters or None).fetchall()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement in its own transaction; return the rows that it touched."""
        with self._connected("execute in") as connection:
            return max(connection.execute(sql.encode(), parameters or None).rowcount, 0)

    @contextmanager
    def exclusive(self, name: str, *, wait: bool = True) -> Iterator[None]:
        """Let one process at a time into the context; the server lets go when the process dies.

        Without `wait` it raises ConflictError when another one is inside.
        """
        with postgresql_errors(f"lock '{name}' in", self._where()):
            # Without a transaction, which would hold back vacuum for as long as the lock is held.
            connection = self.connect(autocommit=True)
        with closing(connection):
            with postgresql_errors(f"lock '{name}' in", self._where()):
                if wait:
                    connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [name])
                elif connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [name]).fetchone() != (
                    True,
                ):
                    raise ConflictError("postgresql", "lock", name, "another process has it", "Wait for its end.")
            yield

    def write_rows(self, table: str, columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> int:
        """Create the table if absent and add all rows in one transaction; return how many.

        `columns` maps names to the database's types. Rows are streamed, so memory stays bounded.
        """
        target = _identifier(table)
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        typed = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in columns.items()
        )
        with self._connected(f"write {table} in") as connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(target, typed))
            with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(target, names)) as copy:
                for row in rows:
                    copy.write_row(row)
            return cursor.rowcount

    @contextmanager
    def _connected(self, operation: str) -> Iterator[psycopg.Connection]:
        """Give a connection whose transaction is committed at the end, or rolled back by an error."""
        with postgresql_errors(operation, self._where()), self.connect() as connection:
            yield connection

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection:
        """Open a connection that the caller closes; raises psycopg's errors."""
        address = self.address()
        return psycopg.connect(
            host=address.host, port=address.port, dbname=address.database, user=address.username,
            password=address.password, sslmode=address.sslmode,
            sslrootcert=str(address.ca_file) if address.ca_file else None,
            connect_timeout=_CONNECT_SECONDS, application_name="causeway", autocommit=autocommit,
            keepalives_idle=30, keepalives_interval=10, keepalives_count=3,
        )  # fmt: skip

    def _where(self) -> str:
        url = self._url
        return f"{url.hostname}:{url.port or 5432}{url.path}"


def _query_columns(connection: psycopg.Connection, query: str) -> list[ColumnInfo]:
    inner = query.strip().rstrip(";")
    cursor = connection.execute(f"SELECT * FROM (\n{inner}\n) AS described LIMIT 0".encode())
    result = cursor.pgresult
    if result is None:
        return []
    kinds = [(result.ftype(index), result.fmod(index)) for index in range(result.nfields)]
    names = [column.name for column in cursor.description or []]
    return [_query_column(connection, name, oid, modifier) for name, (oid, modifier) in zip(names, kinds, strict=True)]


def _query_column(connection: psycopg.Connection, name: str, oid: int, modifier: int) -> ColumnInfo:
    row = connection.execute(_QUERY_COLUMN.encode(), [oid, modifier]).fetchone()
    assert row is not None
    return ColumnInfo(name, str(row[0]), True, row[1])


def _identifier(table: str) -> sql.Identifier:
    return sql.Identifier(*table.split("."))
