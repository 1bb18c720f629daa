"""Replicate: follow every change of tables of a database, by logical replication."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import cast

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from connectors.changes import changes
from connectors.errors import BadDataError, CausewayError
from connectors.estate import ChangesSource, load_estate
from connectors.units import parse_duration
from flows.outcome import failure
from tasks.ingest.steps import ACTS
from tasks.replicate.steps import Caught, follow

_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class ReplicationReport:
    """What a run brought into the lake."""

    source: str
    commits: int
    changes: int
    written: int
    deleted: int
    snapshots: tuple[str, ...]
    position: int | None
    held_back: int
    """Bytes of log that the database still keeps for us."""


@flow(name="replicate", flow_run_name="replicate {source}", persist_result=False)
def replicate(
    estate: str, source: str, duration: str | None = None, resync: bool = False, dry_run: bool = False
) -> ReplicationReport:
    """Bring the changes of a source's tables into the lake: all tables of the group in one commit.

    The first run reads the tables whole and joins their changes without a gap. The database is told to forget a
    change after the lake's commit and not before. Safe to kill at any moment and to run again.

    Args:
        estate: Path of the estate file on the machine that runs the flow.
        source: The source of kind changes.
        duration: Go on for this long, such as 10m. Empty: until everything up to now is in the lake.
        resync: Read all tables whole again, for example after the database gave up the log that was kept for us.
        dry_run: Only show where the lake is and what the database keeps.
    """
    try:
        declared = load_estate(estate)
        found = declared.source(source)
        if not isinstance(found, ChangesSource):
            raise BadDataError(
                "estate", "replicate", source, f"its kind is {found.kind}, not changes",
                f"Load its tables with ingest, or choose one of: {', '.join(_sources(declared.sources)) or 'none'}.",
            )  # fmt: skip
        done = [] if dry_run else follow_changes(estate, source, _end(duration), resync)
        return _report(estate, source, done)
    except CausewayError as error:
        return cast(ReplicationReport, failure(error))


def _sources(sources: object) -> list[str]:
    assert isinstance(sources, dict)
    return sorted(name for name, one in sources.items() if isinstance(one, ChangesSource))


def _end(duration: str | None) -> datetime | None:
    if not duration:
        return None
    try:
        return datetime.now(UTC) + parse_duration(duration)
    except ValueError as error:
        raise BadDataError("estate", "replicate for", repr(duration), f"the length {error}") from error


@task(name="follow", task_run_name="follow {source}", **ACTS)
def follow_changes(path: str, source: str, until: datetime | None, resync: bool) -> list[Caught]:
    """Bring changes into the lake until the end; a part for each commit."""
    return follow(
        load_estate(path),
        Path(path).resolve().parent,
        source,
        until=until,
        resync=resync,
        run_id=str(flow_run.id) if flow_run.id else None,
        say=get_run_logger().info,
        pause=lambda: sleep(_PAUSE_SECONDS),
    )


def _report(path: str, source: str, done: list[Caught]) -> ReplicationReport:
    declared = load_estate(path)
    found = declared.source(source)
    assert isinstance(found, ChangesSource)
    state = changes(declared, source).state()
    report = ReplicationReport(
        source=source,
        commits=len(done),
        changes=sum(one.changes for one in done),
        written=sum(one.written for one in done),
        deleted=sum(one.deleted for one in done),
        snapshots=tuple(name for one in done for name in one.snapshots),
        position=done[-1].position if done else None,
        held_back=state.held_back,
    )
    limit = "no limit: the disk's" if state.left is None else f"{state.left / 1e6:,.0f} MB"
    create_markdown_artifact(
        "\n".join(
            [
                f"### {source}: {report.changes:,} changes in {report.commits} commits",
                "",
                "| | |",
                "|---|---|",
                f"| written, deleted | {report.written:,}, {report.deleted:,} |",
                f"| read whole | {', '.join(report.snapshots) or 'no table'} |",
                f"| log that the database keeps for us | {state.held_back / 1e6:,.1f} MB |",
                f"| left before it gives us up | {limit} |",
            ]
        ),
        key=f"replication-{source}",
    )
    if state.held_back > int(found.held_back_warning):
        get_run_logger().warning(
            "%s: the database keeps %.0f MB of log for us, more than %s; left before it gives us up: %s",
            source, state.held_back / 1e6, found.held_back_warning.human_readable(), limit,
        )  # fmt: skip
    return report
