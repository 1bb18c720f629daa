"""Ingest: load tables of the estate into the lake, checked, once, with evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import cast

from prefect import flow, get_run_logger
from prefect.assets import Asset, AssetProperties, materialize
from prefect.concurrency.sync import concurrency
from prefect.runtime import flow_run

from connectors.errors import CausewayError, QuarantinedError
from connectors.estate import Estate, load_estate
from datalake.batch import new_load_id
from datalake.evidence import LoadRecord, QualityRecord
from datalake.load import AlreadyLoaded, Committed
from datalake.session import lake_root
from flows.outcome import failure
from tasks.ingest.plan import LoadPlan, Refuse, decide, is_increment, plan_load, window_length, windows
from tasks.ingest.showing import show_load, show_plan, show_quality
from tasks.ingest.steps import (
    ACTS,
    Checked,
    Staged,
    check_batch,
    commit_batch,
    observe_progress,
    one_lake,
    quality_records,
    quarantine_batch,
    record_failure,
    stage_batch,
    summoned,
)

LIMIT = "causeway-ingest"
"""Global concurrency limit: how many loads run at once, over all tables."""

# Prefect's forms take the description of a field from the docstring's Args, and from nowhere else.


@dataclass(frozen=True)
class IngestReport:
    """What one load did. `version` is the snapshot in which its rows are visible."""

    table: str
    status: str
    """planned, committed or already-loaded"""
    load_key: str
    load_id: str | None = None
    version: int | None = None
    rows: int = 0
    written: int = 0
    """Rows that were added or updated; fewer than `rows` where the table had some of them."""
    deleted: int = 0
    bytes: int = 0
    stage_seconds: float = 0.0
    check_seconds: float = 0.0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()


@flow(name="ingest", flow_run_name="ingest {table}", persist_result=False)
def ingest(
    estate: str,
    table: str,
    start: str | None = None,
    end: str | None = None,
    load_key: str | None = None,
    full: bool = False,
    dry_run: bool = False,
) -> IngestReport:
    """Load a table, or a slice of it, from its source into the lake.

    Rows are extracted, staged as Parquet, checked by the table's expectations, and then committed in one
    transaction - or set aside with the reasons. Safe to kill at any moment and to run again.

    Args:
        estate: Path of the estate file on the machine that runs the flow.
        table: The table to load, one of the estate's.
        start: First value of the table's cursor column, such as 2013-06-01. Empty: what is new, or everything.
        end: Value of the cursor column to stop before, such as 2013-07-01. Empty: to the end.
        load_key: A name for this load. Under one name a batch is committed at most once. Empty: a name of its own.
        full: Read everything again where the table loads increments. They continue after it.
        dry_run: Stop after the plan and show what would be done, to what, at what cost.
    """
    try:
        declared = load_estate(estate)
        increment = is_increment(declared.table(table), start, end)
        progress = observe_progress(declared, table) if increment else None
        plan = plan_load(declared, table, start, end, load_key, str(flow_run.id), progress, full)
        run = _plan_only if dry_run else _load
        return run(declared, estate, plan)
    except CausewayError as error:
        return cast(IngestReport, failure(error))


@flow(name="backfill", flow_run_name="backfill {table} {start}..{end}", persist_result=False)
def backfill(
    estate: str,
    table: str,
    start: str,
    end: str,
    window: str | None = None,
    dry_run: bool = False,
) -> list[IngestReport]:
    """Load a past slice of a table again, window by window.

    What a window replaces or merges is committed before the next begins. Killed and run again, it does the
    windows again; in append tables those that were committed are skipped.

    Args:
        estate: Path of the estate file on the machine that runs the flow.
        table: The table to load, one of the estate's that has a cursor column.
        start: First value of the table's cursor column, such as 2013-06-01.
        end: Value of the cursor column to stop before, such as 2013-07-01.
        window: Load in windows of this length, such as 1d or 6h, each a load of its own. Empty: all as one load.
        dry_run: Stop after the plan and show what would be done, to what, at what cost.
    """
    try:
        declared = load_estate(estate)
        length = window_length(window)
        plans = [
            plan_load(declared, table, first, last, None, str(flow_run.id))
            for first, last in windows(start, end, length)
        ]
        run = _plan_only if dry_run else _load
        return [run(declared, estate, plan) for plan in plans]
    except CausewayError as error:
        return cast(list[IngestReport], failure(error))


def _plan_only(estate: Estate, path: str, plan: LoadPlan) -> IngestReport:
    estimate = show_plan(estate, Path(path).resolve().parent, plan)
    return IngestReport(plan.table, "planned", plan.load_key, rows=estimate or 0)


def _load(estate: Estate, path: str, plan: LoadPlan) -> IngestReport:
    """Run one load and show it; raises QuarantinedError when the batch was set aside."""
    record = _new_record(plan)
    started = monotonic()
    try:
        with concurrency(LIMIT, strict=False), one_lake(path), summoned(estate, plan) as judge:
            staged = stage_batch(path, plan, record.load_id)
            if isinstance(staged, AlreadyLoaded):
                return _already(plan, staged)
            checked = check_batch(path, plan, staged.batch, judge) if judge else Checked((), 0.0)
            record = _measured(record, staged, checked)
            return _decided(estate, path, plan, staged, checked, record, started)
    except QuarantinedError:
        raise
    except CausewayError as error:
        _leave_failure(path, replace(record, status="failed", reason=str(error)))
        raise


def _decided(
    estate: Estate,
    path: str,
    plan: LoadPlan,
    staged: Staged,
    checked: Checked,
    record: LoadRecord,
    started: float,
) -> IngestReport:
    decision = decide(checked.verdicts)
    quality = quality_records(plan, record.load_id, staged.batch.rows, checked.verdicts)
    show_quality(plan, quality)
    if isinstance(decision, Refuse):
        record = replace(record, status="quarantined", reason="; ".join(decision.reasons))
        failed = [
            one.count.expectation
            for one in checked.verdicts
            if not one.success and one.count.expectation.level == "quarantine"
        ]
        quarantine_batch(path, plan, staged.batch, record, quality, failed)
        show_load(plan, record, None, decision.reasons)
        raise QuarantinedError(
            "lake", "load", plan.table, record.reason or "",
            "The batch is set aside, nothing of it is visible: causeway sql \"select reasons, row_data from "
            f"ops.quarantine where load_id = '{record.load_id}'\"",
        )  # fmt: skip
    outcome = _commit(estate, path, plan, staged, record, quality)
    if isinstance(outcome, AlreadyLoaded):
        return _already(plan, outcome)
    record = replace(record, rows_written=outcome.written, rows_deleted=outcome.deleted)
    show_load(plan, record, outcome.version, decision.warnings)
    return IngestReport(
        table=plan.table,
        status="committed",
        load_key=plan.load_key,
        load_id=record.load_id,
        version=outcome.version,
        rows=staged.batch.rows,
        written=outcome.written,
        deleted=outcome.deleted,
        bytes=staged.batch.bytes,
        stage_seconds=staged.seconds,
        check_seconds=checked.seconds,
        seconds=monotonic() - started,
        warnings=decision.warnings,
    )


def _commit(
    estate: Estate,
    path: str,
    plan: LoadPlan,
    staged: Staged,
    record: LoadRecord,
    quality: list[QualityRecord],
) -> Committed | AlreadyLoaded:
    """Commit the batch as the materialisation of the table's asset."""
    declared = estate.table(plan.table)
    asset = Asset(
        key=f"{lake_root(estate)}/{plan.target}",
        properties=AssetProperties(
            name=f"lake.{plan.target}", description=declared.description, owners=[declared.owner]
        ),
    )
    step = materialize(asset, by="causeway", name="commit", task_run_name="commit {plan.table}", **ACTS)(
        commit_batch.fn
    )
    return step(path, plan, staged.batch, record, quality)


def _new_record(plan: LoadPlan) -> LoadRecord:
    now = datetime.now(UTC)
    return LoadRecord(
        load_id=new_load_id(),
        load_key=plan.load_key,
        table_name=plan.target,
        mode=plan.mode,
        status="committed",
        source=plan.source,
        slice_start=plan.part.start,
        slice_end=plan.part.end,
        rows=0,
        bytes=0,
        files=0,
        started_at=now,
        finished_at=now,
        stage_seconds=0.0,
        check_seconds=0.0,
        flow_run_id=str(flow_run.id) if flow_run.id else None,
        reason=None,
        cursor_column=plan.cursor,
    )


def _measured(record: LoadRecord, staged: Staged, checked: Checked) -> LoadRecord:
    return replace(
        record,
        rows=staged.batch.rows,
        bytes=staged.batch.bytes,
        files=len(staged.batch.files),
        cursor_mark=staged.mark,
        finished_at=datetime.now(UTC),
        stage_seconds=staged.seconds,
        check_seconds=checked.seconds,
    )


def _leave_failure(path: str, record: LoadRecord) -> None:
    """Record a failed load where that is possible; the failure itself is what the user has to see."""
    try:
        record_failure(path, replace(record, finished_at=datetime.now(UTC)))
    except CausewayError as error:
        get_run_logger().warning("the failure could not be recorded in ops.loads: %s", error)


def _already(plan: LoadPlan, done: AlreadyLoaded) -> IngestReport:
    get_run_logger().info("%s was committed before under the key %s", plan.table, plan.load_key)
    return IngestReport(plan.table, "already-loaded", plan.load_key, load_id=done.load_id)
