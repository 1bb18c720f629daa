"""The changes of tables of a PostgreSQL database: a logical replication slot and a publication.

Changes are peeked at through SQL and confirmed apart, so that the consumer may take as long as it likes to commit
them, and needs no connection while it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from types import MappingProxyType

import psycopg
from psycopg import sql

from connectors.changes import Change, Commit, SlotState
from connectors.changes.pgoutput import Decoder
from connectors.databases.postgresql import PostgreSQL
from connectors.databases.postgresql_errors import postgresql_errors
from connectors.errors import FixableError, NotFoundError, UnavailableError
from connectors.estate import ChangesSource, Endpoint

_FETCH_ROWS = 2000
_FLUSH_SECONDS = 30
# How values are written as texts, whatever the server's own settings are.
_TEXTS = MappingProxyType(
    {
        "datestyle": "ISO",
        "intervalstyle": "postgres",
        "timezone": "UTC",
        "extra_float_digits": "1",
        "bytea_output": "hex",
    }
)
_STATE = """
    SELECT wal_status = 'lost' OR invalidation_reason IS NOT NULL AS lost, active, safe_wal_size,
        coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint AS held_back,
        coalesce(pg_wal_lsn_diff(confirmed_flush_lsn, '0/0'), 0)::bigint AS confirmed
    FROM pg_replication_slots WHERE slot_name = %s
"""
# Before PostgreSQL 17 a slot has no column for the reason why it was given up.
_STATE_BEFORE_17 = _STATE.replace(" OR invalidation_reason IS NOT NULL", "")
_NO_KEY = """
    SELECT c.oid::regclass::text FROM pg_class c
    WHERE c.oid = to_regclass(%s) AND NOT EXISTS (
        SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident)
    ) AND c.relreplident <> 'f'
"""


class PostgreSQLChanges:
    """One slot and one publication, named after the source unless the estate says otherwise."""

    def __init__(self, name: str, declared: ChangesSource, endpoint: Endpoint) -> None:
        plain = name.replace("-", "_")
        self._slot = declared.slot or f"causeway_{plain}"
        self._publication = self._slot
        self._database = PostgreSQL(endpoint)
        self._where = f"source '{name}' (slot {self._slot} of {declared.database} at {declared.site})"

    def describe(self) -> str:
        """Say where the changes come from, for people."""
        return self._where

    def state(self) -> SlotState:
        """Return where the consumer is."""
        with self._connected("look at") as connection:
            state = _STATE if connection.info.server_version >= 170000 else _STATE_BEFORE_17
            row = connection.execute(state.encode(), [self._slot]).fetchone()
        if row is None:
            return SlotState(exists=False)
        lost, active, left, held_back, confirmed = row
        return SlotState(True, bool(lost), bool(active), int(held_back), left, int(confirmed))

    def create(self) -> None:
        """Make the consumer, in the place of one that is there; changes from now on are kept for it."""
        self.drop()
        with self._connected("create") as connection:
            level = connection.execute("SHOW wal_level").fetchone()
            if level != ("logical",):
                raise FixableError(
                    "postgresql", "create", self._where, f"wal_level is {level[0] if level else 'unknown'}",
                    "Set wal_level = logical at the server and restart it.",
                )  # fmt: skip
            # In a transaction that has written nothing: the slot waits for every other one to end.
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [self._slot])

    def include(self, tables: list[str]) -> None:
        """See to it that changes of exactly these tables are sent from now on.

        Raises NotFoundError for a table that is not there, FixableError for one whose rows have no key.
        """
        with self._connected("publish the tables of") as connection:
            for table in tables:
                self._require(connection, table)
            listed = sql.SQL(", ").join(sql.Identifier(*table.split(".")) for table in tables)
            name = sql.Identifier(self._publication)
            known = connection.execute(
                "SELECT 1 FROM pg_publication WHERE pubname = %s", [self._publication]
            ).fetchone()
            if known is None:
                connection.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(name, listed))
                return
            found = connection.execute(
                "SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = %s",
                [self._publication],
            ).fetchall()
            if {table for (table,) in found} != set(tables):
                connection.execute(sql.SQL("ALTER PUBLICATION {} SET TABLE {}").format(name, listed))

    def _require(self, connection: psycopg.Connection, table: str) -> None:
        if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
            raise NotFoundError(
                "postgresql", "publish", f"{table} of {self._where}", "no such table",
                "Create the table, or correct its name (schema.name).",
            )  # fmt: skip
        if connection.execute(_NO_KEY, [table]).fetchone():
            raise FixableError(
                "postgresql", "publish", f"{table} of {self._where}",
                "the table has no primary key, so that a change would not tell which row it is of",
                f"Add a primary key, or ALTER TABLE {table} REPLICA IDENTITY FULL if the estate's key is unique.",
            )  # fmt: skip

    def drop(self) -> None:
        """Remove the consumer, so that nothing is kept for it any more."""
        with self._connected("drop") as connection:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
                [self._slot],
            )

    def position(self, *, visible: bool = False) -> int:
        """Return the position up to which the log can be read.

        With `visible` it is waited for, so that the log up to there has all that any reader has seen by now.
        """
        wanted, flushed = self._ends()
        deadline = monotonic() + _FLUSH_SECONDS
        while visible and flushed < wanted:  # a commit that is not synchronous is seen before it is written
            if monotonic() > deadline:
                raise UnavailableError(
                    "postgresql", "wait for", self._where, f"the log was not written within {_FLUSH_SECONDS} s"
                )
            sleep(0.05)
            flushed = self._ends()[1]
        return flushed

    def _ends(self) -> tuple[int, int]:
        found = self._database.query(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint AS inserted,"
            " pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint AS flushed"
        )
        return int(found[0]["inserted"]), int(found[0]["flushed"])

    def read(self, after: int, *, up_to: int, at_least: int | None) -> Iterator[Change | Commit]:
        """Yield the changes of whole transactions that were committed after a position, without confirming any.

        `up_to` is a position that can be read, `at_least` a number of messages after which no further
        transaction begins. The last commit is where to go on: not before `up_to` when all was read.
        """
        decoder, messages, last = Decoder(after), 0, after
        with self._connected("read the changes of") as connection:
            for name, value in _TEXTS.items():
                connection.execute(sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(value)))
            with connection.cursor(name="changes", binary=True) as cursor:
                cursor.itersize = _FETCH_ROWS
                cursor.execute(
                    "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, %s::pg_lsn, %s,"
                    " 'proto_version', '1', 'publication_names', %s)",
                    [self._slot, _lsn(up_to), at_least, self._publication],
                )
                for (message,) in cursor:
                    messages += 1
                    for found in decoder.decode(message):
                        if isinstance(found, Commit):
                            last = found.position
                        yield found
        if at_least is None or messages < at_least:
            yield Commit(max(last, up_to))

    def confirm(self, position: int) -> None:
        """Let the database forget what was committed up to this position."""
        with self._connected("confirm") as connection:
            connection.execute("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", [self._slot, _lsn(position)])

    @contextmanager
    def _connected(self, operation: str) -> Iterator[psycopg.Connection]:
        with postgresql_errors(operation, self._where), self._database.connect() as connection:
            yield connection


def _lsn(position: int) -> str:
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
