"""Changes: every insert, update and delete of some tables of a database, in the order of their commits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from connectors.estate import ChangesSource, Estate
from connectors.registry import driver, scheme_of


@dataclass(frozen=True)
class Change:
    """One row's change. An update that changes the key comes as a deletion and an upsert."""

    table: str
    """The table as the source names it, `schema.name`."""
    action: Literal["upsert", "delete", "truncate"]
    values: Mapping[str, str | None] = field(default_factory=dict)
    """Texts by column, as the database writes them; of a deletion only the key, of a truncation nothing."""
    unchanged: frozenset[str] = frozenset()
    """Columns with a large value that the update did not touch, and that was not sent."""


@dataclass(frozen=True)
class Commit:
    """The end of a transaction. A consumer that confirms `position` gets everything after it, and nothing before."""

    position: int
    """Byte position in the log (LSN)."""


@dataclass(frozen=True)
class SlotState:
    """Where a consumer is, as the database knows it, and what is kept for it."""

    exists: bool
    lost: bool = False
    """Whether the database has dropped log that the consumer had not read."""
    active: bool = False
    held_back: int = 0
    """Bytes of log that the database keeps for this consumer."""
    left: int | None = None
    """Bytes until the database gives the consumer up; None where nothing limits it."""
    confirmed: int = 0


class Changes(Protocol):
    """The changes of one source: a consumer with a position that the database remembers."""

    def describe(self) -> str:
        """Say where the changes come from, for people."""

    def state(self) -> SlotState:
        """Return where the consumer is."""

    def create(self) -> None:
        """Make the consumer, in the place of one that is there; changes from now on are kept for it."""

    def include(self, tables: list[str]) -> None:
        """See to it that changes of exactly these tables are sent from now on.

        Raises NotFoundError for a table that is not there, FixableError for one whose rows have no key.
        """

    def drop(self) -> None:
        """Remove the consumer, so that nothing is kept for it any more."""

    def position(self, *, visible: bool = False) -> int:
        """Return the position up to which the log can be read.

        With `visible` it is waited for, so that the log up to there has all that any reader has seen by now.
        """

    def read(self, after: int, *, up_to: int, at_least: int | None) -> Iterator[Change | Commit]:
        """Yield the changes of whole transactions that were committed after a position, without confirming any.

        `up_to` is a position that can be read, `at_least` a number of messages after which no further
        transaction begins. The last commit is where to go on: not before `up_to` when all was read.
        """

    def confirm(self, position: int) -> None:
        """Let the database forget what was committed up to this position."""


def changes(estate: Estate, name: str) -> Changes:
    """Return the driver for a source of changes; opens no connection yet."""
    declared = estate.source(name)
    assert isinstance(declared, ChangesSource)
    endpoint = estate.database(declared.site, declared.database)
    made: Changes = driver("changes", scheme_of(endpoint.url))(name, declared, endpoint)
    return made
