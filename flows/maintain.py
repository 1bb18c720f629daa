"""Maintain: keep the lake small and fast while loads and queries run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import cast

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.concurrency.sync import concurrency
from prefect.runtime import flow_run

from connectors.errors import CausewayError
from connectors.estate import Estate, load_estate
from datalake import maintenance
from datalake.evidence import MaintenanceRecord, write
from datalake.holds import held_versions, snapshots_are_mine
from datalake.session import Lake, open_lake
from flows.outcome import failure
from tasks.ingest.steps import ACTS
from tasks.maintain.plan import expirable, needs_compaction

LIMIT = "causeway-maintain"
"""Global concurrency limit: two compactions at once would only conflict."""


@dataclass(frozen=True)
class MaintenanceReport:
    """What a run did, an entry for each action."""

    actions: tuple[MaintenanceRecord, ...]


@flow(name="maintain", persist_result=False)
def maintain(estate: str, tables: list[str] | None = None, dry_run: bool = False) -> MaintenanceReport:
    """Compact small files, expire old snapshots, delete what nothing names, and refresh statistics.

    Safe while loads and queries run: readers keep the files that they began with. Safe to kill and to run again.
    A snapshot that is held, by a recovery point or a training set, is never expired.

    Args:
        estate: Path of the estate file on the machine that runs the flow.
        tables: Tables to compact. Empty: every table that needs it, evidence included.
        dry_run: Stop after the plan and show what would be done.
    """
    try:
        declared = load_estate(estate)
        for name in tables or []:
            declared.table(name)
        with concurrency(LIMIT, strict=False):
            return _maintain(declared, estate, tables or None, dry_run)
    except CausewayError as error:
        return cast(MaintenanceReport, failure(error))


def _maintain(estate: Estate, path: str, tables: list[str] | None, dry_run: bool) -> MaintenanceReport:
    actions = [*compact_tables(path, tables, dry_run)]
    if tables is None:
        actions += [expire_snapshots(path, dry_run), remove_orphans(path, dry_run)]
        if not dry_run:
            actions.append(analyse_catalog(path))
    if not dry_run:
        with _lake(path) as lake:
            write(lake, actions)
    create_table_artifact(
        [
            {
                "action": one.action,
                "table": one.table_name or "",
                "files": f"{one.files_before} → {one.files_after}",
                "MB": f"{one.bytes_before / 1e6:.1f} → {one.bytes_after / 1e6:.1f}",
                "removed": one.removed,
                "seconds": round(one.seconds, 1),
                "remark": one.reason or "",
            }
            for one in actions
        ],
        key="maintenance",
        description=f"Plan for the lake of {estate.name}: nothing was done" if dry_run else f"Lake of {estate.name}",
    )
    return MaintenanceReport(tuple(actions))


@task(name="compact", **ACTS)
def compact_tables(path: str, tables: list[str] | None, dry_run: bool) -> list[MaintenanceRecord]:
    """Compact every table that needs it, one after the other."""
    done = []
    with _lake(path) as lake:
        policy = lake.estate.lake.maintenance
        size = int(policy.file_size)
        for state in maintenance.table_states(lake, size):
            named = tables is None or (state.schema == "main" and state.table in tables)
            if not named or not needs_compaction(state, policy.rewrite_deleted):
                continue
            record = replace(
                _record("compact", None if state.schema != "main" else state.table),
                table_name=state.table if state.schema == "main" else f"{state.schema}.{state.table}",
                files_before=state.files, files_after=state.files,
                bytes_before=state.bytes, bytes_after=state.bytes,
            )  # fmt: skip
            if not dry_run:
                declared = lake.estate.tables.get(state.table) if state.schema == "main" else None
                result = maintenance.compact(
                    lake, state, file_size=size, rewrite_deleted=policy.rewrite_deleted,
                    sort_by=declared.sort_by if declared else [],
                )  # fmt: skip
                record = replace(
                    record,
                    files_after=result.after.files,
                    bytes_after=result.after.bytes,
                    removed=state.files - result.after.files,
                    seconds=result.seconds,
                    reason=result.conflict,
                )
                get_run_logger().info(
                    "%s: %d files became %d in %.1f s",
                    record.table_name,
                    state.files,
                    record.files_after,
                    record.seconds,
                )
            done.append(record)
    return done


@task(name="expire", **ACTS)
def expire_snapshots(path: str, dry_run: bool) -> MaintenanceRecord:
    """Forget the snapshots that are older than the policy keeps and that nobody holds."""
    started = monotonic()
    with _lake(path) as lake, snapshots_are_mine(lake.estate):
        now = datetime.now(UTC)
        found = maintenance.snapshots(lake)
        doomed = expirable(found, held_versions(lake, now), lake.estate.lake.maintenance.keep_snapshots, now)
        if not dry_run:
            maintenance.expire(lake, doomed)
    return replace(
        _record("expire"), removed=len(doomed), seconds=monotonic() - started,
        reason=f"{len(found) - len(doomed)} snapshots stay",
    )  # fmt: skip


@task(name="remove orphans", **ACTS)
def remove_orphans(path: str, dry_run: bool) -> MaintenanceRecord:
    """Delete the files that nothing names since longer than the grace time."""
    started = monotonic()
    with _lake(path) as lake:
        before = datetime.now(UTC) - lake.estate.lake.maintenance.grace
        count, size = maintenance.remove_orphans(lake, before=before, dry_run=dry_run)
    return replace(
        _record("remove orphans"), removed=count, seconds=monotonic() - started, reason=f"{size / 1e6:.1f} MB"
    )


@task(name="statistics", **ACTS)
def analyse_catalog(path: str) -> MaintenanceRecord:
    """Refresh the statistics of the lake's catalog."""
    started = monotonic()
    with _lake(path) as lake:
        maintenance.analyse(lake)
    return replace(_record("statistics"), seconds=monotonic() - started)


@contextmanager
def _lake(path: str) -> Iterator[Lake]:
    estate = load_estate(path)
    with (
        TemporaryDirectory(prefix="causeway-maintain-") as spill,
        open_lake(
            estate, read_only=False, memory_limit=int(estate.lake.memory_limit), temp_directory=Path(spill)
        ) as lake,
    ):
        yield lake


def _record(action: str, table: str | None = None) -> MaintenanceRecord:
    return MaintenanceRecord(
        action=action, table_name=table, started_at=datetime.now(UTC), seconds=0.0,
        files_before=0, files_after=0, bytes_before=0, bytes_after=0, removed=0,
        flow_run_id=str(flow_run.id) if flow_run.id else None, reason=None,
    )  # fmt: skip
