"""Maintenance: fewer files and the same rows, for every reader and every snapshot that is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connectors.errors import ConflictError, NotFoundError
from connectors.estate import load_estate
from connectors.sources import Slice
from datalake import dask_frame
from datalake.batch import new_load_id, stage
from datalake.holds import held_versions, hold, release
from datalake.maintenance import TableState, compact, expire, remove_orphans, snapshots, sorting, table_states
from datalake.session import Lake, open_lake
from tasks.maintain.plan import expirable
from tests.lake.loading import SelectSource, load, writing

pytestmark = pytest.mark.servers

_SIZE = 1 << 20
_EVERYTHING = timedelta(0)


def state_of(lake: Lake, table: str) -> TableState:
    return next(one for one in table_states(lake, _SIZE) if one.table == table)


def compacted(lake: Lake, table: str, sort_by: list[str] | None = None) -> TableState:
    return compact(lake, state_of(lake, table), file_size=_SIZE, rewrite_deleted=0.2, sort_by=sort_by or []).after


def fill(lake: Lake, table: str, loads: int, rows: int = 100) -> None:
    for number in range(loads):
        select = f"SELECT (hash(range + {number * rows}) % 100000)::BIGINT AS id, {number} AS n FROM range({rows})"
        load(lake, table, select, f"{table}-{number}")


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def test_compaction_merges_small_files_and_changes_no_row_of_any_snapshot(estate_file: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        fill(lake, "t", 12)
        before = lake.rows("SELECT id, n FROM lake.t ORDER BY ALL")
        fifth = lake.version() - 7
        assert state_of(lake, "t").small_files == 12
        after = compacted(lake, "t", ["id"])
        assert (after.files, after.rows) == (1, 1200)
        assert lake.rows("SELECT id, n FROM lake.t ORDER BY ALL") == before
        assert lake.value(f"SELECT count(*) FROM lake.t AT (VERSION => {fifth})") == 500
        ids = [row[0] for row in lake.rows(f"SELECT id FROM read_parquet('{lake.files('t')[0]}')")]
        assert ids == sorted(ids)
        assert sorting(lake, "t") == ["id"]
        compacted(lake, "t", [])
        assert sorting(lake, "t") == []


def test_files_of_which_much_is_deleted_are_written_again(estate_file: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        load(lake, "t", "SELECT range AS id FROM range(1000)", "k1")
        lake.rows("DELETE FROM lake.t WHERE id % 2 = 0")
        assert state_of(lake, "t").deleted == 500
        after = compacted(lake, "t")
        assert (after.deleted, after.rows) == (0, 500)
        assert lake.value("SELECT sum(id) FROM lake.t") == sum(range(1, 1000, 2))


def test_evidence_is_compacted_too(estate_file: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        fill(lake, "t", 5)
        assert state_of(lake, "loads").files == 5
        assert compacted(lake, "loads").files == 1
        assert lake.value("SELECT count(*) FROM ops.loads") == 5


def test_a_key_that_was_committed_before_its_snapshot_expired_is_still_known(estate_file: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        fill(lake, "t", 3)
        found = snapshots(lake)
        doomed = expirable(found, set(), _EVERYTHING, in_an_hour())
        assert len(doomed) == len(found) - 1
        expire(lake, doomed)
        fill(lake, "t", 3)
        assert lake.value("SELECT count(*) FROM lake.t") == 300
    with pytest.raises(NotFoundError), open_lake(load_estate(estate_file), version=doomed[-1]):
        pass


def test_a_snapshot_that_is_held_survives_and_can_be_read_until_it_is_released(estate_file: Path) -> None:
    estate = load_estate(estate_file)
    with writing(estate) as lake:
        load(lake, "t", "SELECT range AS id FROM range(10)", "k1", mode="replace")
        version = lake.version()
        held = hold(lake, version, "recovery point 7")
        load(lake, "t", "SELECT range AS id FROM range(3)", "k2", mode="replace")
        expire(lake, expirable(snapshots(lake), held_versions(lake, datetime.now(UTC)), _EVERYTHING, in_an_hour()))
        remove_orphans(lake, before=in_an_hour())
    with open_lake(estate, version=version) as lake:
        assert lake.value("SELECT sum(id) FROM lake.t") == 45
    with writing(estate) as lake:
        release(lake, held)
        expire(lake, expirable(snapshots(lake), held_versions(lake, datetime.now(UTC)), _EVERYTHING, in_an_hour()))
        count, size = remove_orphans(lake, before=in_an_hour())
        assert count >= 1
        assert size > 0
        assert lake.value("SELECT sum(id) FROM lake.t") == 3
        with pytest.raises(NotFoundError, match="no such snapshot"):
            hold(lake, version, "too late")


def test_a_hold_ends_by_itself(estate_file: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        load(lake, "t", "SELECT 1 AS id", "k1")
        version = lake.version()
        hold(lake, version, "training", timedelta(hours=1))
        assert held_versions(lake, datetime.now(UTC)) == {version}
        assert held_versions(lake, in_an_hour() + timedelta(minutes=1)) == set()


def test_orphans_go_and_what_is_named_or_young_stays(estate_file: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        fill(lake, "t", 4)
        fill(lake, "u", 1)
        stage(lake, "left", SelectSource("SELECT 1 AS id"), Slice(), new_load_id())
        compacted(lake, "t")
        total = lake.value("SELECT sum(id) FROM lake.t")
        assert remove_orphans(lake, before=datetime.now(UTC) - timedelta(hours=1)) == (0, 0)
        planned = remove_orphans(lake, before=in_an_hour(), dry_run=True)
        count, size = remove_orphans(lake, before=in_an_hour())
        assert (count, size) == planned
        assert count == 1 + 4  # the batch that was left, and the files that were merged
        assert remove_orphans(lake, before=in_an_hour()) == (0, 0)
        assert lake.value("SELECT sum(id) FROM lake.t") == total
        assert lake.value("SELECT count(*) FROM lake.u") == 100
        assert lake.value("SELECT count(*) FROM ops.loads") == 5


def test_a_frame_says_so_when_its_files_were_merged(estate_file: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        fill(lake, "t", 3)
        frame = dask_frame("t", estate_file)
        compacted(lake, "t")
        with pytest.raises(ConflictError, match="merged by maintenance"):
            frame.compute(scheduler="synchronous")  # type: ignore[no-untyped-call]
        again = dask_frame("t", estate_file).compute(scheduler="synchronous")  # type: ignore[no-untyped-call]
        assert len(again) == 300


def test_a_sorted_table_is_sorted_when_it_is_staged(estate_file: Path) -> None:
    select = "SELECT (hash(range) % 100000)::BIGINT AS id FROM range(200000)"
    with writing(load_estate(estate_file)) as lake:
        batch = stage(lake, "t", SelectSource(select), Slice(), new_load_id(), sort_by=["id"])
        spans = lake.rows(
            f"SELECT stats_max_value::BIGINT - stats_min_value::BIGINT FROM parquet_metadata('{batch.files[0]}')"
        )
        assert len(spans) == 4
        assert sum(span for (span,) in spans) <= 100_000
