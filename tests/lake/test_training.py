"""Training sets: the same rows in the same order, whatever happens to the table afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.errors import BadDataError, PolicyError
from connectors.estate import load_estate
from datalake import TrainingSet, training_set
from datalake.maintenance import expire, snapshots
from tests.lake.loading import load, writing

pytestmark = pytest.mark.servers

_SQL = "SELECT id, id % 50 AS customer, n FROM lake.t"


def make(estate_file: Path, rows: int = 2000) -> None:
    with writing(load_estate(estate_file)) as lake:
        load(lake, "t", f"SELECT range AS id, (range % 7)::DECIMAL(9, 2) AS n FROM range({rows})", "k1")


def ids(found: TrainingSet, split: str) -> list[int]:
    values: list[int] = found.dataset(split).to_table(columns=["id"])["id"].to_pylist()
    return values


def test_a_set_is_split_shuffled_and_the_same_again_after_the_table_has_changed(estate_file: Path) -> None:
    make(estate_file)
    first = training_set(_SQL, estate_file)
    train, test = ids(first, "train"), ids(first, "test")
    assert sorted(train + test) == list(range(2000))
    assert dict(first.rows) == {"train": len(train), "test": len(test)}
    assert 1500 < len(train) < 1700
    assert train != sorted(train)
    with writing(load_estate(estate_file)) as lake:
        load(lake, "t", "SELECT range + 5000 AS id, 1::DECIMAL(9, 2) AS n FROM range(10)", "k2")
        lake.rows("DELETE FROM lake.t WHERE id < 100")
    again = training_set(_SQL, estate_file, version=first.version)
    assert (again.id, ids(again, "train")) == (first.id, train)
    newer = training_set(_SQL, estate_file)
    assert newer.id != first.id
    assert set(ids(newer, "test")) - set(range(5000, 5010)) == {one for one in test if one >= 100}


def test_rows_of_one_customer_stay_together_and_the_seed_changes_the_split(estate_file: Path) -> None:
    make(estate_file)
    found = training_set(_SQL, estate_file, split={"train": 0.5, "check": 0.3, "test": 0.2}, by=["customer"])
    parts = [{number % 50 for number in ids(found, split)} for split in found.rows]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 50
    other = training_set(_SQL, estate_file, by=["customer"], split={"train": 0.5, "check": 0.3, "test": 0.2}, seed=1)
    assert ids(other, "test") != ids(found, "test")


def test_its_snapshot_is_held_and_recorded(estate_file: Path) -> None:
    make(estate_file)
    found = training_set(_SQL, estate_file)
    with writing(load_estate(estate_file)) as lake:
        assert lake.value("SELECT version FROM ops.holds") == found.version
        assert lake.value("SELECT training_set FROM ops.training_sets") == found.id
        expire(lake, [one.version for one in snapshots(lake) if one.version < found.version])
    training_set(_SQL, estate_file, version=found.version, seed=9)


def test_what_cannot_be_is_refused(estate_file: Path) -> None:
    make(estate_file, 10)
    with pytest.raises(BadDataError, match="add up to 1"):
        training_set(_SQL, estate_file, split={"train": 0.8, "test": 0.3})
    with pytest.raises(PolicyError, match="only a single SELECT"):
        training_set("DELETE FROM lake.t", estate_file)
    with pytest.raises(BadDataError, match="no split 'other'"):
        training_set(_SQL, estate_file).dataset("other")
