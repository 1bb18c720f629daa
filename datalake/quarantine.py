"""Sets a batch aside that failed its expectations, with the rows and the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from datalake.batch import Batch
from datalake.evidence import LoadRecord, QualityRecord, QuarantineRecord, write
from datalake.load import AlreadyLoaded, once
from datalake.session import Lake


def quarantine(
    lake: Lake,
    batch: Batch,
    record: LoadRecord,
    quality: Sequence[QualityRecord],
    rows: Sequence[tuple[str, str]],
) -> None:
    """Record the refused batch in one transaction, once; its files stay where they are and in no table.

    `rows` are (JSON, reasons). The load's key stays free, so that the mended batch can be loaded under it.
    """
    now, url = datetime.now(UTC), " ".join(batch.files)
    kept = [QuarantineRecord(batch.load_id, batch.table, reasons, row, url, now) for row, reasons in rows] or [
        QuarantineRecord(batch.load_id, batch.table, record.reason or "", "{}", url, now)
    ]

    def transaction() -> None:
        write(lake, [record])
        write(lake, quality)
        write(lake, kept)

    def done() -> AlreadyLoaded | None:
        found = lake.rows("SELECT 1 FROM ops.loads WHERE load_id = ?", [batch.load_id])
        return AlreadyLoaded(batch.load_id) if found else None

    once(lake, f"quarantine:{batch.load_id}", transaction, done, f"{batch.table}: {batch.load_id} quarantined")
