"""What every source of documents does: the same files in a folder and in a bucket."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import AccessDeniedError, NotFoundError
from connectors.estate import ObjectStore
from connectors.objects import Objects
from connectors.sources import Documents, documents
from tests.contract.conftest import estate_of

pytestmark = pytest.mark.servers

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
FILES = {
    "a b/plan.pdf": b"%PDF-1.7 x",
    "a b/deep/er/picture": PNG,
    "notes.txt": b"hello",
    "unknown": b"\x01\x02",
    "empty": b"",
    "table.csv.gz": gzip.compress(b"x"),
}
Made = Callable[[str], Documents]


@pytest.fixture(params=["folder", "bucket"])
def made(request: pytest.FixtureRequest, tmp_path: Path, store: ObjectStore, stored: Objects, bucket: str) -> Made:
    """FILES, behind each kind of source, by pattern."""
    for name, data in FILES.items():
        if request.param == "bucket":
            stored.put(bucket, name, data)
        else:
            path = tmp_path / "docs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def make(pattern: str) -> Documents:
        declared: dict[str, Any] = {"kind": "documents", "path": f"docs/{pattern}"}
        if request.param == "bucket":
            declared = {"kind": "documents", "site": "here", "bucket": bucket, "path": pattern}
        return documents(estate_of(declared, objects=store), "x", tmp_path)

    return make


def test_every_document_is_listed_once_with_its_size_and_type(made: Made) -> None:
    before = datetime(2020, 1, 1, tzinfo=UTC)
    listed = list(made("**").list())
    assert {one.path: one.bytes for one in listed} == {name: len(data) for name, data in FILES.items()}
    assert {one.path: one.media_type for one in listed} == {
        "a b/plan.pdf": "application/pdf",
        "a b/deep/er/picture": "image/png",
        "notes.txt": "text/plain",
        "unknown": "application/octet-stream",
        "empty": "application/octet-stream",
        "table.csv.gz": "application/gzip",
    }
    assert all(one.modified > before for one in listed)


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("*", {"notes.txt", "unknown", "empty", "table.csv.gz"}),
        ("*.txt", {"notes.txt"}),
        ("**/picture", {"a b/deep/er/picture"}),
        ("**/*.pdf", {"a b/plan.pdf"}),
        ("notes.tx?", {"notes.txt"}),
        ("absent*", set()),
    ],
)
def test_a_pattern_chooses_documents(made: Made, pattern: str, paths: set[str]) -> None:
    found = made(pattern)
    listed = list(found.list())
    assert {one.path.rpartition("/")[2] for one in listed} == {path.rpartition("/")[2] for path in paths}
    for one in listed:
        with found.open(one.path) as file:
            assert len(file.read()) == one.bytes


def test_a_document_is_read_in_pieces(made: Made) -> None:
    with made("**").open("a b/plan.pdf") as file:
        assert file.read(4) == b"%PDF"
        assert file.read() == b"-1.7 x"


def test_a_document_that_is_not_there_is_named(made: Made) -> None:
    with pytest.raises(NotFoundError, match="absent"):
        made("**").open("absent")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = documents(estate_of({"kind": "documents", "path": "absent/**"}), "x", tmp_path)
    with pytest.raises(NotFoundError, match=r"absent.*no such folder"):
        list(found.list())


def test_nothing_outside_of_the_folder_is_opened(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "outside").write_text("x")
    found = documents(estate_of({"kind": "documents", "path": "docs/**"}), "x", tmp_path)
    with pytest.raises(AccessDeniedError, match="outside"):
        found.open("../outside")
