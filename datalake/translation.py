"""Says what DuckDB's errors about the lake mean in Causeway's terms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from connectors.errors import (
    AccessDeniedError,
    BadDataError,
    CausewayError,
    ConflictError,
    FixableError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)

# The first pattern that a message matches decides; the most specific come first.
_MEANINGS: tuple[tuple[str, type[CausewayError], str], ...] = (
    (
        r"no writable volumes|no free volumes|No space left|XMinioStorageFull|507 Insufficient|disk full"
        r"|not enough space|max_temp_directory_size",
        StorageFullError,
        "Make room where the lake lies, or lower what is kept.",
    ),
    (
        r"password authentication failed|HTTP 403|403 \(Forbidden\)|AccessDenied|SignatureDoesNotMatch"
        r"|InvalidAccessKeyId|permission denied",
        AccessDeniedError,
        "Check the credentials that the estate refers to.",
    ),
    (
        r"server closed the connection|Connection reset|no connection to the server|terminating connection"
        r"|SSL connection has been closed|the database system is|Connection refused|Could not connect"
        r"|could not connect|Unable to connect|Could not establish connection",
        UnavailableError,
        "Look at `causeway status`; the same call may be made again.",
    ),
    (
        r"Transaction conflict|Failed to commit DuckLake transaction|Catalog write-write conflict"
        r"|duplicate key value",
        ConflictError,
        "Another load came first; look again and repeat.",
    ),
    (
        r"NoSuchBucket|HTTP 404|404 \(Not Found\)|No snapshot found|does not exist"
        r"|database \"[^\"]*\" does not exist|is not a DuckLake",
        NotFoundError,
        "Check the name, and whether the lake was made (`causeway up`, or a first load).",
    ),
    (
        # Stores answer so to a write without telling why; a full disk is the most common reason.
        r"HTTP 50\d for HTTP (?:PUT|POST)",
        UnavailableError,
        "The same call may be made again. If it lasts, look at the store's log and its free space.",
    ),
    (
        r"Connection error|HTTP 50\d|50\d \(|Timeout|timed out|Failed to execute query",
        UnavailableError,
        "Look at `causeway status`; the same call may be made again.",
    ),
    (
        r"Out of Memory|out of memory",
        FixableError,
        "Raise lake.memory_limit in the estate, or load a smaller slice.",
    ),
)


def translate(error: duckdb.Error, operation: str, resource: str) -> CausewayError:
    """Return the error that tells what to do next; what is not known is fixed by a person."""
    text = str(error)
    cause = text.strip().splitlines()[0]
    for pattern, kind, next_step in _MEANINGS:
        if re.search(pattern, text):
            return kind("lake", operation, resource, cause, next_step)
    if isinstance(error, duckdb.ConversionException | duckdb.InvalidInputException):
        return BadDataError("lake", operation, resource, cause)
    return FixableError("lake", operation, resource, cause)


@contextmanager
def lake_errors(operation: str, resource: str) -> Iterator[None]:
    """Translate every DuckDB error that is raised inside."""
    try:
        yield
    except duckdb.Error as error:
        raise translate(error, operation, resource) from error
