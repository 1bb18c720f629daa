"""Puts a batch into its table in one transaction: data, schema, evidence and the load's key together."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import duckdb

from connectors.duck import quote_identifier, quote_literal
from connectors.errors import ConflictError, PolicyError
from connectors.estate import Table
from connectors.sources import Slice
from connectors.sources.selecting import slice_condition
from datalake.batch import Batch
from datalake.evidence import LoadRecord, QualityRecord, write
from datalake.schema import Evolution, plan_evolution
from datalake.session import ALIAS, Lake
from datalake.translation import lake_errors

# Writers that change the same rows meet here again and again; between two attempts the batch is not read
# from its source again, so the repetition belongs to the commit and not to the task.
_ATTEMPTS = 12
_EXTRA_INFO = "causeway-load:"


@dataclass(frozen=True)
class Committed:
    """The batch is in the table as of this snapshot."""

    version: int
    written: int = 0
    """Rows that were added or updated."""
    deleted: int = 0


@dataclass(frozen=True)
class AlreadyLoaded:
    """The key was committed before, by another load; nothing was changed."""

    load_id: str
    """The load that did it."""


def commit(
    lake: Lake,
    table: str,
    declared: Table,
    batch: Batch,
    part: Slice,
    evidence: Sequence[LoadRecord | QualityRecord],
) -> Committed | AlreadyLoaded:
    """Make the batch and its evidence visible, once for its key: in one transaction or not at all.

    The first piece of evidence is the load's own. Safe to repeat after a kill at any moment. Raises SchemaError
    when the batch doesn't fit the table, PolicyError when it would delete more than the table allows,
    ConflictError when others came first 12 times in a row.
    """
    record = evidence[0]
    assert isinstance(record, LoadRecord)

    written = deleted = 0

    def transaction() -> None:
        nonlocal written, deleted
        written, deleted = put(lake, table, declared, batch, part)
        write(lake, [replace(record, rows_written=written, rows_deleted=deleted), *evidence[1:]])

    repartition(lake, table, declared.partition_by)
    done = once(
        lake,
        record.load_key,
        transaction,
        lambda: loaded(lake, record.load_key),
        f"{table}: {record.rows} rows by {record.load_id}",
    )
    # A commit whose answer was lost is found as one that was made before: by this very load.
    return done if done is not None and done.load_id != batch.load_id else Committed(lake.version(), written, deleted)


def once(
    lake: Lake,
    key: str,
    transaction: Callable[[], None],
    done: Callable[[], AlreadyLoaded | None],
    message: str,
) -> AlreadyLoaded | None:
    """Run `transaction` and commit it under `key`, unless `done` says by what it was committed before.

    Returns what `done` says, or None after a commit of its own. Raises ConflictError when others came first
    12 times in a row.
    """
    for attempt in range(_ATTEMPTS):
        before = done()
        if before is not None:
            return before
        try:
            _attempt(lake, key, transaction, message)
        except ConflictError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0.02, 0.1) * (attempt + 1))
        else:
            return None
    raise AssertionError("unreachable")


def loaded(lake: Lake, key: str) -> AlreadyLoaded | None:
    """Return the load that committed this key, or None."""
    found = lake.rows("SELECT load_id FROM ops.loads WHERE load_key = ? AND status = 'committed'", [key])
    if found:
        return AlreadyLoaded(str(found[0][0]))
    return None


def _attempt(lake: Lake, key: str, transaction: Callable[[], None], message: str) -> None:
    connection = lake.connection
    connection.execute("BEGIN")
    try:
        transaction()
        with lake_errors("commit", message):
            connection.execute(
                f"CALL ducklake_set_commit_message('{ALIAS}', 'causeway', ?, extra_info => ?)",
                [message, _EXTRA_INFO + key],
            )
            connection.execute("COMMIT")
    except BaseException:
        _rollback(lake)
        raise


def _rollback(lake: Lake) -> None:
    with suppress(duckdb.TransactionException):  # a COMMIT that failed has ended the transaction already
        lake.connection.execute("ROLLBACK")


def put(lake: Lake, table: str, declared: Table, batch: Batch, part: Slice) -> tuple[int, int]:
    """Bring a batch into its table in the transaction that is open; return the rows written and deleted."""
    return _Write(lake, table, declared, batch, part).run()


def exclude_others(lake: Lake, table: str, what: str) -> None:
    """Make any other transaction on the table that began before this one's end fail.

    DuckLake lets inserts pass each other, also those of two merges that both found a key absent. A change of the
    table's comment is a change of the table, which no two transactions may make at once.
    """
    target = f"{ALIAS}.main.{quote_identifier(table)}"
    lake.connection.execute(f"COMMENT ON TABLE {target} IS {quote_literal(what)}")


@dataclass(frozen=True)
class _Write:
    """The statements that bring one batch into its table."""

    lake: Lake
    name: str
    declared: Table
    batch: Batch
    part: Slice

    @property
    def target(self) -> str:
        return f"{ALIAS}.main.{quote_identifier(self.name)}"

    def run(self) -> tuple[int, int]:
        """Return how many rows were added or updated, and how many deleted."""
        with lake_errors("load", self.name):
            held = self.lake.columns(self.name)
            if not held:
                self._create()
            else:
                self._evolve(plan_evolution(self.name, held, self.batch.columns))
            if self.declared.mode != "append" or self.declared.increment:
                exclude_others(self.lake, self.name, f"{self.declared.mode} by load {self.batch.load_id}")
            deleted = self._clear() if self.declared.mode == "replace" else 0
            empty = not held or self._is_empty()
            if not empty and self.batch.keys:
                deleted += self._delete_absent()
            if not self.batch.rows:
                return 0, deleted
            if not empty and self.declared.mode == "merge":
                merged, tombs = self._merge()
                return merged, deleted + tombs
            if not empty and self.declared.mode == "append" and self.declared.increment:
                return self._insert(self._unheld()), deleted
            if self.declared.partition_by or self.declared.deleted_when:
                return self._insert(self._alive()), deleted
            self._adopt()
            return self.batch.rows, deleted

    def _execute(self, sql: str) -> None:
        self.lake.connection.execute(sql)

    def _change(self, sql: str) -> int:
        """Run a statement that changes rows; return how many."""
        found = self.lake.connection.execute(sql).fetchone()
        return int(found[0]) if found else 0

    def _create(self) -> None:
        listed = ", ".join(f"{quote_identifier(name)} {kind}" for name, kind in self.batch.columns.items())
        self._execute(f"CREATE TABLE {self.target} ({listed})")
        if self.declared.partition_by:
            self._execute(_partitioned_by(self.target, self.declared.partition_by))

    def _evolve(self, evolution: Evolution) -> None:
        for column, kind in evolution.widened.items():
            self._execute(f"ALTER TABLE {self.target} ALTER {quote_identifier(column)} SET DATA TYPE {kind}")
        for column, kind in evolution.added.items():
            self._execute(f"ALTER TABLE {self.target} ADD COLUMN {quote_identifier(column)} {kind}")

    def _clear(self) -> int:
        """Take away what the batch replaces: the rows of its slice, or all; return how many."""
        if self.part.cursor is None:
            held = int(self.lake.value(f"SELECT count(*) FROM {self.target}"))
            self._execute(f"TRUNCATE {self.target}")
            return held
        kinds = self.lake.columns(self.name)
        condition = slice_condition(self.part, kinds, cast="CAST({} AS {})", where=self.name)
        return self._change(f"DELETE FROM {self.target} WHERE {condition}")

    def _delete_absent(self) -> int:
        """Delete the rows whose key the source no longer had when its keys were read; return how many.

        What others added to the table after the source was read is not the source's to judge: it stays. Raises
        PolicyError when more would be deleted than the table allows in one load.
        """
        keys = self.declared.key
        names = ", ".join(map(quote_identifier, keys))
        absent = (
            f"NOT EXISTS (SELECT 1 FROM {self.batch.key_relation} AS present WHERE {self._same('present', 'held')}) "
            f"AND EXISTS (SELECT 1 FROM (SELECT {names} FROM {self.target} AT (VERSION => {self.batch.since})) "
            f"AS earlier WHERE {self._same('earlier', 'held')})"
        )
        total, doomed = self.lake.rows(f"SELECT count(*), count(*) FILTER (WHERE {absent}) FROM {self.target} AS held")[
            0
        ]
        if doomed > total * self.declared.delete_at_most:
            raise PolicyError(
                "lake", "delete what the source no longer has from", self.name,
                f"{doomed:,} of {total:,} rows would go, and delete_at_most is {self.declared.delete_at_most}",
                f"Look at the source; if it is right, raise tables.{self.name}.delete_at_most.",
            )  # fmt: skip
        return self._change(f"DELETE FROM {self.target} AS held WHERE {absent}") if doomed else 0

    def _same(self, left: str, right: str) -> str:
        """Return the condition that two relations have the same key."""
        return " AND ".join(
            f"{left}.{quote_identifier(column)} = {right}.{quote_identifier(column)}" for column in self.declared.key
        )

    def _is_empty(self) -> bool:
        found = self.lake.rows(f"SELECT 1 FROM {self.target} LIMIT 1")
        return not found

    def _adopt(self) -> None:
        """Make the batch's files the table's own; nothing is read or written again."""
        for file in self.batch.files:
            self._execute(f"CALL ducklake_add_data_files('{ALIAS}', {quote_literal(self.name)}, {quote_literal(file)})")

    def _insert(self, rows: str) -> int:
        return self._change(f"INSERT INTO {self.target} BY NAME {rows}")

    def _alive(self) -> str:
        """Return the SELECT of the batch's rows that are no tombstones."""
        condition = f" WHERE NOT coalesce({self._tombstone()}, false)" if self.declared.deleted_when else ""
        return f"SELECT * FROM {self.batch.relation}{condition}"

    def _unheld(self) -> str:
        """Return the SELECT of the batch's rows whose key the table has not."""
        return (
            f"SELECT * FROM {self.batch.relation} AS found WHERE NOT EXISTS "
            f"(SELECT 1 FROM {self.target} AS held WHERE {self._same('held', 'found')})"
        )

    def _tombstone(self) -> str:
        return f"({self.declared.deleted_when})"

    def _merge(self) -> tuple[int, int]:
        """Update and add by key, and delete what tombstones say; return the numbers of both.

        DuckLake's MERGE does either an update or a deletion, so that the deletion comes first.
        """
        deleted = 0
        if self.declared.deleted_when:
            tombs = f"(SELECT * FROM {self.batch.relation} WHERE {self._tombstone()}) AS tomb"
            theirs = f"EXISTS (SELECT 1 FROM {tombs} WHERE {self._same('tomb', 'held')})"
            deleted = self._change(f"DELETE FROM {self.target} AS held WHERE {theirs}")
        merged = self._change(
            f"MERGE INTO {self.target} AS held USING ({self._alive()}) AS found ON ({self._same('held', 'found')}) "
            "WHEN MATCHED THEN UPDATE BY NAME WHEN NOT MATCHED THEN INSERT BY NAME"
        )
        return merged, deleted


def repartition(lake: Lake, table: str, wanted: Sequence[str]) -> None:
    """Partition what is written to a table from now on as it is declared; what it holds stays as it lies.

    It is a transaction of its own: DuckLake 1.5.5 fails to commit one that adds files besides.
    """
    wanted = [part.replace(" ", "") for part in wanted]
    if lake.has_table(table) and partitioning(lake, table) != wanted:
        lake.rows(_partitioned_by(f"{ALIAS}.main.{quote_identifier(table)}", wanted))


def _partitioned_by(target: str, parts: Sequence[str]) -> str:
    if parts:
        return f"ALTER TABLE {target} SET PARTITIONED BY ({', '.join(parts)})"
    return f"ALTER TABLE {target} RESET PARTITIONED BY"


def partitioning(lake: Lake, table: str) -> list[str]:
    """Return by what a table is partitioned, written as in the estate and without spaces."""
    metadata = f"__ducklake_metadata_{ALIAS}"
    found = lake.rows(
        f"""
        SELECT p.transform, c.column_name
        FROM {metadata}.ducklake_table t
        JOIN {metadata}.ducklake_schema s ON s.schema_id = t.schema_id AND s.end_snapshot IS NULL
        JOIN {metadata}.ducklake_partition_info i ON i.table_id = t.table_id AND i.end_snapshot IS NULL
        JOIN {metadata}.ducklake_partition_column p ON p.partition_id = i.partition_id
        JOIN {metadata}.ducklake_column c
          ON c.table_id = t.table_id AND c.column_id = p.column_id AND c.end_snapshot IS NULL
        WHERE t.end_snapshot IS NULL AND t.table_name = ? AND s.schema_name = 'main'
        ORDER BY p.partition_key_index
        """,
        [table],
    )
    return [_written(str(transform), str(column)) for transform, column in found]


def _written(transform: str, column: str) -> str:
    if transform == "identity":
        return column
    if transform.startswith("bucket("):
        return f"{transform[:-1]},{column})"
    return f"{transform}({column})"
