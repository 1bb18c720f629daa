"""A table or a query of a PostgreSQL database, read by DuckDB itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from connectors.databases import Address, ColumnInfo, Database, database
from connectors.databases.postgresql_errors import judge_text
from connectors.duck import in_transaction, load_extension, quote_identifier, quote_literal
from connectors.errors import BadDataError, CausewayError, FixableError, UnavailableError
from connectors.estate import DatabaseSource, Estate
from connectors.sources import Slice
from connectors.sources.selecting import require_columns, slice_condition, unique_name

_MISFIT = "holds a value that is not a number that fits its type"
_COMPLAINT = re.compile(rf"column '[^\n]*?' {_MISFIT}")
_MEASURED = """
    SELECT relkind IN ('r', 'm')
        AND pg_relation_size(oid) / current_setting('block_size')::int <= relpages + 4000 AS measured
    FROM pg_class WHERE oid = to_regclass(%s)
"""
_DECIMAL = re.compile(r"(?i)(?:decimal|numeric)\((\d+)(?:,\s*(-?\d+))?\)(\[\])*")
_LOST = ("server closed the connection", "terminating connection", "connection reset", "ssl syscall",
         "could not receive data", "connection not open", "connection refused")  # fmt: skip


@dataclass(frozen=True)
class _Column:
    """A column of the source: its type there, what PostgreSQL casts it to, and DuckDB after it."""

    name: str
    kind: str
    remote: str | None
    local: str | None

    def remote_sql(self) -> str:
        """Return the column for PostgreSQL to send; at a misfit PostgreSQL itself stops, and says why."""
        quoted, misfit = quote_identifier(self.name), self.misfit_sql()
        if misfit:
            # The text depends on the row, or PostgreSQL would try the cast while it plans.
            text = f"{quote_literal(self.complaint())} || left(CAST({quoted} AS text), 0)"
            free = "numeric[]" if self.kind.endswith("[]") else "numeric"
            value = f"CASE WHEN {misfit} THEN CAST({text} AS {free}) ELSE {quoted} END"
            return f"CAST({value} AS {self.remote or self.kind}) AS {quoted}"
        return f"CAST({quoted} AS {self.remote}) AS {quoted}" if self.remote else quoted

    def complaint(self) -> str:
        """Return what is said of a misfit."""
        return f"column '{self.name}' {_MISFIT}"

    def local_sql(self) -> str:
        quoted = quote_identifier(self.name)
        return f"CAST({quoted} AS {self.local}) AS {quoted}" if self.local else quoted

    def misfit_sql(self) -> str | None:
        """Return a condition for values that DuckDB would read as another number without saying so."""
        if not self.kind.startswith("numeric") or self.remote in ("text", "double precision"):
            return None
        quoted = quote_identifier(self.name)
        if self.kind.endswith("[]"):
            return f"'NaN' = ANY ({quoted})"
        scale = _DECIMAL.fullmatch(self.remote or "")
        rounded = f" OR {quoted} <> round({quoted}, {scale[2] or 0})" if scale else ""
        return f"({quoted} = 'NaN'{rounded})"


class DatabaseTable:
    """Reads in one snapshot of the database; in parallel where a whole, analysed table is read.

    A slice is cut by PostgreSQL, which can use an index. A `numeric` that DuckDB could only hold as DOUBLE is
    refused unless its type is declared; NaN, which it would read as 0, and decimals that a declared type
    would round, stop the read.
    """

    def __init__(
        self,
        estate: Estate,
        name: str,
        declared: DatabaseSource,
        types: Mapping[str, str],
        folder: Path,
    ) -> None:
        self._declared, self._types = declared, types
        self._database: Database = database(estate.database(declared.site, declared.database))
        self._where = f"source '{name}' ({declared.table or 'query'} of {declared.database} at {declared.site})"

    def describe(self) -> str:
        """Say where the rows come from."""
        return self._where

    def estimate(self) -> int | None:
        """Return PostgreSQL's own estimate for a table, as of its last analysis."""
        if self._declared.table is None:
            return None
        rows = self._database.query(
            "SELECT reltuples::bigint AS rows FROM pg_class WHERE oid = to_regclass(%s)",
            [_quoted(self._declared.table)],
        )
        return int(rows[0]["rows"]) if rows and rows[0]["rows"] >= 0 else None

    @contextmanager
    def scan(self, connection: duckdb.DuckDBPyConnection, part: Slice) -> Iterator[str]:
        """Give the SELECT; when a transaction is still open at the end, the database stays attached."""
        columns = self._columns()
        load_extension(connection, "postgres_scanner")
        secret, attached = unique_name("secret"), unique_name("database")
        try:
            _attach(connection, self._database.address(), secret, attached)
            yield _without_enums(connection, self._select(attached, columns, part))
        except duckdb.Error as error:
            raise self.translate(error) from error
        finally:
            if not in_transaction(connection):
                connection.execute(f"DETACH DATABASE IF EXISTS {attached}")
                connection.execute(f"DROP SECRET IF EXISTS {secret}")

    def translate(self, error: Exception) -> Exception:
        """Return the error in this source's terms, or as it is when it is not of the source."""
        if isinstance(error, CausewayError) or not isinstance(error, duckdb.Error):
            return error
        text = _sentence(error)
        judged = _judged(text, is_conversion=isinstance(error, duckdb.ConversionException))
        if judged is None:
            return error
        kind, cause, next_step = judged
        return kind("postgresql", "read", self._where, cause, next_step)

    def _bad(self, cause: str, next_step: str) -> BadDataError:
        return BadDataError("postgresql", "read", self._where, cause, next_step)

    def _columns(self) -> list[_Column]:
        wanted = self._declared.table or str(self._declared.query)
        found = self._database.columns(wanted if self._declared.table else f"{wanted}\n")
        require_columns(list(self._types), [column.name for column in found], self._where)
        return [self._typed(column) for column in found]

    def _typed(self, column: ColumnInfo) -> _Column:
        declared = self._types.get(column.name)
        chosen = (declared or "").upper() in ("DOUBLE", "VARCHAR") and column.type.startswith("numeric")
        if not _is_lossy(column.type) and not chosen:
            by_itself = {"json": "JSON", "jsonb": "JSON"}.get(column.type)
            return _Column(column.name, column.type, column.sent_as, declared or by_itself)
        if declared is None:
            raise self._bad(
                f"column '{column.name}' is {column.type}, which has no exact type in DuckDB",
                f"Declare its type, for example columns: {{{column.name}: 'DECIMAL(38, 9)'}}.",
            )
        upper = declared.upper()
        exact = "numeric" + upper[upper.index("(") :] if _DECIMAL.fullmatch(declared) else "text"
        remote = "double precision" if upper in ("DOUBLE", "FLOAT8") else exact
        return _Column(column.name, column.type, remote, declared)

    def _select(self, attached: str, columns: list[_Column], part: Slice) -> str:
        table = self._declared.table
        inner = _quoted(table) if table else f"(\n{str(self._declared.query).strip().rstrip(';')}\n) AS source"
        kinds = {column.name: column.kind for column in columns}
        cut = slice_condition(part, kinds, cast="CAST({} AS {})", where=self._where)
        listed = ", ".join(column.local_sql() for column in columns)
        if table and cut == "true" and not any(column.remote for column in columns):
            guard = _guard(attached, columns, inner)
            if not guard or self._is_measured(table):
                return f"SELECT {listed} FROM {attached}.{_quoted(table)}{guard}"
        sent = ", ".join(column.remote_sql() for column in columns)
        return f"SELECT {listed} FROM {_remote(attached, f'SELECT {sent} FROM {inner} WHERE {cut}')}"

    def _is_measured(self, table: str) -> bool:
        """Whether PostgreSQL knows the table's size, by which DuckDB cuts its parallel scan into pieces.

        Beside the guard DuckDB holds each piece in memory: of a view, a new table or a grown one that would
        be all of it, or the rest.
        """
        found = self._database.query(_MEASURED, [_quoted(table)])
        return bool(found and found[0]["measured"])


def _attach(connection: duckdb.DuckDBPyConnection, address: Address, secret: str, attached: str) -> None:
    fields = {
        "HOST": address.host, "PORT": str(address.port), "DATABASE": address.database,
        "USER": address.username, "PASSWORD": address.password,
    }  # fmt: skip
    listed = ", ".join(f"{name} {quote_literal(value)}" for name, value in fields.items() if value)
    connection.execute(f"CREATE SECRET {secret} (TYPE postgres, {listed})")
    options = f"connect_timeout=10 application_name=causeway sslmode={address.sslmode}"
    if address.ca_file:
        options += " sslrootcert='" + str(address.ca_file).replace("\\", "\\\\").replace("'", "\\'") + "'"
    connection.execute(f"ATTACH {quote_literal(options)} AS {attached} (TYPE postgres, SECRET {secret}, READ_ONLY)")


def _without_enums(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return the query with enums as text: a lake has no enums, and those of two loads may differ."""
    kinds = connection.execute(f"DESCRIBE {query}").fetchall()
    enums = [quote_identifier(name) for name, kind, *_ in kinds if kind.startswith("ENUM")]
    if not enums:
        return query
    return f"SELECT * REPLACE ({', '.join(f'{name}::VARCHAR AS {name}' for name in enums)}) FROM ({query})"


def _guard(attached: str, columns: list[_Column], inner: str) -> str:
    """Return a branch without rows that fails the read, in its own snapshot, when a value is a misfit.

    A branch of UNION ALL, as DuckDB would hold the whole table to join it with a condition. A filter on top
    could make DuckDB drop the branch: the SELECT is to be read whole.
    """
    misfits = {column.complaint(): sql for column in columns if (sql := column.misfit_sql())}
    if not misfits:
        return ""
    cases = " ".join(f"WHEN {sql} THEN {quote_literal(text)}" for text, sql in misfits.items())
    any_of_them = " OR ".join(misfits.values())
    query = f"SELECT CASE {cases} END AS text FROM {inner} WHERE {any_of_them} LIMIT 1"
    nulls = ", ".join(["NULL"] * len(columns))
    return f" UNION ALL SELECT {nulls} FROM {_remote(attached, query)} WHERE error(text) IS NOT NULL"


def _remote(attached: str, query: str) -> str:
    return f"postgres_query({quote_literal(attached)}, {quote_literal(query)})"


def _judged(text: str, *, is_conversion: bool) -> tuple[type[CausewayError], str, str] | None:
    """Return what DuckDB's message says of the source, or None when it is not about the source."""
    lowered = text.lower()
    judged: tuple[type[CausewayError], str] | None = None
    if complaint := _COMPLAINT.search(text):
        text = complaint[0]
        judged = BadDataError, "Correct the row, or declare the column as DOUBLE or VARCHAR."
    elif "array" in text and "dimensions" in text:
        judged = BadDataError, "Make the arrays alike, or cast them in a query source."
    elif any(sign in lowered for sign in _LOST):
        judged = UnavailableError, "Run the load again."
    elif "Failed to prepare query" in text:
        text = text.rpartition("ERROR:")[2].strip()
        judged = FixableError, "Correct the slice or the query."
    elif "postgres" in lowered:
        judged = judge_text(text) or (FixableError, "Check the source in the estate.")
    elif is_conversion:
        judged = BadDataError, "Correct the row, or the table's columns in the estate."
    return (judged[0], text, judged[1]) if judged else None


def _is_lossy(kind: str) -> bool:
    """Whether DuckDB's scanner has no exact type for a type of PostgreSQL."""
    if kind.startswith("money"):
        return True
    if not kind.startswith("numeric"):
        return False
    match = _DECIMAL.fullmatch(kind)
    return match is None or not 0 <= int(match[2] or 0) <= int(match[1]) <= 38


def _quoted(table: str) -> str:
    return ".".join(quote_identifier(part) for part in table.split("."))


def _sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0].partition("Error: ")[2] or str(error).splitlines()[0]
