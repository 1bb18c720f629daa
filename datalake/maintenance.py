"""Keeps the lake small and fast: compaction, expiry of snapshots, removal of orphans, statistics.

Each is a transaction of DuckLake or a deletion of what nothing names, so that a kill at any moment leaves either
the old state or the new, and files that the next removal of orphans finds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from connectors.databases import database
from connectors.duck import quote_identifier, quote_literal
from connectors.errors import ConflictError
from connectors.objects import objects
from datalake.session import ALIAS, Lake
from datalake.translation import lake_errors

_METADATA = f"__ducklake_metadata_{ALIAS}"
# A file's columns are open at once for each input: more than this many would not fit into a load's memory.
_FILES_AT_ONCE = 500
_ATTEMPTS = 5
_FOLDERS = ("data", "batches")


@dataclass(frozen=True)
class TableState:
    """What a table's newest snapshot consists of."""

    schema: str
    table: str
    files: int
    small_files: int
    """Files that are smaller than half of what compaction aims at."""
    bytes: int
    rows: int
    deleted: int
    """Rows that delete files hide."""


@dataclass(frozen=True)
class Snapshot:
    """A version of the lake and when it was committed."""

    version: int
    time: datetime


@dataclass(frozen=True)
class Compacted:
    """What a compaction did; `conflict` says that loads were faster, and the next run does the rest."""

    before: TableState
    after: TableState
    seconds: float
    conflict: str | None


def table_states(lake: Lake, file_size: int) -> list[TableState]:
    """Return the state of every table, evidence included; `file_size` in bytes is what compaction aims at."""
    found = lake.rows(
        f"""
        SELECT s.schema_name, t.table_name, count(f.data_file_id),
            count(*) FILTER (WHERE f.file_size_bytes < ?), coalesce(sum(f.file_size_bytes), 0),
            coalesce(sum(f.record_count), 0), coalesce(sum(d.delete_count), 0)
        FROM {_METADATA}.ducklake_table t
        JOIN {_METADATA}.ducklake_schema s ON s.schema_id = t.schema_id AND s.end_snapshot IS NULL
        LEFT JOIN {_METADATA}.ducklake_data_file f ON f.table_id = t.table_id AND f.end_snapshot IS NULL
        LEFT JOIN {_METADATA}.ducklake_delete_file d ON d.data_file_id = f.data_file_id AND d.end_snapshot IS NULL
        WHERE t.end_snapshot IS NULL GROUP BY ALL ORDER BY ALL
        """,
        [file_size // 2],
    )
    return [
        TableState(str(schema), str(table), int(files), int(small), int(size), int(rows), int(deleted))
        for schema, table, files, small, size, rows, deleted in found
    ]


def compact(
    lake: Lake, state: TableState, *, file_size: int, rewrite_deleted: float, sort_by: Sequence[str]
) -> Compacted:
    """Merge a table's small files and rewrite those of which many rows are deleted; readers see no difference.

    `file_size` is in bytes, `rewrite_deleted` a share of a file's rows. Rows are sorted by `sort_by` as they are
    written. Old files stay for readers that have begun, until `remove_orphans`.
    """
    started, conflict = monotonic(), None
    _sort_by(lake, state, sort_by)
    lake.rows(f"CALL {ALIAS}.set_option('target_file_size', '{file_size}B')")
    name = f"{quote_literal(ALIAS)}, {quote_literal(state.table)}, schema => {quote_literal(state.schema)}"
    try:
        _repeated(lake, f"CALL ducklake_rewrite_data_files({name}, delete_threshold => {rewrite_deleted})")
        merge = f"CALL ducklake_merge_adjacent_files({name}, max_compacted_files => {_FILES_AT_ONCE})"
        while _repeated(lake, merge):
            pass
    except ConflictError as error:
        conflict = error.cause
    after = next(one for one in table_states(lake, file_size) if (one.schema, one.table) == (state.schema, state.table))
    return Compacted(state, after, monotonic() - started, conflict)


def _repeated(lake: Lake, sql: str) -> int:
    """Run a compaction again after conflicts with loads; return how many files it took away."""
    for attempt in range(_ATTEMPTS):
        try:
            found = lake.rows(sql)
        except ConflictError:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return sum(int(row[2]) for row in found)
    raise AssertionError("unreachable")


def _sort_by(lake: Lake, state: TableState, wanted: Sequence[str]) -> None:
    if state.schema != "main" or sorting(lake, state.table) == list(wanted):
        return
    target = f"{ALIAS}.{quote_identifier(state.schema)}.{quote_identifier(state.table)}"
    listed = ", ".join(f"{quote_identifier(name)} ASC" for name in wanted)
    lake.rows(f"ALTER TABLE {target} SET SORTED BY ({listed})" if wanted else f"ALTER TABLE {target} RESET SORTED BY")


def sorting(lake: Lake, table: str) -> list[str]:
    """Return the columns by which a table's files are sorted when they are written."""
    found = lake.rows(
        f"""
        SELECT e.expression FROM {_METADATA}.ducklake_sort_info i
        JOIN {_METADATA}.ducklake_sort_expression e USING (sort_id, table_id)
        JOIN {_METADATA}.ducklake_table t ON t.table_id = i.table_id AND t.end_snapshot IS NULL
        JOIN {_METADATA}.ducklake_schema s ON s.schema_id = t.schema_id AND s.end_snapshot IS NULL
        WHERE i.end_snapshot IS NULL AND s.schema_name = 'main' AND t.table_name = ? ORDER BY e.sort_key_index
        """,
        [table],
    )
    return [str(expression).strip('"') for (expression,) in found]


def snapshots(lake: Lake) -> list[Snapshot]:
    """Return all snapshots, the oldest first."""
    found = lake.rows("SELECT snapshot_id, snapshot_time FROM lake.snapshots() ORDER BY snapshot_id")
    return [Snapshot(int(version), time) for version, time in found]


def expire(lake: Lake, versions: Sequence[int]) -> int:
    """Forget snapshots; their files go with the next `remove_orphans`. The caller owns the snapshots."""
    if versions:
        lake.rows(f"CALL ducklake_expire_snapshots('{ALIAS}', versions => [{', '.join(map(str, versions))}])")
    return len(versions)


def remove_orphans(lake: Lake, *, before: datetime, dry_run: bool = False) -> tuple[int, int]:
    """Delete the files that no snapshot and no quarantine names and that are older than `before`.

    Returns how many and how many bytes. A file that compaction or expiry has let go of stays until it was let go of
    before `before`, for readers that have begun. Documents (`objects/`) are not touched.
    """
    store = objects(lake.estate.objects(lake.estate.lake.site))
    bucket, prefix = lake.estate.lake.bucket, lake.estate.lake.prefix.strip("/")
    start = f"{prefix}/" if prefix else ""
    found: Mapping[str, tuple[str, int]] = {
        f"s3://{bucket}/{info.key}": (info.key, info.bytes)
        for folder in _FOLDERS
        for info in store.list(bucket, f"{start}{folder}/")
        if info.modified < before
    }
    # What is named is asked after the listing: a file that is committed in between is named by then.
    named = _named(lake, before) if found else set()
    doomed = [(key, size) for url, (key, size) in found.items() if url not in named]
    if not dry_run:
        lake.rows(f"CALL ducklake_cleanup_old_files('{ALIAS}', older_than => ?)", [before])
        for folder in _FOLDERS:
            store.abort_uploads(bucket, f"{start}{folder}/", before=before)
        for key, _ in doomed:
            store.delete(bucket, key)
    return len(doomed), sum(size for _, size in doomed)


def _named(lake: Lake, before: datetime) -> Collection[str]:
    """Return the URLs of files that some snapshot, or a quarantine that is kept, refers to."""
    root = f"{lake.root}/data/"
    found = lake.rows(
        f"""
        WITH tables AS (
            SELECT t.table_id, CASE WHEN t.path_is_relative THEN
                CASE WHEN s.path_is_relative THEN ? ELSE '' END || s.path || t.path ELSE t.path END AS path
            FROM {_METADATA}.ducklake_table t JOIN {_METADATA}.ducklake_schema s USING (schema_id)
        ), files AS (
            SELECT table_id, path, path_is_relative FROM {_METADATA}.ducklake_data_file
            UNION ALL SELECT table_id, path, path_is_relative FROM {_METADATA}.ducklake_delete_file
        )
        SELECT CASE WHEN f.path_is_relative THEN t.path || f.path ELSE f.path END
        FROM files f JOIN tables t USING (table_id)
        UNION ALL SELECT CASE WHEN path_is_relative THEN ? || path ELSE path END
            FROM {_METADATA}.ducklake_files_scheduled_for_deletion WHERE schedule_start >= ?
        UNION ALL SELECT unnest(string_split(batch_url, ' ')) FROM ops.quarantine WHERE quarantined_at > now() - ?
        """,
        [root, root, before, lake.estate.lake.keep_quarantined],
    )
    return {str(path) for (path,) in found}


def analyse(lake: Lake) -> None:
    """Let PostgreSQL look at the catalog's tables, so that the lake's queries of them stay fast."""
    catalog = database(lake.estate.database(lake.estate.lake.catalog.site, lake.estate.lake.catalog.database))
    with lake_errors("analyse", lake.place):
        catalog.execute("ANALYZE")
