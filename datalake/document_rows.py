"""Stores documents as content-addressed objects and gives a row for each, as a source of the lake."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from connectors.objects import Objects, objects
from connectors.sources import Document, Documents, Slice
from datalake.session import Lake

SCHEMA = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("path", pa.string()),
        pa.field("media_type", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("url", pa.string()),
        pa.field("modified_at", pa.timestamp("us", tz="UTC")),
        pa.field("captured_at", pa.timestamp("us", tz="UTC")),
        pa.field("tags", pa.map_(pa.string(), pa.string())),
    ]
)
_CHUNK_BYTES = 1 << 20
_ROWS_A_BATCH = 256
# Beyond this a document is hashed from a file on disk instead of from memory.
_IN_MEMORY_BYTES = 8 << 20


class DocumentRows:
    """The rows of `lake.objects` for the documents of a source; reading them stores the documents.

    A `Source` by shape. An object's key is the sha256 of its bytes, so that storing it again changes nothing
    and a killed load is simply run again.
    """

    def __init__(self, lake: Lake, name: str, found: Documents, tags: dict[str, str]) -> None:
        self._lake, self._name, self._found, self._tags = lake, name, found, tags
        self._store = objects(lake.estate.objects(lake.estate.lake.site))

    @contextmanager
    def scan(self, connection: duckdb.DuckDBPyConnection, part: Slice) -> Iterator[str]:
        """Give a SELECT over the documents; each is stored when its row is read."""
        view = "causeway_documents"
        connection.register(view, pa.RecordBatchReader.from_batches(SCHEMA, self._batches()))
        try:
            yield f"SELECT * FROM {view}"
        finally:
            connection.unregister(view)

    def translate(self, error: Exception) -> Exception:
        """Return the error that a store or a folder raised below DuckDB, or what DuckDB said."""
        return error.__cause__ if isinstance(error.__cause__, Exception) else error

    def describe(self) -> str:
        """Say where the documents come from."""
        return self._found.describe()

    def estimate(self) -> int | None:
        """Return None: only listing tells how many documents there are."""
        return None

    def _batches(self) -> Iterator[pa.RecordBatch]:
        rows: list[dict[str, object]] = []
        for document in self._found.list():
            rows.append(self._row(document))
            if len(rows) == _ROWS_A_BATCH:
                yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
                rows = []
        yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)

    def _row(self, document: Document) -> dict[str, object]:
        sha256, size = self._keep(document)
        return {
            "source": self._name,
            "path": document.path,
            "media_type": document.media_type,
            "bytes": size,
            "sha256": sha256,
            "url": f"{self._lake.root}/{_key(sha256)}",
            "modified_at": document.modified,
            "captured_at": datetime.now(UTC),
            "tags": list(self._tags.items()),
        }

    def _keep(self, document: Document) -> tuple[str, int]:
        """Store a document unless its bytes are there already; return its sha256 and size."""
        digest, size = hashlib.sha256(), 0
        with (
            self._found.open(document.path) as stream,
            tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as copy,
        ):
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                copy.write(chunk)
            copy.seek(0)
            key = self._prefixed(_key(digest.hexdigest()))
            bucket = self._lake.estate.lake.bucket
            if not _is_there(self._store, bucket, key, size):
                self._store.put(bucket, key, copy, bytes=size, media_type=document.media_type)
        return digest.hexdigest(), size

    def _prefixed(self, key: str) -> str:
        prefix = self._lake.estate.lake.prefix.strip("/")
        return f"{prefix}/{key}" if prefix else key


def _key(sha256: str) -> str:
    return f"objects/sha256/{sha256[:2]}/{sha256}"


def _is_there(store: Objects, bucket: str, key: str, size: int) -> bool:
    info = store.info(bucket, key)
    return info is not None and info.bytes == size
