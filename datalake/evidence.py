"""The evidence tables `ops.*`: what flows saw, decided, did and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from connectors.databases import Database
from connectors.duck import quote_identifier
from datalake.session import ALIAS, Lake
from datalake.translation import lake_errors

SCHEMA = "ops"


@dataclass(frozen=True)
class LoadRecord:
    """One attempt to load a batch. Times are UTC; `seconds` runs from the start to just before the commit."""

    load_id: str
    load_key: str
    table_name: str
    mode: str
    status: str
    """committed, quarantined or failed"""
    source: str
    slice_start: str | None
    slice_end: str | None
    rows: int
    bytes: int
    files: int
    started_at: datetime
    finished_at: datetime
    stage_seconds: float
    check_seconds: float
    flow_run_id: str | None
    reason: str | None
    cursor_column: str | None = None
    cursor_mark: str | None = None
    """Greatest cursor value that increments up to this one have seen, as text."""
    rows_written: int = 0
    """Rows that were added or updated; fewer than `rows` where the table had some of them."""
    rows_deleted: int = 0


@dataclass(frozen=True)
class QualityRecord:
    """What one expectation found in one batch."""

    load_id: str
    table_name: str
    expectation: str
    column_name: str | None
    level: str
    mostly: float
    rows: int
    unexpected: int
    success: bool
    checked_at: datetime


@dataclass(frozen=True)
class QuarantineRecord:
    """A row that was set aside with its batch, and why; `row_data` is JSON."""

    load_id: str
    table_name: str
    reasons: str
    row_data: str
    batch_url: str
    quarantined_at: datetime


@dataclass(frozen=True)
class ReplicationRecord:
    """How far the changes of a source are in the lake, after one commit of them."""

    source: str
    position: int
    """Byte position in the database's log up to which all changes are in the lake."""
    is_current: bool
    """Whether it still counts; after a resync only what came with it and after it does."""
    changes: int
    snapshots: str
    """Tables that were read whole before their changes, with commas."""
    held_back_bytes: int
    """Log that the database kept for us before this commit."""
    started_at: datetime
    finished_at: datetime
    flow_run_id: str | None


@dataclass(frozen=True)
class HoldRecord:
    """A snapshot that is kept for its holder: a recovery point, a training set."""

    hold_id: str
    version: int
    holder: str
    held_at: datetime
    held_until: datetime


@dataclass(frozen=True)
class TrainingSetRecord:
    """A training set that was kept; `splits` is JSON, rows by split."""

    training_set: str
    version: int
    sql: str
    splits: str
    made_at: datetime


@dataclass(frozen=True)
class MaintenanceRecord:
    """What one action of maintenance did; files and bytes are those of the table's newest snapshot."""

    action: str
    """compact, expire, remove orphans or statistics"""
    table_name: str | None
    started_at: datetime
    seconds: float
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    removed: int
    """Files or snapshots that are gone."""
    flow_run_id: str | None
    reason: str | None


_TYPES = MappingProxyType(
    {
        "str": "VARCHAR",
        "str | None": "VARCHAR",
        "int": "BIGINT",
        "float": "DOUBLE",
        "bool": "BOOLEAN",
        "datetime": "TIMESTAMPTZ",
    }
)
TABLES: Mapping[str, type[Any]] = MappingProxyType(
    {
        "loads": LoadRecord,
        "quality": QualityRecord,
        "quarantine": QuarantineRecord,
        "replication": ReplicationRecord,
        "holds": HoldRecord,
        "maintenance": MaintenanceRecord,
        "training_sets": TrainingSetRecord,
    }
)


def columns_of(record: type[Any]) -> dict[str, str]:
    """Return the DuckDB types of a record's columns in their order."""
    return {name: _TYPES[str(kind)] for name, kind in record.__annotations__.items()}


def is_complete(catalog: Database) -> bool:
    """Whether the catalog knows every evidence table with every column."""
    found = catalog.query(
        "SELECT t.table_name, c.column_name FROM public.ducklake_table t"
        " JOIN public.ducklake_schema s USING (schema_id) JOIN public.ducklake_column c USING (table_id)"
        " WHERE s.schema_name = %s AND s.end_snapshot IS NULL AND t.end_snapshot IS NULL AND c.end_snapshot IS NULL",
        [SCHEMA],
    )
    held = {(row["table_name"], row["column_name"]) for row in found}
    return held >= {(name, column) for name, record in TABLES.items() for column in columns_of(record)}


def create_tables(lake: Lake) -> None:
    """Create what is missing; the caller sees to it that one process at a time does this."""
    lake.rows(f"CREATE SCHEMA IF NOT EXISTS {ALIAS}.{SCHEMA}")
    for name, record in TABLES.items():
        columns = columns_of(record)
        listed = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        lake.rows(f"CREATE TABLE IF NOT EXISTS {ALIAS}.{SCHEMA}.{name} ({listed})")
        held = lake.columns(name, SCHEMA)
        for column, kind in columns.items():
            if column not in held:  # an older release made the table
                lake.rows(f"ALTER TABLE {ALIAS}.{SCHEMA}.{name} ADD COLUMN {column} {kind}")


def write(lake: Lake, records: Sequence[Any]) -> None:
    """Add records to the evidence tables of their kinds, in the transaction that is open, if one is."""
    for kind in dict.fromkeys(type(record) for record in records):
        _insert(lake, kind, [record for record in records if type(record) is kind])


def _insert(lake: Lake, kind: type[Any], records: Sequence[Any]) -> None:
    name = next(name for name, known in TABLES.items() if known is kind)
    columns = list(columns_of(kind))
    marks = "(" + ", ".join("?" for _ in columns) + ")"
    values = [value for record in records for value in asdict(record).values()]
    with lake_errors("record", f"{SCHEMA}.{name}"):
        lake.connection.execute(
            f"INSERT INTO {ALIAS}.{SCHEMA}.{name} ({', '.join(map(quote_identifier, columns))}) "
            f"VALUES {', '.join([marks] * len(records))}",
            values,
        )
