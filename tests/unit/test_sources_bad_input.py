"""What is wrong in a file is said in one sentence: file, line, column, value, next step."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from connectors.duck import connect
from connectors.errors import BadDataError, CapabilityError, NotFoundError
from connectors.estate import Estate
from connectors.sources import Slice, source

HEADER = b"id,name,day\n"
GOOD = b"".join(b"%d,name %d,2024-01-01\n" % (number, number) for number in range(50_000))
LINES = b"".join(b'{"id": %d, "name": "n"}\n' % number for number in range(50_000))
Read = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write files and read them all through a source: read("csv", {"a.csv": b"..."})."""

    def reads(
        file_format: str,
        files: dict[str, bytes],
        types: dict[str, str] | None = None,
        part: Slice | None = None,
        **declared: Any,
    ) -> list[tuple[Any, ...]]:
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        return scan(tmp_path, {"path": "*", "format": file_format, **declared}, types or {}, part or Slice())

    return reads


def scan(folder: Path, declared: dict[str, Any], types: dict[str, str], part: Slice) -> list[tuple[Any, ...]]:
    estate = Estate.model_validate({
        "name": "test",
        "organisation": {"team": {"title": "Team"}},
        "sites": {"here": {"kind": "private", "region": "r", "holds": "restricted"}},
        "lake": {"site": "here", "bucket": "b", "catalog": {"site": "here", "database": "d"}},
        "sources": {"x": {"kind": "files", **declared}},
    })  # fmt: skip
    made = source(estate, "x", types, folder)
    connection = connect(memory_limit=128 * 2**20, threads=2)
    with made.scan(connection, part) as select:
        try:
            return connection.execute(select).fetchall()
        except duckdb.Error as error:
            raise made.translate(error) from error


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (b"1,ragged\n", "columns where the header has 3"),
        (b"1,x,2024-01-01,more\n", "4 columns where the header has 3"),
        (b"1,caf\xe9,2024-01-01\n", "its bytes are not"),
        (b'1,"open,2024-01-01\n', "a quoted value does not end"),
        (b'1,"in"side",2024-01-01\n', "a quoted value does not end"),
        (b"abc,x,2024-01-01\n", "column 'id': the value 'abc' is not BIGINT"),
        (b"1,x,yesterday\n", "column 'day': the value 'yesterday' is not DATE"),
    ],
)
@pytest.mark.parametrize("rows_before", [50_000, 3])
def test_a_bad_line_of_csv_is_named(read: Read, bad: bytes, expected: str, rows_before: int) -> None:
    before = b"".join(GOOD.splitlines(keepends=True)[:rows_before])
    types = {"id": "BIGINT", "day": "DATE"}
    with pytest.raises(BadDataError) as caught:
        read("csv", {"in.csv": HEADER + before + bad + before}, types)
    assert f"in.csv: line {rows_before + 2}: " in str(caught.value)
    assert expected in caught.value.cause
    assert len(str(caught.value)) < 500
    assert caught.value.next_step


def test_a_type_that_changes_in_mid_file_is_an_error_and_a_declared_type_mends_it(read: Read) -> None:
    files = {"in.csv": HEADER + GOOD + b"abc,x,2024-01-01\n"}
    with pytest.raises(BadDataError, match="line 50002: column 'id': the value 'abc' is not BIGINT"):
        read("csv", files)
    assert len(read("csv", files, {"id": "VARCHAR"})) == 50_001


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the file is empty"),
        (b"\n", "a column without a name"),
        (b"id,id,day\n1,2,3\n", "the name 'id' twice"),
        (b"\xff\xfe\x00i\x00d", "not utf-8"),
        (b"id,name\n1,x\n", "the declared column 'day' is not among 'id', 'name'"),
    ],
)
def test_a_file_that_is_no_csv_with_a_header_is_refused(read: Read, data: bytes, expected: str) -> None:
    with pytest.raises(BadDataError, match=f"in.csv.*{expected}"):
        read("csv", {"in.csv": data}, {"day": "DATE"})


def test_encodings_and_odd_csv_are_read_as_declared(read: Read) -> None:
    assert read("csv", {"a": "id;name\r\n1;caf\xe9\r\n".encode("latin-1")}, delimiter=";", encoding="latin1") == [
        (1, "café")
    ]
    assert read("csv", {"a": "id,n\n1,x\n".encode("utf-16")}, encoding="utf-16") == [(1, "x")]
    assert read("csv", {"a": b"\xef\xbb\xbfid,n\n1,NA\n2,\n"}, null_values=["", "NA"]) == [(1, None), (2, None)]
    assert read("csv", {"a": b'id,n\n1,"two\nlines, ""x"""\n'}) == [(1, 'two\nlines, "x"')]
    assert read("csv", {"a": b"zip\n01234\n"}) == [("01234",)]
    with pytest.raises(CapabilityError, match=r"'gbk'.*Choose one of"):
        read("csv", {"a": b"id\n1\n"}, encoding="gbk")


def test_files_of_one_source_must_have_the_same_columns(read: Read) -> None:
    first = {"1.csv": b"id,name\n1,a\n"}
    assert sorted(read("csv", {**first, "2.csv": b"name,id\nb,2\n"}, {"id": "INT"})) == [(1, "a"), (2, "b")]
    with pytest.raises(BadDataError, match=r"2\.csv: line 1.*missing nothing, additional \['x'\]"):
        read("csv", {**first, "2.csv": b"id,name,x\n1,a,b\n"})
    with pytest.raises(BadDataError, match=r"2\.csv: line 1.*missing \['name'\]"):
        read("csv", {**first, "2.csv": b"id\n1\n"})


def test_no_file_and_no_folder_are_named(read: Read) -> None:
    with pytest.raises(NotFoundError, match=r"absent/\*\.csv.*no file matches"):
        read("csv", {}, path="absent/*.csv")
    with pytest.raises(NotFoundError, match=r"absent\.csv.*no file matches"):
        read("csv", {}, path="absent.csv")


@pytest.mark.parametrize(
    ("bad", "line", "expected"),
    [
        (b'{"id": 1, "name": "to', 50_001, "the line is torn"),
        (b'{"id": 1, "name": "x"\n' + LINES, 50_001, "unexpected"),
        (b'{"id": "abc", "name": "x"}\n', 50_001, '"abc"'),
        (b'{"id": 1, "name": "caf\xe9"}\n', 50_001, "UTF-8"),
        (b'{"id": 1, "new": 1}\n', 50_001, 'unknown key "new"'),
        (b"[1]\n", 50_001, "ARRAY"),
    ],
)
def test_a_bad_line_of_json_is_named(read: Read, bad: bytes, line: int, expected: str) -> None:
    with pytest.raises(BadDataError) as caught:
        read("jsonl", {"in.jsonl": LINES + bad})
    assert f"in.jsonl: line {line}: " in str(caught.value)
    assert expected in caught.value.cause


def test_json_that_is_no_record_is_refused(read: Read) -> None:
    with pytest.raises(BadDataError, match="not JSON objects"):
        read("jsonl", {"in.jsonl": b"[1]\n[2]\n"})


def test_declared_types_of_json_are_kept_and_no_key_is_dropped(read: Read) -> None:
    files = {"in.jsonl": LINES + b'{"id": 12345678901234567890123, "new": 1}\n'}
    rows = read("jsonl", files, {"id": "DECIMAL(38, 0)"})
    assert (int(rows[-1][0]), rows[-1][1:]) == (12345678901234567890123, (None, 1))
    with pytest.raises(BadDataError, match="declared column 'absent'"):
        read("jsonl", files, {"absent": "INT"})


def parquet(folder: Path, query: str, options: str = "") -> bytes:
    connect().execute(f"COPY ({query}) TO '{folder}/made' (FORMAT parquet{options})")
    data = (folder / "made").read_bytes()
    (folder / "made").unlink()
    return data


def test_a_damaged_parquet_file_is_named(read: Read, tmp_path: Path) -> None:
    whole = parquet(tmp_path, "SELECT i, md5(i::VARCHAR) AS h FROM range(100000) t(i)")
    flipped = whole[:2000] + bytes(255 - byte for byte in whole[2000:6000]) + whole[6000:]
    footless = whole[:-40] + b"\xff" * 32 + whole[-8:]
    for data in (whole[: len(whole) // 2], b"no Parquet at all", flipped, footless):
        with pytest.raises(BadDataError, match="source 'x'"):
            read("parquet", {"in.parquet": data})


def test_parquet_files_must_have_the_same_columns(read: Read, tmp_path: Path) -> None:
    first = {"1": parquet(tmp_path, "SELECT 1 AS a, 2 AS b")}
    assert read("parquet", {**first, "2": parquet(tmp_path, "SELECT 3 AS b, 4 AS a")}) == [(1, 2), (4, 3)]
    for other in ("SELECT 1 AS a", "SELECT 1 AS a, 2 AS b, 3 AS c"):
        with pytest.raises(BadDataError, match=r"2: its columns .* are not those of .*1 \(a, b\)"):
            read("parquet", {**first, "2": parquet(tmp_path, other)})
    with pytest.raises(BadDataError, match="a"):
        read("parquet", {**first, "2": parquet(tmp_path, "SELECT 'x' AS a, 2 AS b")})


# Not `ru_maxrss`: that of a started process is never below its parent's.
READER = """
import re, sys
from pathlib import Path
from tests.unit.test_sources_bad_input import scan_into
print(scan_into(Path(sys.argv[1])), re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def scan_into(folder: Path) -> str:
    """Read a folder's Parquet under 128 MB of memory; return the number of rows or the error."""
    try:
        return str(scan(folder, {"path": "*.parquet", "format": "parquet"}, {}, Slice("id", "0", "10"))[-1][0])
    except BadDataError as error:
        return str(error)


@pytest.mark.parametrize(("page_rows", "expected"), [(20_000, "9"), (None, "its largest row group has")])
def test_a_huge_row_group_is_never_held_whole(tmp_path: Path, page_rows: int | None, expected: str) -> None:
    """One row group of 300 MB: page by page where its pages are small, refused by name where they are not."""
    text = "md5(i::VARCHAR) || md5((i + 1)::VARCHAR) || md5((i + 2)::VARCHAR)"
    rows = f"SELECT i AS id, {text} AS a FROM range(3000000) t(i)"
    path = tmp_path / "one.parquet"
    if page_rows is None:
        connect().execute(
            f"COPY ({rows}) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 10000000, COMPRESSION uncompressed)"
        )
    else:
        import pyarrow.parquet as pq

        table = connect().execute(rows).to_arrow_table()
        pq.write_table(
            table, path, row_group_size=10_000_000, compression="none", use_dictionary=False, data_page_size=2**20
        )
    found = (
        connect()
        .execute(f"SELECT count(DISTINCT row_group_id), sum(total_uncompressed_size) FROM parquet_metadata('{path}')")
        .fetchall()
    )
    assert found[0][0] == 1
    assert found[0][1] > 250 * 2**20
    done = subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    result, _, peak = done.stdout.strip().rpartition(" ")
    assert expected in result
    assert int(peak) // 1024 < 128 + 150  # the limit, and the interpreter with its libraries
