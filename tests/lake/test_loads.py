"""What a load guarantees: once, whole or not at all, in every mode, whoever else writes."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import AccessDeniedError, ConflictError, NotFoundError, SchemaError
from connectors.estate import load_estate
from connectors.sources import Slice
from datalake.batch import new_load_id, stage
from datalake.load import AlreadyLoaded, Committed, commit, once
from datalake.session import open_lake
from tests.lake.loading import SelectSource, load, make_table, record_of, writing

pytestmark = pytest.mark.servers


def test_append_adds_rows_and_the_same_key_again_changes_nothing(estate_file: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        first = load(lake, "t", "SELECT range AS id FROM range(10)", "k1")
        again = load(lake, "t", "SELECT range AS id FROM range(10)", "k1")
        other = load(lake, "t", "SELECT range AS id FROM range(5)", "k2")
        assert isinstance(first, Committed)
        assert isinstance(again, AlreadyLoaded)
        assert isinstance(other, Committed)
        assert lake.value("SELECT count(*) FROM lake.t") == 15
        assert lake.value("SELECT count(*) FROM ops.loads WHERE status = 'committed'") == 2


def test_replace_puts_the_batch_in_the_place_of_everything(estate_file: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        load(lake, "t", "SELECT range AS id FROM range(10)", "k1", mode="replace")
        load(lake, "t", "SELECT range + 100 AS id FROM range(3)", "k2", mode="replace")
        assert lake.rows("SELECT id FROM lake.t ORDER BY id") == [(100,), (101,), (102,)]


def test_replace_of_a_slice_leaves_the_rows_outside_it(estate_file: Path) -> None:
    fields: dict[str, Any] = {"mode": "replace", "cursor": "id"}
    with writing(load_estate(estate_file)) as lake:
        load(lake, "t", "SELECT range AS id, 'old' AS v FROM range(10)", "k1", **fields)
        load(lake, "t", "SELECT 5::BIGINT AS id, 'new' AS v", "k2", Slice("id", "3", "8"), **fields)
        assert lake.value("SELECT list(id ORDER BY id) FROM lake.t") == [0, 1, 2, 5, 8, 9]
        assert lake.rows("SELECT id FROM lake.t WHERE v = 'new'") == [(5,)]


@pytest.mark.parametrize("partition_by", [[], ["bucket(4, id)"]])
def test_merge_updates_by_key_and_adds_what_is_new(estate_file: Path, partition_by: list[str]) -> None:
    fields: dict[str, Any] = {"mode": "merge", "key": ["id"], "partition_by": partition_by}
    with writing(load_estate(estate_file)) as lake:
        load(lake, "t", "SELECT range AS id, 'a' AS v FROM range(10)", "k1", **fields)
        load(lake, "t", "SELECT range + 8 AS id, 'b' AS v FROM range(4)", "k2", **fields)
        found = lake.rows("SELECT v, list(id ORDER BY id) FROM lake.t GROUP BY v ORDER BY v")
        assert found == [("a", [0, 1, 2, 3, 4, 5, 6, 7]), ("b", [8, 9, 10, 11])]


def test_a_partitioned_table_reads_only_the_files_that_a_condition_needs(estate_file: Path) -> None:
    select = "SELECT range AS id, DATE '2013-01-01' + (range % 360)::INTEGER AS day FROM range(3600)"
    with writing(load_estate(estate_file)) as lake:
        load(lake, "t", select, "k1", partition_by=["month(day)"])
        assert len(lake.files("t")) == 12
        plan = lake.rows("EXPLAIN ANALYZE SELECT count(*) FROM lake.t WHERE day < DATE '2013-02-01'")[0][1]
        assert "Total Files Read: 1" in " ".join(plan.replace("│", " ").split())


def test_an_empty_batch_makes_the_table_and_adds_nothing(estate_file: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        load(lake, "t", "SELECT 1 AS id, 'x' AS v WHERE false", "k1")
        assert lake.columns("t") == {"id": "INTEGER", "v": "VARCHAR"}
        assert lake.value("SELECT count(*) FROM lake.t") == 0


def test_a_new_column_and_a_wider_type_change_the_table_and_keep_its_rows(estate_file: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        load(lake, "t", "SELECT 1::INTEGER AS id, 1.5::DECIMAL(9, 2) AS n", "k1")
        load(lake, "t", "SELECT 5000000000 AS id, 2.5::DECIMAL(18, 2) AS n, 'x' AS v", "k2")
        assert lake.columns("t") == {"id": "BIGINT", "n": "DECIMAL(18,2)", "v": "VARCHAR"}
        assert [row[0] for row in lake.rows("SELECT id FROM lake.t ORDER BY id")] == [1, 5_000_000_000]


@pytest.mark.parametrize(
    ("select", "word"),
    [
        ("SELECT 1::INTEGER AS id, 'x' AS v", "narrows from BIGINT to INTEGER"),
        ("SELECT 1::BIGINT AS id", "column v VARCHAR is missing"),
        ("SELECT 'one' AS id, 'x' AS v", "changes from BIGINT to VARCHAR"),
    ],
)
def test_a_narrower_or_lost_column_is_refused_with_both_schemas(estate_file: Path, select: str, word: str) -> None:
    with writing(load_estate(estate_file)) as lake:
        load(lake, "t", "SELECT 1::BIGINT AS id, 'x' AS v", "k1")
        with pytest.raises(SchemaError) as caught:
            load(lake, "t", select, "k2")
        assert word in str(caught.value)
        assert "table: id BIGINT, v VARCHAR" in str(caught.value)
        assert "batch: id" in str(caught.value)
        assert lake.value("SELECT count(*) FROM lake.t") == 1


def test_a_snapshot_shows_the_table_as_it_was(estate_file: Path) -> None:
    estate = load_estate(estate_file)
    with writing(estate) as lake:
        first = load(lake, "t", "SELECT range AS id FROM range(10)", "k1", mode="replace")
        between = datetime.now(UTC)
        load(lake, "t", "SELECT range AS id FROM range(3)", "k2", mode="replace")
    assert isinstance(first, Committed)
    with open_lake(estate, at=between) as lake:
        assert lake.value("SELECT count(*) FROM lake.t") == 10
    with pytest.raises(NotFoundError), open_lake(estate, at=datetime(2020, 1, 1, tzinfo=UTC)):
        pass
    with open_lake(estate, version=first.version) as lake:
        assert lake.value("SELECT count(*) FROM lake.t") == 10
    with pytest.raises(NotFoundError), open_lake(estate, version=9999):
        pass


def _race(estate_file: Path, arguments: list[list[str]]) -> list[str]:
    """Run writers as processes at the same moment; return what each says of its loads."""
    command = [sys.executable, "-m", "tests.lake.writer", str(estate_file)]
    running = [
        subprocess.Popen([*command, *one], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for one in arguments
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * len(running), outputs
    return [word for output, _ in outputs for word in output.split()]


def test_of_processes_that_load_the_same_key_at_the_same_moment_one_wins(estate_file: Path) -> None:
    said = _race(estate_file, [["append", "same", "same-key", "1"] for _ in range(4)])
    assert sorted(said) == ["AlreadyLoaded"] * 3 + ["Committed"]
    with open_lake(load_estate(estate_file)) as lake:
        assert lake.value("SELECT count(*) FROM lake.same") == 100
        assert lake.value("SELECT count(*) FROM ops.loads") == 1


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
def test_writers_of_one_table_at_once_lose_nothing_and_double_nothing(estate_file: Path, mode: str) -> None:
    said = _race(estate_file, [[mode, "busy", f"writer-{number}", "4"] for number in range(3)])
    assert said == ["Committed"] * 12
    with open_lake(load_estate(estate_file)) as lake:
        expected = {"append": 1200, "merge": 100, "replace": 100}[mode]
        assert lake.value("SELECT count(*) FROM lake.busy") == expected
        assert lake.value("SELECT count(DISTINCT id) FROM lake.busy") == 100


def test_a_commit_that_fails_leaves_nothing_and_its_key_free(estate_file: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        load(lake, "t", "SELECT 1 AS id", "k1")

        def fail() -> None:
            lake.rows("INSERT INTO lake.t VALUES (2)")
            raise ConflictError("test", "write", "t", "it failed after it had written")

        with pytest.raises(ConflictError):
            once(lake, "k2", fail, lambda: None, "test")
        assert lake.value("SELECT count(*) FROM lake.t") == 1
        assert isinstance(load(lake, "t", "SELECT 2 AS id", "k2"), Committed)


def test_a_commit_whose_answer_was_lost_counts_as_made_and_keeps_its_files(estate_file: Path) -> None:
    with writing(load_estate(estate_file)) as lake:
        batch = stage(lake, "t", SelectSource("SELECT range AS id FROM range(10)"), Slice(), new_load_id())
        first = commit(lake, "t", make_table(), batch, Slice(), [record_of(batch, "k1")])
        again = commit(lake, "t", make_table(), batch, Slice(), [record_of(batch, "k1")])
        assert isinstance(first, Committed)
        assert isinstance(again, Committed)
        assert lake.value("SELECT count(*) FROM lake.t") == 10


def test_a_wrong_password_is_named_without_being_shown(estate_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with writing(load_estate(estate_file)):
        pass
    monkeypatch.setenv("DB_PASSWORD", "wrong-pass-word")
    with pytest.raises(AccessDeniedError) as caught, open_lake(load_estate(estate_file)):
        pass
    assert "wrong-pass-word" not in str(caught.value)
    monkeypatch.undo()
