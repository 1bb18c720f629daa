"""Holds: snapshots that somebody still needs, so that no maintenance expires them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from connectors.databases import database
from connectors.errors import NotFoundError
from connectors.estate import Estate
from datalake.evidence import HoldRecord, write
from datalake.session import Lake

_FOREVER = datetime(9999, 1, 1, tzinfo=UTC)


@contextmanager
def snapshots_are_mine(estate: Estate) -> Iterator[None]:
    """Let one process at a time hold or expire snapshots, so that none is expired while it is being held."""
    catalog = database(estate.database(estate.lake.catalog.site, estate.lake.catalog.database))
    with catalog.exclusive("causeway-snapshots"):
        yield


def hold(lake: Lake, version: int, holder: str, length: timedelta | None = None) -> str:
    """Keep a snapshot until it is released, or for a length of time; return the hold's id.

    Raises NotFoundError when the snapshot has been expired already. The lake is open for writing.
    """
    with snapshots_are_mine(lake.estate):
        if not lake.rows("SELECT 1 FROM lake.snapshots() WHERE snapshot_id = ?", [version]):
            raise NotFoundError(
                "lake", "hold", f"snapshot {version}", "there is no such snapshot, or no longer",
                "Choose one of `select snapshot_id, snapshot_time from lake.snapshots()`.",
            )  # fmt: skip
        now, made = datetime.now(UTC), uuid.uuid4().hex
        until = _FOREVER if length is None else now + length
        write(lake, [HoldRecord(hold_id=made, version=version, holder=holder, held_at=now, held_until=until)])
    return made


def release(lake: Lake, hold_id: str) -> None:
    """Let go of a hold; harmless when it is gone."""
    with snapshots_are_mine(lake.estate):
        lake.rows("DELETE FROM ops.holds WHERE hold_id = ?", [hold_id])


def held_versions(lake: Lake, now: datetime) -> set[int]:
    """Return the snapshots that are held."""
    return {int(version) for (version,) in lake.rows("SELECT version FROM ops.holds WHERE held_until > ?", [now])}
