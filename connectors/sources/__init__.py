"""Sources: where the rows and documents of the lake come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

import duckdb

from connectors.estate import DocumentsSource, Estate
from connectors.registry import driver


@dataclass(frozen=True)
class Slice:
    """The part of a source that one load takes: start <= cursor < end; absent bounds are open.

    Rows whose cursor is NULL are in no bounded slice, unless it is `with_nulls`.
    """

    cursor: str | None = None
    start: str | None = None
    end: str | None = None
    with_nulls: bool = False


@dataclass(frozen=True)
class Document:
    """A binary file of a source."""

    path: str
    bytes: int
    modified: datetime
    media_type: str


class Source(Protocol):
    """Rows that DuckDB can stream, read by DuckDB itself or as Arrow batches; never a whole source in memory."""

    def scan(self, connection: duckdb.DuckDBPyConnection, part: Slice) -> AbstractContextManager[str]:
        """Give a SELECT that yields the rows of `part` on this connection while the context is open.

        What the connection needs (secrets, attached databases, Arrow readers) is there inside the context
        and gone after it. Rows are typed by the source, and by the table's declared types where it has any.
        Errors while DuckDB pulls rows are raised by `translate` below.
        """

    def translate(self, error: Exception) -> Exception:
        """Return what went wrong in this source's terms: file, line or page, cause, next step."""

    def describe(self) -> str:
        """Say where the rows come from, for people and for `ops.loads`, without secrets."""

    def estimate(self) -> int | None:
        """Return the number of rows where the source can tell it without reading them."""


class Documents(Protocol):
    """Binary files of a folder or a bucket."""

    def list(self) -> Iterator[Document]:
        """Yield every document that matches, in the order of paths."""

    def open(self, path: str) -> BinaryIO:
        """Open one for streaming; the caller closes it."""

    def describe(self) -> str:
        """Say where they come from, for people."""


def source(estate: Estate, name: str, types: Mapping[str, str], folder: Path) -> Source:
    """Return the driver for a source of rows; `types` are DuckDB types by column, `folder` is the estate's."""
    declared = estate.source(name)
    made: Source = driver("source", declared.kind)(estate, name, declared, dict(types), folder)
    return made


def documents(estate: Estate, name: str, folder: Path) -> Documents:
    """Return the driver for a source of documents."""
    declared = estate.source(name)
    assert isinstance(declared, DocumentsSource)
    kind = "objects" if declared.bucket else "files"
    made: Documents = driver("documents", kind)(estate, name, declared, folder)
    return made
