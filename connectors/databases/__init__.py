"""Databases of a site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from connectors.estate import Endpoint
from connectors.registry import driver, scheme_of


@dataclass(frozen=True)
class Address:
    """How a client reaches a database; the password is not shown."""

    host: str
    port: int
    database: str
    username: str
    password: str = field(repr=False)
    sslmode: str = "prefer"
    ca_file: Path | None = None


@dataclass(frozen=True)
class ColumnInfo:
    """A column as the database describes it."""

    name: str
    type: str
    """Its type; of a domain the type below it."""
    nullable: bool
    sent_as: str | None = None
    """Type to cast it to for clients that would else read it now so, now otherwise."""


class Database(Protocol):
    """One database. Every call opens its own connection and closes it."""

    def address(self) -> Address:
        """Return where it is, with the password, for other clients such as DuckDB."""

    def version(self) -> str:
        """Return the server's version; the cheapest call that proves that logging in works."""

    def columns(self, table_or_query: str) -> list[ColumnInfo]:
        """Describe a table (`schema.name`) or a SELECT without running it; NotFoundError when absent."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return all rows of a small SELECT."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement in its own transaction; return the rows that it touched."""

    def exclusive(self, name: str, *, wait: bool = True) -> AbstractContextManager[None]:
        """Let one process at a time into the context; the server lets go when the process dies.

        Without `wait` it raises ConflictError when another one is inside.
        """

    def write_rows(self, table: str, columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> int:
        """Create the table if absent and add all rows in one transaction; return how many.

        `columns` maps names to the database's types. Rows are streamed, so memory stays bounded.
        """


def database(endpoint: Endpoint) -> Database:
    """Return the driver for a database of an estate; opens no connection yet."""
    made: Database = driver("database", scheme_of(endpoint.url))(endpoint)
    return made
