"""Binary files of a folder or a bucket."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from connectors.errors import AccessDeniedError, NotFoundError
from connectors.estate import DocumentsSource, Estate
from connectors.objects import Objects, objects
from connectors.sources import Document
from connectors.sources.patterns import compiled, fixed_prefix, matching_files

_UNKNOWN = "application/octet-stream"
_MAGIC = [
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"PAR1", "application/vnd.apache.parquet"),
    (b"\x1f\x8b", "application/gzip"),
    (b"PK\x03\x04", "application/zip"),
]
_MAGIC_BYTES = 16


def media_type(path: str, start: bytes = b"") -> str:
    """Return the type that the name says, else the one that the first bytes show."""
    named, encoding = mimetypes.guess_type(path)
    if encoding == "gzip":
        return "application/gzip"
    return named or next((kind for magic, kind in _MAGIC if start.startswith(magic)), _UNKNOWN)


class FolderDocuments:
    """Files of this machine; paths are relative to the pattern's fixed folder."""

    def __init__(
        self,
        estate: Estate,
        name: str,
        declared: DocumentsSource,
        folder: Path,
    ) -> None:
        self._name, self._folder, self._pattern = name, folder, declared.path
        whole = str(folder.resolve() / declared.path)
        self._root = Path(fixed_prefix(whole).rpartition("/")[0] or "/")

    def describe(self) -> str:
        """Say where they come from."""
        return f"source '{self._name}' (files {self._pattern})"

    def list(self) -> Iterator[Document]:
        """Yield every document that matches, folder by folder; NotFoundError when the folder is not there."""
        if not self._root.is_dir():
            raise NotFoundError(
                "files", "list", str(self._root), "there is no such folder",
                "Correct the source's path in the estate.",
            )  # fmt: skip
        for path in matching_files(self._folder, self._pattern):
            status = path.stat()
            relative = str(path.relative_to(self._root))
            yield Document(
                relative, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC),
                self._media_type(relative),
            )  # fmt: skip

    def open(self, path: str) -> BinaryIO:
        """Open one for streaming; the caller closes it."""
        whole = (self._root / path).resolve()
        if not whole.is_relative_to(self._root.resolve()):
            raise AccessDeniedError("files", "open", path, f"it lies outside of {self._root}")
        try:
            return whole.open("rb")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise NotFoundError("files", "open", str(whole), "there is no such file") from error
        except PermissionError as error:
            raise AccessDeniedError(
                "files", "open", str(whole), "this user may not read it", "Change its mode or owner."
            ) from error

    def _media_type(self, path: str) -> str:
        named = media_type(path)
        if named != _UNKNOWN:
            return named
        with self.open(path) as file:
            return media_type(path, file.read(_MAGIC_BYTES))


class BucketDocuments:
    """Objects of a bucket; paths are keys."""

    def __init__(
        self,
        estate: Estate,
        name: str,
        declared: DocumentsSource,
        folder: Path,
    ) -> None:
        self._bucket, self._pattern = declared.bucket or "", declared.path
        self._objects: Objects = objects(estate.objects(declared.site or ""))
        self._where = f"source '{name}' (s3://{declared.bucket}/{declared.path} at {declared.site})"

    def describe(self) -> str:
        """Say where they come from."""
        return self._where

    def list(self) -> Iterator[Document]:
        """Yield every document that matches, in the store's order; NotFoundError without the bucket."""
        wanted = compiled(self._pattern)
        for found in self._objects.list(self._bucket, fixed_prefix(self._pattern)):
            if wanted.fullmatch(found.key):
                kind = self._media_type(found.key)
                yield Document(found.key, found.bytes, found.modified, kind)

    def open(self, path: str) -> BinaryIO:
        """Open one for streaming; the caller closes it."""
        return self._objects.read(self._bucket, path)

    def _media_type(self, key: str) -> str:
        named = media_type(key)
        if named != _UNKNOWN:
            return named
        with self.open(key) as file:
            return media_type(key, file.read(_MAGIC_BYTES))
