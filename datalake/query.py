"""Answers SQL over the lake: reads only, and from one snapshot from the first row to the last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from connectors.errors import BadDataError, PolicyError
from connectors.estate import Estate
from datalake.session import ALIAS, open_lake
from datalake.translation import lake_errors

_READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Answer:
    """Rows as a stream of Arrow batches, and the snapshot that they are from."""

    reader: pa.RecordBatchReader
    version: int


@contextmanager
def query(
    estate: Estate,
    sql: str,
    *,
    version: int | None = None,
    at: datetime | None = None,
    memory_limit: int | None = None,
) -> Iterator[Answer]:
    """Answer one SELECT, with `lake.<table>` and `ops.<table>` as names, while the context is open.

    Without `version` or `at` it is the newest snapshot. What doesn't fit into memory is spilled to a
    temporary folder. Raises PolicyError for a statement that doesn't only read, BadDataError for wrong SQL.
    """
    with (
        TemporaryDirectory(prefix="causeway-query-") as spill,
        open_lake(estate, version=version, at=at, memory_limit=memory_limit, temp_directory=Path(spill)) as lake,
    ):
        require_reading(lake.connection, sql)
        # Inside a transaction the snapshot that is read stays the same, whatever is committed meanwhile.
        lake.connection.execute("BEGIN TRANSACTION READ ONLY")
        pinned = lake.version()
        # Nothing that the statement does may change what this connection may do.
        lake.connection.execute("SET lock_configuration = true")
        with lake_errors("query", lake.place):
            try:
                relation = lake.connection.execute(sql)
            except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException) as error:
                raise BadDataError("lake", "query", ALIAS, str(error)) from error
            yield Answer(relation.to_arrow_reader(_BATCH_ROWS), pinned)


def require_reading(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raise PolicyError unless the text is one statement that only reads, BadDataError when it is no SQL."""
    try:
        statements = connection.extract_statements(sql)
    except duckdb.ParserException as error:
        raise BadDataError("lake", "query", ALIAS, str(error)) from error
    kinds = [statement.type for statement in statements]
    if len(kinds) != 1 or kinds[0] not in _READING:
        found = ", ".join(kind.name for kind in kinds) or "nothing"
        raise PolicyError(
            "lake", "query", ALIAS, f"only a single SELECT may run here, not: {found}",
            "Rows are written by flows, which leave evidence: see `causeway ingest`.",
        )  # fmt: skip
