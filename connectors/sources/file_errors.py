"""Turns DuckDB's long messages about files into one sentence: file, line, column, value, next step."""

from __future__ import annotations

import re
from collections.abc import Callable

import duckdb

from connectors.errors import (
    AccessDeniedError,
    BadDataError,
    CausewayError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)

_LONGEST_VALUE = 100
_CSV_LINE = re.compile(r"CSV Error on Line: (\d+)")
_CSV_FILE = re.compile(r"\n\s*file = (.+)")
_CSV_COUNT = re.compile(r"Expected Number of Columns: (\d+) Found: (\d+)")
_CSV_COLUMN = re.compile(
    r"when converting column \"(.*?)\"\.(?: Could not convert string \"(.*?)\" to '(.*?)')?", re.DOTALL
)
_JSON = re.compile(
    r"(?:Malformed JSON|JSON transform error) in file \"(.*?)\",(?: at byte \d+)? in line (\d+): ([^\n]*)"
)
_FILE = re.compile(r"(?:[Ff]ile|s3:)\s*[\"'](.*?)[\"']")
_STATUS = re.compile(r"\b(?:HTTP|code|status)\D{0,12}(\d{3})\b|\((?:HTTP )?(\d{3})\b")
_DATA = (
    duckdb.InvalidInputException, duckdb.ConversionException, duckdb.SerializationException,
    duckdb.OutOfRangeException,
)  # fmt: skip

_AGAIN = "Deliver the file again, or correct the table's columns in the estate."
_JSON_NEXT = "Correct the line, or deliver the file again; each line is one whole JSON object."
_NO_FOOTER = "it is no whole Parquet file: the footer is missing"
_KNOWN = [
    ("non-record JSON", "its lines are not JSON objects", _JSON_NEXT),
    ("sniffing file", "it is not CSV as declared", "Check the source's delimiter and encoding."),
    ("magic bytes", _NO_FOOTER, _AGAIN),
    ("too small to be a Parquet", _NO_FOOTER, _AGAIN),
]

LargestRowGroup = Callable[[], "tuple[str, int] | None"]
CsvComplaint = Callable[[str], str]
Title = Callable[[str], str]


class FileErrors:
    """Translates for one source; looks at the files again where DuckDB's message does not tell enough."""

    def __init__(
        self, where: str, largest_row_group: LargestRowGroup, csv_complaint: CsvComplaint, title: Title
    ) -> None:
        self._where, self._title = where, title
        self._largest_row_group, self._csv_complaint = largest_row_group, csv_complaint

    def translate(self, error: Exception) -> Exception:
        """Return the error in the source's terms, or as it is when it is not of the files."""
        if isinstance(error, CausewayError) or not isinstance(error, duckdb.Error):
            return error
        text = str(error)
        if isinstance(error, duckdb.OutOfMemoryException):
            return self._too_large() or error
        if isinstance(error, (duckdb.HTTPException, duckdb.IOException)):
            return self._unreachable(text) or error
        is_data = isinstance(error, _DATA) or type(error) is duckdb.Error
        return self._unreadable(text, is_data=is_data) or error

    def _unreadable(self, text: str, *, is_data: bool) -> BadDataError | None:
        if "sniffing file" in text:
            text = self._csv_complaint(_name(text)) or text
        if line := _CSV_LINE.search(text):
            return self._csv(text, line[1])
        if json := _JSON.search(text):
            # Of malformed lines DuckDB gives the number of the next one, of misfits the right one.
            line_number = int(json[2]) - ("Malformed" in json[0])
            return self._bad(json[1], f"line {line_number}: {_json_cause(json[3])}", _JSON_NEXT)
        for sign, cause, next_step in _KNOWN:
            if sign in text:
                return self._bad(_name(text), cause, next_step)
        return self._bad(_name(text), _first_sentence(text), _AGAIN) if is_data else None

    def _bad(self, file: str, cause: str, next_step: str) -> BadDataError:
        resource = f"{self._where}: {self._title(file)}" if file else self._where
        return BadDataError("files", "read", resource, self._title(cause), next_step)

    def _csv(self, text: str, line: str) -> BadDataError:
        named = _CSV_FILE.search(text)
        cause, next_step = _csv_cause(text)
        return self._bad(named[1].strip() if named else "", f"line {line}: {cause}", next_step)

    def _too_large(self) -> Exception | None:
        found = self._largest_row_group()
        if found is None:
            return None
        file, size = found
        return self._bad(
            file,
            f"memory ran out; its largest row group has {size:,} bytes",
            "Write the file with smaller row groups, or raise lake.memory_limit above that size.",
        )

    def _unreachable(self, text: str) -> Exception | None:
        if "No files found" in text:
            return NotFoundError("files", "read", self._where, _first_sentence(text))
        if "Could not establish connection" in text or "Connection" in text:
            return UnavailableError("s3", "read", self._where, _first_sentence(text))
        found = _STATUS.search(text)
        if not found:
            return None
        status = int(found[1] or found[2])
        kinds: dict[int, type[CausewayError]] = {
            401: AccessDeniedError, 403: AccessDeniedError, 404: NotFoundError, 429: ThrottledError,
            503: ThrottledError,
        }  # fmt: skip
        kind = kinds.get(status, UnavailableError)
        return kind("s3", "read", self._where, f"HTTP status {status}")


def _csv_cause(text: str) -> tuple[str, str]:
    if count := _CSV_COUNT.search(text):
        return f"{count[2]} columns where the header has {count[1]}", "Correct the line."
    if column := _CSV_COLUMN.search(text):
        value = f"the value '{_short(column[2])}' is not {column[3]}" if column[2] is not None else "bad value"
        return (
            f"column '{column[1]}': {value}",
            "Correct the line, or declare the column's type in the table's columns.",
        )
    if "unicode" in text or "encoded" in text:
        return "its bytes are not in the declared encoding", "Declare the source's encoding."
    if "unterminated quote" in text:
        return "a quoted value does not end", "Correct the line: '\"' inside a value is doubled."
    if "Maximum line size" in text:
        return "the line is too long", "Check that quotes and line ends are right."
    return _first_sentence(text.partition("\n")[2]), "Correct the line."


def _json_cause(text: str) -> str:
    cause = text.strip().rstrip(".")
    if "unexpected end of data" in cause:
        return "the line is torn: unexpected end of data"
    return _short(cause, 2 * _LONGEST_VALUE)


def _name(text: str) -> str:
    found = _FILE.search(text)
    return found[1] if found else ""


def _first_sentence(text: str) -> str:
    for line in text.splitlines():
        words = re.sub(r"^(Error: )?[A-Z][A-Za-z ]*Error: ", "", line.strip())
        if words and "pending query result" not in words:
            return _short(words, 3 * _LONGEST_VALUE)
    return "no reason given"


def _short(text: str, longest: int = _LONGEST_VALUE) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."
