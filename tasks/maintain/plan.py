"""Decides what maintenance does: which tables are compacted, and which snapshots go."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from datalake.maintenance import Snapshot, TableState


def needs_compaction(state: TableState, rewrite_deleted: float) -> bool:
    """Whether a table has small files to merge, or hides so many rows that its files are worth writing again."""
    return state.small_files > 1 or (state.deleted > 0 and state.deleted >= rewrite_deleted * state.rows)


def expirable(snapshots: Sequence[Snapshot], held: Collection[int], keep: timedelta, now: datetime) -> list[int]:
    """Return the snapshots that nobody may read any more: older than `keep`, not held, and not the newest."""
    if not snapshots:
        return []
    newest = max(one.version for one in snapshots)
    before = now - keep
    return [one.version for one in snapshots if one.time < before and one.version not in held and one.version != newest]
