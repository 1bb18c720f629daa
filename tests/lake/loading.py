"""Loads batches made of SQL, for tests of the lake that need no source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import duckdb

from connectors.estate import Estate, Table
from connectors.sources import Slice
from datalake.batch import Batch, new_load_id, stage
from datalake.evidence import LoadRecord
from datalake.load import AlreadyLoaded, Committed, commit
from datalake.session import Lake, open_lake
from datalake.translation import translate


class SelectSource:
    """A source by shape: DuckDB makes the rows of a SELECT."""

    def __init__(self, select: str) -> None:
        self._select = select

    @contextmanager
    def scan(self, connection: duckdb.DuckDBPyConnection, part: Slice) -> Iterator[str]:
        """Give the SELECT."""
        yield self._select

    def translate(self, error: Exception) -> Exception:
        """Translate as the lake does."""
        return translate(error, "read", "test") if isinstance(error, duckdb.Error) else error

    def describe(self) -> str:
        """Return the SELECT."""
        return self._select

    def estimate(self) -> int | None:
        """Return None."""
        return None


def make_table(**fields: object) -> Table:
    """Return what an estate would say of a table."""
    return Table.model_validate({"source": "none", "owner": "team", **fields})


def record_of(batch: Batch, key: str) -> LoadRecord:
    """Return the evidence of a load of this batch."""
    now = datetime.now(UTC)
    return LoadRecord(
        load_id=batch.load_id, load_key=key, table_name=batch.table, mode="append", status="committed",
        source="test", slice_start=None, slice_end=None, rows=batch.rows, bytes=batch.bytes,
        files=len(batch.files), started_at=now, finished_at=now, stage_seconds=0.0, check_seconds=0.0,
        flow_run_id=None, reason=None,
    )  # fmt: skip


def load(
    lake: Lake, name: str, select: str, load_key: str, part: Slice | None = None, **fields: object
) -> Committed | AlreadyLoaded:
    """Stage the rows of a SELECT and commit them under a key."""
    batch = stage(lake, name, SelectSource(select), part or Slice(), new_load_id())
    return commit(lake, name, make_table(**fields), batch, part or Slice(), [record_of(batch, load_key)])


@contextmanager
def writing(estate: Estate) -> Iterator[Lake]:
    """Open the lake for writing with the memory of a load."""
    with open_lake(estate, read_only=False, memory_limit=256 << 20, threads=2) as lake:
        yield lake
