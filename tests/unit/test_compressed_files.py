"""Compressed files arrive whole or not at all."""

from __future__ import annotations

import gzip
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.duck import connect
from connectors.errors import BadDataError, CausewayError
from connectors.estate import FilesSource
from connectors.sources import Slice
from connectors.sources.files import LocalFiles

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROWS = 100_000
LINES = {
    "csv": "id,name\n" + "".join(f"{number},name {number}\n" for number in range(ROWS)),
    "jsonl": "".join(f'{{"id": {number}, "name": "name {number}"}}\n' for number in range(ROWS)),
}


def zipped(*members: tuple[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return made.getvalue()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstd.compress,
    "zip": lambda data: zipped(("day/data", data)),
}


def read(folder: Path, pattern: str, file_format: str = "csv", **more: Any) -> tuple[int, int]:
    declared = FilesSource.model_validate({"kind": "files", "path": pattern, "format": file_format, **more})
    made = LocalFiles(None, "x", declared, {"id": "BIGINT"}, folder)  # type: ignore[arg-type]
    connection = connect(temp_directory=folder / "spill")
    with made.scan(connection, Slice()) as select:
        try:
            found = connection.execute(f"SELECT count(*), sum(id)::BIGINT FROM ({select})").fetchone()
        except Exception as error:
            raise made.translate(error) from error
    assert found is not None
    assert list((folder / "spill").iterdir()) == []
    return found[0], found[1]


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
@pytest.mark.parametrize("suffix", PACK)
def test_packed_files_hold_the_same_rows_beside_plain_ones(tmp_path: Path, suffix: str, file_format: str) -> None:
    data = LINES[file_format].encode()
    (tmp_path / f"a.{file_format}.{suffix}").write_bytes(PACK[suffix](data))
    (tmp_path / f"b.{file_format}").write_bytes(data)
    assert read(tmp_path, "*.*", file_format) == (2 * ROWS, ROWS * (ROWS - 1))


def test_members_of_a_zip_and_of_a_gzip_are_read_one_after_the_other(tmp_path: Path) -> None:
    first, second = b"id\n1\n2\n", b"id\n3\n"
    (tmp_path / "a.zip").write_bytes(zipped(("1.csv", first), ("sub/2.csv", second), ("__MACOSX/1.csv", b"\0")))
    assert read(tmp_path, "a.zip") == (3, 6)
    (tmp_path / "a.gz").write_bytes(gzip.compress(first) + gzip.compress(b"3\n"))
    assert read(tmp_path, "a.gz") == (3, 6)


def test_a_name_without_an_end_is_read_as_declared(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(gzip.compress(b"id\n1\n"))
    assert read(tmp_path, "data", compression="gzip") == (1, 1)


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("cut", [0.25, 0.5, 0.9, "last byte"])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, suffix: str, file_format: str, cut: Any) -> None:
    data = PACK[suffix](LINES[file_format].encode())
    (tmp_path / f"a.{suffix}").write_bytes(data[: -1 if cut == "last byte" else int(len(data) * cut)])
    with pytest.raises(BadDataError, match=rf"a\.{suffix}: the \w+ file is cut short or damaged.*Deliver it again"):
        read(tmp_path, f"a.{suffix}", file_format)


@pytest.mark.parametrize("suffix", ["gz", "zip"])
def test_a_changed_byte_is_noticed(tmp_path: Path, suffix: str) -> None:
    data = bytearray(PACK[suffix](LINES["csv"].encode()))
    data[len(data) // 2] ^= 1
    (tmp_path / f"a.{suffix}").write_bytes(data)
    with pytest.raises(CausewayError, match="damaged"):
        read(tmp_path, f"a.{suffix}")


def test_an_error_names_the_file_in_the_archive_and_no_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("good.csv", b"id\n1\n"), ("bad.csv", b"id\nx\n")))
    with pytest.raises(BadDataError, match=r"a\.zip: bad\.csv: line 2: column 'id'") as caught:
        read(tmp_path, "a.zip")
    assert "causeway-unpack" not in str(caught.value)


def test_an_archive_without_files_or_with_an_empty_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped())
    with pytest.raises(BadDataError, match="holds no file"):
        read(tmp_path, "a.zip")
    (tmp_path / "a.zip").write_bytes(zipped(("e.csv", b"")))
    with pytest.raises(BadDataError, match=r"e\.csv: the file is empty"):
        read(tmp_path, "a.zip")


def test_a_zip_with_a_password_is_refused_by_name(tmp_path: Path) -> None:
    data = bytearray(zipped(("a.csv", b"id\n1\n")))
    data[6] |= 1  # the bit for encryption, in the member's own header
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1  # and in the archive's directory
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(BadDataError, match=r"password.*without encryption"):
        read(tmp_path, "a.zip")
