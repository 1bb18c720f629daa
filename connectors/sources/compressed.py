"""Unpacks compressed files with the checks of their formats.

DuckDB reads them by itself, but takes the end of a zstd file that was cut for the end of the data, and does not look
at gzip's checksum: rows would be missing, or wrong, in silence.
"""

from __future__ import annotations

import errno
import gzip
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, cast

from connectors.errors import BadDataError, FixableError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_SUFFIXES = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".zip": "zip"}
_DAMAGES = (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError, zipfile.BadZipFile)
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class File:
    """A file as DuckDB names it, its size, how to open it, and its name for people where that is another one."""

    url: str
    bytes: int
    open: Callable[[], BinaryIO]
    shown: str = ""

    @property
    def title(self) -> str:
        """The name for people."""
        return self.shown or self.url


def compression_of(file: File, declared: str) -> str:
    """Return gzip, zstd, zip or none: as declared, or with `auto` as the name ends."""
    return _SUFFIXES.get(Path(file.url).suffix.lower(), "none") if declared == "auto" else declared


@contextmanager
def unpacked(files: Sequence[File], declared: str, folder: str | None, where: str) -> Iterator[list[File]]:
    """Give the files with each compressed one as plain files below `folder`, which are gone after the context.

    A file of a zip archive is a file of its own. Raises BadDataError for damaged, encrypted or empty archives, and
    FixableError when the disk is full.
    """
    kinds = [compression_of(file, declared) for file in files]
    if not any(kind != "none" for kind in kinds):
        yield list(files)
        return
    with TemporaryDirectory(prefix="causeway-unpack-", dir=folder) as made:
        found: list[File] = []
        for number, (file, kind) in enumerate(zip(files, kinds, strict=True)):
            found += [file] if kind == "none" else _unpack(file, kind, Path(made, f"{number:06}"), where)
        yield found


def _unpack(file: File, kind: str, target: Path, where: str) -> list[File]:
    resource = f"{where}: {file.title}"
    try:
        if kind == "zip":
            made = list(_members(file, target))
        else:
            with file.open() as packed, _reader(kind, packed) as plain:
                _write(plain, target)
            made = [(target, file.title)]
    except _DAMAGES as error:
        raise BadDataError(
            "files", "unpack", resource, f"the {kind} file is cut short or damaged: {error}", "Deliver it again."
        ) from error
    except RuntimeError as error:  # how zipfile says that it wants a password
        raise BadDataError("files", "unpack", resource, str(error), "Deliver it without encryption.") from error
    except NotImplementedError as error:
        raise BadDataError("files", "unpack", resource, str(error), "Pack it with deflate.") from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise FixableError(
            "files", "unpack", resource, f"no space is left in {target.parent}",
            "Free space there, or let TMPDIR name a larger disk.",
        ) from error  # fmt: skip
    if not made:
        raise BadDataError("files", "unpack", resource, "the archive holds no file", "Deliver it again.")
    return [_plain(path, shown) for path, shown in made]


def _plain(path: Path, shown: str) -> File:
    return File(str(path), path.stat().st_size, lambda: path.open("rb"), shown)


def _reader(kind: str, packed: BinaryIO) -> BinaryIO:
    made = gzip.GzipFile(fileobj=packed) if kind == "gzip" else zstd.ZstdFile(packed)
    return cast(BinaryIO, made)


def _members(file: File, target: Path) -> Iterator[tuple[Path, str]]:
    """Unpack an archive; its directory is at its end, so that it has to be on disk as a whole."""
    whole = target.with_suffix(".zip")
    with file.open() as packed:
        _write(packed, whole)
    with zipfile.ZipFile(whole) as archive:
        members = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
        for number, member in enumerate(members):
            path = target.with_name(f"{target.name}-{number:06}")  # never a name that the archive chose
            with archive.open(member) as plain:
                _write(cast(BinaryIO, plain), path)
            yield path, f"{file.title}: {member.filename}"
    whole.unlink()


def _write(plain: BinaryIO, path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(plain, target, _CHUNK_BYTES)
