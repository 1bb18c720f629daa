"""Reads the header lines of CSV files, and makes sure that they say the same."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from typing import BinaryIO

from connectors.errors import BadDataError

_HEADER_BYTES = 256 * 2**10


def require_same_header(
    files: Sequence[tuple[str, Callable[[], BinaryIO]]], encoding: str, delimiter: str, where: str
) -> list[str]:
    """Return the names of the first file's header; raises BadDataError unless all have the same names."""
    first: list[str] = []
    for url, opened in files:
        with opened() as file:
            names = _header(file.read(_HEADER_BYTES), encoding, delimiter, f"{where}: {url}")
        first = first or names
        if sorted(names) != sorted(first):
            missing = [name for name in first if name not in names]
            extra = [name for name in names if name not in first]
            raise BadDataError(
                "files", "read", f"{where}: {url}",
                f"line 1: the header is not that of {files[0][0]}: missing {missing or 'nothing'}, "
                f"additional {extra or 'nothing'}",
                "Put files of different columns into sources of their own.",
            )  # fmt: skip
    return first


def _header(start: bytes, encoding: str, delimiter: str, where: str) -> list[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
    try:
        text = decoder.decode(start)
    except UnicodeError as error:
        # UTF-16 without a byte order mark fails as a whole, and at no place.
        line = start[: getattr(error, "start", 0)].count(b"\n") + 1
        raise BadDataError(
            "files", "read", where, f"line {line}: its bytes are not {encoding}",
            "Declare the source's encoding, or convert the file.",
        ) from error  # fmt: skip
    names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if not names or not all(names) or doubled:
        cause = f"the name '{doubled[0]}' twice" if doubled else "a column without a name"
        raise BadDataError(
            "files", "read", where, f"line 1: the header has {cause}",
            "A CSV file begins with a line that names its columns.",
        )  # fmt: skip
    return names
