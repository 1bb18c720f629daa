"""Reading the lake: SQL that only reads, one snapshot a query, and Dask frames that honour deletes."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import dask
import pyarrow.parquet as pq
import pytest

from connectors.errors import BadDataError, NotFoundError, PolicyError, SchemaError
from connectors.estate import load_estate
from datalake import dask_frame
from datalake.query import query
from deployments.cli import main
from tests.lake.loading import load, writing

pytestmark = pytest.mark.servers


@pytest.fixture
def filled(estate_file: Path) -> Path:
    """A lake with a table of two files, of which two rows were deleted by a merge."""
    fields: dict[str, Any] = {"mode": "merge", "key": ["id"], "partition_by": ["part"]}
    select = "SELECT range AS id, (range % 2)::INTEGER AS part, (range / 4)::DECIMAL(9, 2) AS n FROM range(100)"
    with writing(load_estate(estate_file)) as lake:
        load(lake, "t", select, "k1", **fields)
        load(lake, "t", "SELECT range AS id, 5 AS part, 0::DECIMAL(9, 2) AS n FROM range(2)", "k2", **fields)
    return estate_file


def test_a_query_reads_one_snapshot_whatever_is_committed_meanwhile(filled: Path) -> None:
    estate = load_estate(filled)
    with query(estate, "SELECT (SELECT count(*) FROM lake.t) + 0 * i AS n FROM range(3) AS r(i)") as answer:
        with writing(estate) as lake:
            load(lake, "t", "SELECT 1000::BIGINT AS id, 1 AS part, 1::DECIMAL(9, 2) AS n", "k3", mode="append")
        assert answer.reader.read_all().column("n").to_pylist() == [100, 100, 100]
        earlier = answer.version
    with query(estate, "SELECT count(*) AS n FROM lake.t") as answer:
        assert answer.reader.read_all().to_pylist() == [{"n": 101}]
        assert answer.version > earlier
    with query(estate, "SELECT count(*) AS n FROM lake.t", version=earlier) as answer:
        assert answer.reader.read_all().to_pylist() == [{"n": 100}]


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE lake.t",
        "INSERT INTO lake.t VALUES (1, 1, 1)",
        "SELECT 1; DROP TABLE lake.t",
        "COPY lake.t TO '/tmp/stolen.csv'",
        "ATTACH '/tmp/other.db'",
        "SET lock_configuration = false",
        "CALL ducklake_expire_snapshots('lake', older_than => now())",
        "",
    ],
)
def test_a_statement_that_does_not_only_read_is_refused(filled: Path, sql: str) -> None:
    with pytest.raises(PolicyError), query(load_estate(filled), sql):
        pass


def test_functions_that_write_are_refused_by_the_read_only_catalog(filled: Path) -> None:
    estate = load_estate(filled)
    for sql in (
        "SELECT * FROM ducklake_expire_snapshots('lake', older_than => now())",
        "SELECT * FROM postgres_execute('__ducklake_metadata_lake', 'DROP TABLE ducklake_table')",
    ):
        with pytest.raises(Exception, match=r"read-only|READ ONLY|read only"), query(estate, sql) as answer:
            answer.reader.read_all()
    with query(estate, "SELECT count(*) AS n FROM lake.t") as answer:
        assert answer.reader.read_all().to_pylist() == [{"n": 100}]


def test_wrong_sql_is_explained(filled: Path) -> None:
    with pytest.raises(BadDataError, match="nmae"), query(load_estate(filled), "SELECT nmae FROM lake.t"):
        pass
    with pytest.raises(BadDataError, match="syntax"), query(load_estate(filled), "SELEC 1"):
        pass


def test_the_command_prints_tables_csv_json_and_parquet(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = "SELECT id, n, [id] AS l FROM lake.t WHERE id IN (8, 9) ORDER BY id"
    base = ["--estate", str(filled), "sql", sql]
    assert main(base) == 0
    assert capsys.readouterr().out.split()[:6] == ["id", "n", "l", "8", "2.00", "[8]"]
    assert main([*base, "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines() == ['"id","n","l"', '8,2.00,"[8]"', '9,2.25,"[9]"']
    assert main([*base, "--format", "json"]) == 0
    assert capsys.readouterr().out.startswith('[{"id": 8, "n": "2.00", "l": [8]}')
    assert main([*base, "--format", "parquet"]) == 1
    assert "--output" in capsys.readouterr().err
    file = tmp_path / "answer.parquet"
    assert main([*base, "--format", "parquet", "--output", str(file)]) == 0
    assert pq.read_table(file).column("n").to_pylist() == [Decimal("2.00"), Decimal("2.25")]


def test_a_dask_frame_has_the_tables_rows_without_the_deleted_ones(filled: Path) -> None:
    with dask.config.set(scheduler="threads"):
        frame = dask_frame("t", filled)
        assert frame.npartitions == 3
        assert len(frame) == 100
        assert str(frame.dtypes["n"]) == "decimal128(9, 2)[pyarrow]"
        assert frame.groupby("part")["n"].sum().compute().sum() == Decimal("1237.25")
        assert sorted(frame.groupby("part").size().compute().to_dict().items()) == [(0, 49), (1, 49), (5, 2)]


def test_a_dask_frame_reads_only_the_columns_and_files_that_are_asked_for(filled: Path) -> None:
    with dask.config.set(scheduler="synchronous"):
        frame = dask_frame("t", filled, columns=["id"], where="part = 5")
        assert list(frame.columns) == ["id"]
        assert frame.npartitions == 1
        assert sorted(frame["id"].compute()) == [0, 1]
        assert len(dask_frame("t", filled, where="part = 77")) == 0


def test_a_dask_frame_stays_at_its_snapshot(filled: Path) -> None:
    frame = dask_frame("t", filled, columns=["id"])
    with writing(load_estate(filled)) as lake:
        load(lake, "t", "SELECT 7::BIGINT AS id, 1 AS part, 1::DECIMAL(9, 2) AS n", "k9", mode="replace")
    with dask.config.set(scheduler="synchronous"):
        assert len(frame) == 100
        assert len(dask_frame("t", filled)) == 1


def test_a_dask_frame_of_nothing_says_what_there_is(filled: Path) -> None:
    with pytest.raises(NotFoundError, match="There are: t"):
        dask_frame("tt", filled)
    with pytest.raises(SchemaError, match=r"idd.*id, part, n"):
        dask_frame("t", filled, columns=["idd"])
