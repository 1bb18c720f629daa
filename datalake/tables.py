"""What is known of every table: rows, bytes, last load, freshness, quality, owner, class."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from connectors.estate import Estate
from datalake.documents import TABLE as OBJECTS
from datalake.maintenance import table_states
from datalake.session import Lake


@dataclass(frozen=True)
class TableStatus:
    """A table of the estate as the lake has it."""

    name: str
    rows: int | None
    """None when nothing was ever loaded."""
    bytes: int
    files: int
    loaded_at: datetime | None
    """End of the last load that was committed; for a table that follows changes, when it was last level."""
    fresh_within: timedelta | None
    """The table's promise."""
    late_by: timedelta | None
    """How much later than promised; None when it keeps its promise or made none."""
    failed: str | None
    """Why the last load did not come in, when that is newer than the last one that did."""
    unmet: int
    """Expectations that the last checked load did not meet."""
    expectations: int
    owner: str
    data_class: str
    source: str


def table_statuses(lake: Lake, estate: Estate, now: datetime | None = None) -> list[TableStatus]:
    """Return the status of every table that the estate declares, by name; a few queries over the evidence."""
    now = now or datetime.now(UTC)
    states = {one.table: one for one in table_states(lake, 1) if one.schema == "main"}
    loads = {
        str(name): (committed, refused, reason)
        for name, committed, refused, reason in lake.rows(
            "SELECT table_name, max(finished_at) FILTER (WHERE status = 'committed'), "
            "max(finished_at) FILTER (WHERE status <> 'committed'), "
            "max_by(reason, finished_at) FILTER (WHERE status <> 'committed') FROM ops.loads GROUP BY 1"
        )
    }
    level = dict(lake.rows("SELECT source, max(finished_at) FROM ops.replication GROUP BY 1"))
    quality = {
        str(name): (int(checked), int(unmet))
        for name, checked, unmet in lake.rows(
            "SELECT table_name, count(*), count(*) FILTER (WHERE NOT success) FROM ops.quality WHERE load_id IN "
            "(SELECT max_by(load_id, checked_at) FROM ops.quality GROUP BY table_name) GROUP BY 1"
        )
    }
    found = []
    for name, declared in sorted(estate.tables.items()):
        target = OBJECTS if estate.source(declared.source).kind == "documents" else name
        state = states.get(target)
        committed, refused, reason = loads.get(target, (None, None, None))
        loaded = max(filter(None, (committed, level.get(declared.source))), default=None)
        checked, unmet = quality.get(target, (0, 0))
        found.append(
            TableStatus(
                name=name,
                rows=state.rows - state.deleted if state else None,
                bytes=state.bytes if state else 0,
                files=state.files if state else 0,
                loaded_at=loaded,
                fresh_within=declared.fresh_within,
                late_by=_late_by(loaded, declared.fresh_within, now),
                failed=reason if refused and (loaded is None or refused > loaded) else None,
                unmet=unmet,
                expectations=checked,
                owner=declared.owner,
                data_class=str(declared.data_class),
                source=declared.source,
            )
        )
    return found


def _late_by(loaded: datetime | None, promise: timedelta | None, now: datetime) -> timedelta | None:
    """Return how much later than promised the last load is; a table that was never loaded is late at once."""
    if promise is None:
        return None
    if loaded is None:
        return promise
    late = now - loaded - promise
    return late if late > timedelta(0) else None
