"""Turns what PostgreSQL or the way to it reports into Causeway's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

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

_PROVIDER = "postgresql"
_Judgement = tuple[type[CausewayError], str]

_DENIED: _Judgement = (
    AccessDeniedError, "Check the user and the password's secret of this database in the estate.",
)  # fmt: skip
_NO_RIGHT: _Judgement = (AccessDeniedError, "Grant the user what this needs.")
_NO_DATABASE: _Judgement = (NotFoundError, "Create the database, or correct its name in the estate.")
_DOWN: _Judgement = (UnavailableError, "Check that the server is running and reachable.")
_BUSY: _Judgement = (UnavailableError, "The server has no connection left for this user.")
_FULL: _Judgement = (StorageFullError, "Free or add storage at the database server.")

# SQLSTATE, or the start of one; the longest match counts. PostgreSQL manual, appendix A.
_BY_STATE: dict[str, _Judgement] = {
    "08": _DOWN,
    "22": (BadDataError, "Correct the data, or the declared types."),
    "23": (BadDataError, "Correct the data."),
    "28": _DENIED,
    "3D000": _NO_DATABASE,
    "3F000": (NotFoundError, "Correct the schema's name."),
    "40": (ConflictError, ""),
    "42501": _NO_RIGHT,
    "42601": (FixableError, "Correct the SQL."),
    "42703": (NotFoundError, "Correct the column's name."),
    "42P01": (NotFoundError, "Create the table, or correct its name (schema.name)."),
    "42P07": (ConflictError, ""),
    "53": (UnavailableError, ""),
    "53100": _FULL,
    "53300": _BUSY,
    "53400": _BUSY,
    "55P03": (ConflictError, ""),
    "57": (UnavailableError, ""),
}

# libpq gives no SQLSTATE for a connection that failed, only the server's text.
_BY_TEXT: list[tuple[str, _Judgement]] = [
    ("password authentication failed", _DENIED),
    ("no password supplied", _DENIED),
    ("pg_hba.conf", _DENIED),
    ("is not permitted to log in", _DENIED),
    ("permission denied", _NO_RIGHT),
    ("role ", _DENIED),
    ("database ", _NO_DATABASE),
    ("too many clients", _BUSY),
    ("connection slots", _BUSY),
    ("too many connections", _BUSY),
    ("no space left", _FULL),
    ("certificate", (FixableError, "Check sslmode in the URL, the server's certificate and ca_file.")),
    ("does not support ssl", (FixableError, "Set up TLS at the server, or change sslmode in the URL.")),
]


@contextmanager
def postgresql_errors(operation: str, resource: str) -> Iterator[None]:
    """Raise what happens inside as one of Causeway's errors."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error, operation, resource) from error


def translated(error: psycopg.Error, operation: str, resource: str) -> CausewayError:
    """Return the error of Causeway that says what to do about `error`."""
    diagnosis = error.diag
    cause = diagnosis.message_primary or _first_line(str(error))
    if diagnosis.message_detail:
        cause = f"{cause} ({diagnosis.message_detail})"
    kind, next_step = _judge(error, cause)
    return kind(_PROVIDER, operation, resource, cause, next_step)


def judge_text(text: str) -> _Judgement | None:
    """Return what a message of a failed connection means, or None when it is not known."""
    lowered = text.lower()
    for sign, judgement in _BY_TEXT:
        if sign in lowered:
            return judgement
    return None


def _judge(error: psycopg.Error, cause: str) -> _Judgement:
    state = error.sqlstate
    if state is None:
        default = _DOWN if isinstance(error, psycopg.OperationalError) else (FixableError, "")
        return judge_text(cause) or default
    if state == "23505" and (error.diag.constraint_name or "").startswith("pg_"):
        return (ConflictError, "")  # two sessions created the same thing at once
    for length in (5, 2):
        if state[:length] in _BY_STATE:
            return _BY_STATE[state[:length]]
    return (FixableError, "")


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0].strip() if lines else "no reason given"
