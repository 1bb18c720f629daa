"""Watch: say which tables are late by their own promise, and how much log databases hold back for us."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from connectors.changes import SlotState, changes
from connectors.errors import CausewayError
from connectors.estate import ChangesSource, Estate, load_estate
from datalake.session import lake_root, open_lake
from datalake.tables import TableStatus, table_statuses
from flows.outcome import failure

LATE = "causeway.table.late"
"""Event of a table that is later than it promised; the resource is the table's asset."""
HELD_BACK = "causeway.changes.held-back"
"""Event of a source whose database keeps more log for us than the estate's warning."""
_BAR = 24


@dataclass(frozen=True)
class WatchReport:
    """What is wrong now; empty when nothing is."""

    late: tuple[str, ...]
    held_back: tuple[str, ...]


@flow(name="watch", persist_result=False)
def watch(estate: str, dry_run: bool = False) -> WatchReport:
    """Look at every table's freshness and at every source of changes; raise an event for what is wrong.

    Args:
        estate: Path of the estate file on the machine that runs the flow.
        dry_run: Only look: raise no event.
    """
    try:
        declared = load_estate(estate)
        with open_lake(declared) as lake:
            tables = table_statuses(lake, declared)
        slots = _slots(declared)
    except CausewayError as error:
        return cast(WatchReport, failure(error))
    late = tuple(one.name for one in tables if one.late_by is not None)
    held_back = tuple(name for name, (source, state) in slots.items() if _is_held_back(source, state))
    _show(declared, tables)
    if not dry_run:
        _raise_events(declared, tables, {name: slots[name][1] for name in held_back})
    for one in tables:
        if one.late_by is not None:
            get_run_logger().warning("%s is late by %s: last load %s", one.name, _span(one.late_by), one.loaded_at)
    return WatchReport(late, held_back)


def _slots(estate: Estate) -> dict[str, tuple[ChangesSource, SlotState]]:
    return {
        name: (source, changes(estate, name).state())
        for name, source in estate.sources.items()
        if isinstance(source, ChangesSource)
    }


def _is_held_back(source: ChangesSource, state: SlotState) -> bool:
    return state.lost or state.held_back > int(source.held_back_warning)


def _raise_events(estate: Estate, tables: list[TableStatus], held_back: dict[str, SlotState]) -> None:
    for one in tables:
        if one.late_by is not None:
            emit_event(
                event=LATE,
                resource={
                    "prefect.resource.id": f"{lake_root(estate)}/{one.name}",
                    "prefect.resource.name": f"lake.{one.name}",
                },
                payload={
                    "table": one.name,
                    "owner": one.owner,
                    "late_by_seconds": one.late_by.total_seconds(),
                    "loaded_at": one.loaded_at.isoformat() if one.loaded_at else None,
                    "failed": one.failed,
                },
            )
    for name, state in held_back.items():
        emit_event(
            event=HELD_BACK,
            resource={"prefect.resource.id": f"causeway.source.{name}", "prefect.resource.name": name},
            payload={"held_back_bytes": state.held_back, "left_bytes": state.left, "lost": state.lost},
        )
        get_run_logger().warning("%s: the database keeps %.0f MB of log for us", name, state.held_back / 1e6)


def _show(estate: Estate, tables: list[TableStatus]) -> None:
    """Leave a table of all tables, and a small chart of their sizes."""
    create_table_artifact(
        [row_of(one) for one in tables], key="tables", description=f"Tables of the lake of {estate.name}"
    )
    largest = max((one.bytes for one in tables), default=0) or 1
    bars = [
        f"{one.name:24} {'█' * round(_BAR * one.bytes / largest):{_BAR}} {one.bytes / 1e6:,.1f} MB" for one in tables
    ]
    create_markdown_artifact("\n".join(["```", *bars, "```"]), key="table-sizes", description="Bytes of each table")


def row_of(one: TableStatus, now: datetime | None = None) -> dict[str, str]:
    """Return what people see of a table."""
    age = None if one.loaded_at is None else (now or datetime.now(UTC)) - one.loaded_at
    fresh = "no promise" if one.fresh_within is None else "ok"
    if one.late_by is not None:
        fresh = f"late by {_span(one.late_by)}" if one.loaded_at else "never loaded"
    quality = f"{one.expectations - one.unmet} of {one.expectations}" if one.expectations else "none"
    return {
        "table": one.name,
        "rows": "-" if one.rows is None else f"{one.rows:,}",
        "MB": f"{one.bytes / 1e6:,.1f}",
        "last load": "never" if age is None else f"{_span(age)} ago",
        "freshness": fresh,
        "quality": quality + (" (last load set aside or failed)" if one.failed else ""),
        "owner": one.owner,
        "class": one.data_class,
        "source": one.source,
    }


def _span(length: timedelta) -> str:
    """Return a length of time in its two largest units."""
    seconds = int(length.total_seconds())
    units = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)]
    parts = []
    for unit, size in units:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
