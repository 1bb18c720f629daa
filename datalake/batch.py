"""Batches: a load's rows as Parquet files on the lake's store, written before anybody may see them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb

from connectors.duck import quote_identifier, quote_literal
from connectors.errors import BadDataError, SchemaError
from connectors.objects import objects
from connectors.sources import Slice, Source
from datalake.session import ALIAS, Lake
from datalake.translation import lake_errors, translate

# Large enough that a query opens few files, small enough that Dask gets several partitions.
_FILE_BYTES = "256MB"
# Half of DuckDB's default: a group of each thread is in memory until it is written.
_ROWS_A_GROUP = 61_440
_FOLDER = "batches"


@dataclass(frozen=True)
class Batch:
    """Files that hold the rows of one load attempt. An empty batch has columns and one file of no rows."""

    load_id: str
    table: str
    files: tuple[str, ...]
    rows: int
    bytes: int
    columns: Mapping[str, str]
    """DuckDB types by column, in their order."""
    keys: tuple[str, ...] = ()
    """Files with all keys of the source, read after the rows; empty when nobody asked for them."""
    since: int | None = None
    """The lake's snapshot before the source was read."""

    @property
    def relation(self) -> str:
        """SQL that reads all rows."""
        listed = ", ".join(quote_literal(file) for file in self.files)
        return f"read_parquet([{listed}])"

    @property
    def key_relation(self) -> str:
        """SQL that reads all keys of the source."""
        listed = ", ".join(quote_literal(file) for file in self.keys)
        return f"read_parquet([{listed}])"


def new_load_id() -> str:
    """Return an id that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}"


def stage(
    lake: Lake,
    table: str,
    source: Source,
    part: Slice,
    load_id: str,
    all_keys: Sequence[str] = (),
    sort_by: Sequence[str] = (),
) -> Batch:
    """Write the rows of a source's slice as a batch; memory stays bounded whatever the source's size.

    Rows are sorted by `sort_by`, on disk where memory does not suffice. With `all_keys` the keys of all rows of
    the source are written besides, in these columns. Raises what the source raises; what was written before an
    error is removed by `sweep`.
    """
    folder = f"{lake.root}/{_FOLDER}/{table}/{load_id}"
    # Also what is raised when the source is left, or by the look at what was written, is the lake's to name.
    with lake_errors("stage", table):
        since = lake.version() if all_keys else None
        written = _extract(lake, table, source, part, folder, sort_by=sort_by)
        keys = written if all_keys and part == Slice() else []
        if all_keys and not keys:
            keys = _extract(lake, table, source, Slice(), f"{folder}/keys", all_keys)
        columns = _describe(lake.connection, f"SELECT * FROM read_parquet({quote_literal(written[0][0])})")
    return Batch(
        load_id=load_id,
        table=table,
        files=tuple(str(row[0]) for row in written),
        rows=sum(int(row[1]) for row in written),
        bytes=sum(int(row[2]) for row in written),
        columns=columns,
        keys=tuple(str(row[0]) for row in keys),
        since=since,
    )


def _extract(
    lake: Lake,
    table: str,
    source: Source,
    part: Slice,
    folder: str,
    only: Sequence[str] = (),
    sort_by: Sequence[str] = (),
) -> list[tuple[Any, ...]]:
    """Write what a source has of a slice, or only some of its columns, as Parquet files; return what `_copy` does."""
    with source.scan(lake.connection, part) as select:
        try:
            wanted = f"SELECT {', '.join(map(quote_identifier, only))} FROM ({select})" if only else select
            columns = _describe(lake.connection, wanted)
            return _copy(lake.connection, _storable(wanted, columns) + _order(sort_by, columns, table), folder)
        except duckdb.Error as error:
            meaning = source.translate(error)
            if isinstance(meaning, duckdb.Error):  # it is not the source that failed
                meaning = translate(meaning, "stage", table)
            raise meaning from error


def _order(sort_by: Sequence[str], columns: Mapping[str, str], table: str) -> str:
    missing = [name for name in sort_by if name not in columns]
    if missing:
        raise SchemaError(
            "lake", "sort", table, f"there is no column {', '.join(missing)}", f"There are: {', '.join(columns)}."
        )
    return f" ORDER BY {', '.join(map(quote_identifier, sort_by))}" if sort_by else ""


def _describe(connection: duckdb.DuckDBPyConnection, select: str) -> dict[str, str]:
    found = connection.execute(f"DESCRIBE {select}").fetchall()
    return {str(name): str(kind) for name, kind, *_ in found}


def _storable(select: str, columns: Mapping[str, str]) -> str:
    """Return the SELECT with the types that DuckLake has none for as the nearest that it has."""
    casts = {name: "VARCHAR" for name, kind in columns.items() if kind.startswith("ENUM")}
    casts |= {name: "INTEGER" for name, kind in columns.items() if kind == '"NULL"'}
    if not casts:
        return select
    replaced = ", ".join(
        f"{quote_identifier(name)}::{kind} AS {quote_identifier(name)}" for name, kind in casts.items()
    )
    return f"SELECT * REPLACE ({replaced}) FROM ({select})"


def _copy(connection: duckdb.DuckDBPyConnection, select: str, folder: str) -> list[tuple[Any, ...]]:
    """Write Parquet files; return a row (file, rows, bytes, …) for each."""
    found = connection.execute(
        f"COPY ({select}) TO {quote_literal(folder)} (FORMAT parquet, PARQUET_VERSION v2, COMPRESSION snappy, "
        f"ROW_GROUP_SIZE {_ROWS_A_GROUP}, FILE_SIZE_BYTES '{_FILE_BYTES}', RETURN_STATS)"
    ).fetchall()
    if not found:
        raise BadDataError("lake", "stage", folder, "DuckDB wrote no file")
    # A thread that got no rows leaves an empty file; one is kept so that an empty batch has its columns.
    filled = [row for row in found if row[1]]
    return filled or found[:1]


def discard(lake: Lake, table: str, load_id: str) -> int:
    """Delete a batch that nothing refers to; return how many objects that were."""
    return _delete(lake, f"{_FOLDER}/{table}/{load_id}/")


def sweep(lake: Lake, table: str, *, older_than: timedelta) -> int:
    """Delete what killed or refused loads of a table left behind; return how many objects that were.

    A batch stays when it is younger, when the table's history refers to it, or while it is quarantined, which
    is for as long as the estate says.
    """
    store = objects(lake.estate.objects(lake.estate.lake.site))
    bucket, prefix = lake.estate.lake.bucket, _key(lake, f"{_FOLDER}/{table}/")
    before = datetime.now(UTC) - older_than
    store.abort_uploads(bucket, prefix, before=before)
    old = {info.key: f"s3://{bucket}/{info.key}" for info in store.list(bucket, prefix) if info.modified < before}
    kept = _referred(lake, table) if old else set()
    doomed = [key for key, url in old.items() if url not in kept]
    for key in doomed:
        store.delete(bucket, key)
    return len(doomed)


def _referred(lake: Lake, table: str) -> set[str]:
    """Return the URLs that any snapshot of the table, or DuckLake's own list of deletions, names."""
    metadata = f"__ducklake_metadata_{ALIAS}"
    found = lake.rows(
        f"SELECT path FROM {metadata}.ducklake_data_file"
        f" UNION ALL SELECT path FROM {metadata}.ducklake_files_scheduled_for_deletion"
        " UNION ALL SELECT unnest(string_split(batch_url, ' ')) FROM ops.quarantine"
        " WHERE table_name = ? AND quarantined_at > ?",
        [table, datetime.now(UTC) - lake.estate.lake.keep_quarantined],
    )
    return {str(path) for (path,) in found}


def _key(lake: Lake, path: str) -> str:
    prefix = lake.estate.lake.prefix.strip("/")
    return f"{prefix}/{path}" if prefix else path


def _delete(lake: Lake, folder: str) -> int:
    store = objects(lake.estate.objects(lake.estate.lake.site))
    bucket = lake.estate.lake.bucket
    keys = [info.key for info in store.list(bucket, _key(lake, folder))]
    for key in keys:
        store.delete(bucket, key)
    return len(keys)
