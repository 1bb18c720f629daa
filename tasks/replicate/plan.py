"""Decides how a run that follows changes begins."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from connectors.changes import SlotState
from connectors.errors import FixableError


@dataclass(frozen=True)
class Beginning:
    """What is done before changes are read."""

    create: bool
    """Whether the consumer is made anew: what the database kept for an old one is given up."""
    snapshots: tuple[str, ...]
    """Tables of the lake that are read whole."""


def begin(source: str, state: SlotState, joined: Collection[str], wanted: Collection[str], resync: bool) -> Beginning:
    """Return how to begin: at the very beginning, with tables that are new in the group, or where we stopped.

    `joined` are the tables whose changes are in the lake up to our position. A consumer that the lake knows nothing
    of was left by a run that was killed before its first commit: nothing depends on it. Raises FixableError when the
    database has given up what we had not read.
    """
    if resync or not joined:
        return Beginning(create=True, snapshots=tuple(wanted))
    if not state.exists or state.lost:
        what = "has given up the log that was kept for us" if state.lost else "has no such slot any more"
        raise FixableError(
            "postgresql", "follow the changes of", source, f"the database {what}: changes are missing",
            f"Read the tables anew: causeway replicate {source} --resync. See max_slot_wal_keep_size.",
        )  # fmt: skip
    return Beginning(create=False, snapshots=tuple(name for name in wanted if name not in joined))
