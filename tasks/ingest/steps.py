"""The steps of a load as Prefect tasks: stage, check, commit or quarantine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from types import MappingProxyType
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from connectors.errors import NotFoundError
from connectors.estate import DocumentsSource, Estate, Expectation, Table, load_estate
from connectors.sources import Source, documents, source
from datalake import batch as batches
from datalake import documents as document_table
from datalake.batch import Batch
from datalake.evidence import LoadRecord, QualityRecord, write
from datalake.increments import Progress, mark_of, progress
from datalake.judge import Judge, Verdict
from datalake.load import AlreadyLoaded, Committed, commit, loaded
from datalake.quality import count_violations, failing_rows, key_expectations
from datalake.quarantine import quarantine
from datalake.session import Lake, is_open, open_lake
from tasks.ingest.plan import LoadPlan
from tasks.outcome import is_retryable

# Tasks that act on the world: never cached, tried again where another try may help.
ACTS: MappingProxyType[str, Any] = MappingProxyType(
    {
        "cache_policy": NO_CACHE,
        "retries": 3,
        "retry_delay_seconds": [2, 10, 30],
        "retry_condition_fn": is_retryable,
    }
)
# A load that is still running is younger than this; what is older and unused was left by a killed one.
_ABANDONED_AFTER = timedelta(days=1)


@dataclass(frozen=True)
class Staged:
    """A batch that waits for its verdict, and how long it took to write it."""

    batch: Batch
    seconds: float
    mark: str | None = None
    """Greatest cursor value that an increment has seen."""


@dataclass(frozen=True)
class Checked:
    """The verdicts on a batch, and how long they took."""

    verdicts: tuple[Verdict, ...]
    seconds: float


_open_lake: ContextVar[Lake | None] = ContextVar("_open_lake", default=None)


@contextmanager
def one_lake(estate_path: str) -> Iterator[None]:
    """Let the steps inside share one connection to the lake; opening one costs half a second."""
    with _opened(estate_path) as lake:
        token = _open_lake.set(lake)
        try:
            yield
        finally:
            _open_lake.reset(token)


@contextmanager
def loading_lake(estate_path: str) -> Iterator[Lake]:
    """Give the connection that the steps share, or one of its own.

    A step that fails closes the shared one for good, so that its next try begins with a fresh one.
    """
    shared = _open_lake.get()
    if shared is None or not is_open(shared):
        with _opened(estate_path) as lake:
            yield lake
        return
    try:
        yield shared
    except BaseException:
        shared.connection.close()
        raise


@contextmanager
def _opened(estate_path: str) -> Iterator[Lake]:
    """Open the lake for a load, with the estate's memory limit and a folder to spill into."""
    estate = load_estate(estate_path)
    with (
        TemporaryDirectory(prefix="causeway-load-") as spill,
        open_lake(
            estate,
            read_only=False,
            memory_limit=int(estate.lake.memory_limit),
            temp_directory=Path(spill),
        ) as lake,
    ):
        yield lake


def declared_table(estate: Estate, name: str) -> Table:
    """Return what the estate says of a table; for documents, of `lake.objects`."""
    table = estate.table(name)
    if isinstance(estate.source(table.source), DocumentsSource):
        return document_table.declared(table)
    return table


def expectations_of(table: Table) -> list[Expectation]:
    """Return what must hold for a batch: what is declared, and for a merge that its key is one."""
    implied = key_expectations(table.key) if table.mode == "merge" else []
    return [*table.expectations, *(one for one in implied if one not in table.expectations)]


def source_of(lake: Lake, name: str, folder: Path) -> Source:
    """Return the driver of a table's source; one of documents keeps them in the lake when it is read."""
    estate = lake.estate
    table = estate.table(name)
    found = estate.source(table.source)
    if isinstance(found, DocumentsSource):
        # Arrow's import costs 40 MB, which a load that DuckDB does alone need not hold.
        from datalake.document_rows import DocumentRows

        return DocumentRows(lake, table.source, documents(estate, table.source, folder), dict(found.tags))
    return source(estate, table.source, table.columns, folder)


@contextmanager
def summoned(estate: Estate, plan: LoadPlan) -> Iterator[Judge | None]:
    """Give a judge that is on its way, or None for a table that expects nothing."""
    if not expectations_of(declared_table(estate, plan.table)):
        yield None
        return
    with Judge() as judge:
        yield judge


def observe_progress(estate: Estate, table: str) -> Progress:
    """Return where a table's increments are; raises what a lake raises that can't be read."""
    try:
        with open_lake(estate) as lake:
            return progress(lake, table, estate.table(table))
    except NotFoundError:  # nobody has made the lake yet
        return Progress(None, None, None)


@task(name="stage", task_run_name="stage {plan.table}", **ACTS)
def stage_batch(estate_path: str, plan: LoadPlan, load_id: str) -> Staged | AlreadyLoaded:
    """Write the source's rows as Parquet files that nobody sees yet, unless the key was committed before."""
    started = monotonic()
    with loading_lake(estate_path) as lake:
        done = loaded(lake, plan.load_key)
        if done is not None:
            return done
        batches.discard(lake, plan.target, load_id)  # what an earlier try of this task wrote
        found = source_of(lake, plan.table, Path(estate_path).resolve().parent)
        declared = declared_table(lake.estate, plan.table)
        all_keys = declared.key if declared.delete_absent else ()
        batch = batches.stage(lake, plan.target, found, plan.part, load_id, all_keys, declared.sort_by)
        mark = mark_of(lake, batch, declared.cursor, plan.progress) if plan.progress and declared.cursor else None
    seconds = monotonic() - started
    get_run_logger().info(
        "staged %s rows (%.1f MB) of %s in %.1f s", f"{batch.rows:,}", batch.bytes / 1e6, plan.table, seconds
    )
    return Staged(batch, seconds, mark)


@task(name="check", task_run_name="check {plan.table}", **ACTS)
def check_batch(estate_path: str, plan: LoadPlan, batch: Batch, judge: Judge) -> Checked:
    """Count what the expectations did not expect, and let Great Expectations judge it."""
    started = monotonic()
    with loading_lake(estate_path) as lake:
        expected = expectations_of(declared_table(lake.estate, plan.table))
        counts = count_violations(lake, batch, expected)
    verdicts = judge.verdicts(plan.table, counts)
    return Checked(tuple(verdicts), monotonic() - started)


@task(name="commit", task_run_name="commit {plan.table}", **ACTS)
def commit_batch(
    estate_path: str,
    plan: LoadPlan,
    batch: Batch,
    record: LoadRecord,
    quality: Sequence[QualityRecord],
) -> Committed | AlreadyLoaded:
    """Make the batch visible together with its evidence; a no-op when its key was committed before."""
    with loading_lake(estate_path) as lake:
        declared = declared_table(lake.estate, plan.table)
        outcome = commit(lake, plan.target, declared, batch, plan.part, [record, *quality])
        if isinstance(outcome, AlreadyLoaded):
            batches.discard(lake, plan.target, batch.load_id)
        removed = batches.sweep(lake, plan.target, older_than=_ABANDONED_AFTER)
    if removed:
        get_run_logger().info("removed %d files that killed loads had left", removed)
    return outcome


@task(name="quarantine", task_run_name="quarantine {plan.table}", **ACTS)
def quarantine_batch(
    estate_path: str,
    plan: LoadPlan,
    batch: Batch,
    record: LoadRecord,
    quality: Sequence[QualityRecord],
    failed: Sequence[Expectation],
) -> None:
    """Set the batch aside with the rows that failed and the reasons."""
    with loading_lake(estate_path) as lake:
        rows = failing_rows(lake, batch, failed)
        quarantine(lake, batch, record, quality, rows)


def record_failure(estate_path: str, record: LoadRecord) -> None:
    """Leave a row for a load that failed."""
    with loading_lake(estate_path) as lake:
        write(lake, [record])


def quality_records(plan: LoadPlan, load_id: str, rows: int, verdicts: Sequence[Verdict]) -> list[QualityRecord]:
    """Return a row of evidence for each verdict."""
    now = datetime.now(UTC)
    return [
        QualityRecord(
            load_id=load_id,
            table_name=plan.target,
            expectation=one.count.expectation.title,
            column_name=one.count.expectation.column,
            level=one.count.expectation.level,
            mostly=one.count.expectation.mostly,
            rows=rows,
            unexpected=one.count.unexpected,
            success=one.success,
            checked_at=now,
        )
        for one in verdicts
    ]
