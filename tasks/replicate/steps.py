"""Follows the changes of a source: snapshot and stream join in one commit, and each commit is confirmed after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from connectors.changes import Change, Changes, Commit, changes
from connectors.databases import database
from connectors.estate import ChangesSource, DatabaseSource, Estate, Table
from connectors.sources import Slice
from connectors.sources.database import DatabaseTable
from datalake import batch as batches
from datalake.batch import Batch, new_load_id
from datalake.changes import Collector, apply
from datalake.evidence import LoadRecord, ReplicationRecord, write
from datalake.load import AlreadyLoaded, once, put, repartition
from datalake.session import Lake, open_lake
from tasks.replicate.plan import Beginning, begin

# Messages after which no further transaction begins: what is collected for one commit.
MESSAGES = 100_000


@dataclass(frozen=True)
class Caught:
    """What one commit brought."""

    position: int
    changes: int
    written: int
    deleted: int
    snapshots: tuple[str, ...]
    held_back: int


@dataclass(frozen=True)
class Follower:
    """A run that follows one source. `say` gets lines for people."""

    lake: Lake
    folder: Path
    name: str
    stream: Changes
    run_id: str | None
    say: Callable[[str], None]

    @property
    def declared(self) -> ChangesSource:
        """What the estate says of the source."""
        found = self.lake.estate.source(self.name)
        assert isinstance(found, ChangesSource)
        return found

    def position(self) -> int | None:
        """Return up to where the lake has the changes; None before the first commit."""
        found = self.lake.value(
            "SELECT max(position) FROM ops.replication WHERE source = ? AND is_current", [self.name]
        )
        return None if found is None else int(found)

    def commits(self) -> int:
        """Return how many commits the source has in the lake: the next one's key, so that no two follow the same."""
        return int(self.lake.value("SELECT count(*) FROM ops.replication WHERE source = ?", [self.name]))

    def joined(self) -> set[str]:
        """Return the tables whose snapshots were committed."""
        found = self.lake.rows("SELECT snapshots FROM ops.replication WHERE source = ? AND is_current", [self.name])
        return {table for (names,) in found for table in str(names).split(",") if table}

    def begin(self, resync: bool) -> Beginning:
        """Make what is missing at the database; return what is to be read whole."""
        tables = self.declared.tables
        plan = begin(self.name, self.stream.state(), self.joined(), tables, resync)
        if plan.create or plan.snapshots:
            self.stream.include(list(tables.values()))
        if plan.create:
            self.stream.create()
        return plan

    def catch_up(self, snapshots: tuple[str, ...], messages: int = MESSAGES, *, anew: bool = False) -> Caught | None:
        """Bring one commit of changes into the lake, and confirm it; None when there was nothing.

        With `snapshots` these tables are read whole first, and everything up to that moment is in the commit. With
        `anew` what the lake has of the source so far does not count any more.
        """
        started = datetime.now(UTC)
        held_back = self.stream.state().held_back
        commits = self.commits()  # looked up first: what comes after it makes this commit fail
        before = None if anew else self.position()
        whole = {name: self._snapshot(name) for name in snapshots}
        target = self.stream.position(visible=bool(snapshots))
        if before is not None and target <= before and not snapshots:
            return None
        with TemporaryDirectory(prefix="causeway-changes-") as folder:
            kinds = {name: self._kinds(name) for name in self.declared.tables}
            collected, reached, count = self._collect(
                Path(folder), kinds, before or 0, target, None if snapshots else messages
            )
            busy = [name for name, one in collected.items() if len(one) or one.truncated]
            if not busy and not snapshots:
                self.stream.confirm(reached)
                return None
            written, deleted = self._commit(
                commits, ReplicationRecord(
                    source=self.name, position=reached, is_current=True, changes=count, snapshots=",".join(snapshots),
                    held_back_bytes=held_back, started_at=started, finished_at=started, flow_run_id=self.run_id,
                ), whole, {name: collected[name] for name in busy}, kinds, anew=anew,
            )  # fmt: skip
        self.stream.confirm(reached)
        return Caught(reached, count, written, deleted, snapshots, held_back)

    def _snapshot(self, name: str) -> Batch:
        self.say(f"{name}: read whole from {self.declared.tables[name]}")
        table = self.lake.estate.table(name)
        return batches.stage(self.lake, name, self._source(name), Slice(), new_load_id(), sort_by=table.sort_by)

    def _source(self, name: str) -> DatabaseTable:
        declared = self.declared
        table = DatabaseSource(
            kind="database", site=declared.site, database=declared.database, table=declared.tables[name]
        )
        types = self.lake.estate.table(name).columns
        return DatabaseTable(self.lake.estate, self.name, table, types, self.folder)

    def _kinds(self, name: str) -> dict[str, str]:
        """Return the types that the source's columns have in the lake."""
        with self._source(name).scan(self.lake.connection, Slice()) as select:
            found = self.lake.connection.execute(f"DESCRIBE {select}").fetchall()
        return {str(column): str(kind) for column, kind, *_ in found}

    def _collect(
        self, folder: Path, kinds: Mapping[str, Mapping[str, str]], after: int, target: int, messages: int | None
    ) -> tuple[dict[str, Collector], int, int]:
        """Return the changes by table, the position after them, and how many there were."""
        lake_names = {table: name for name, table in self.declared.tables.items()}
        collected: dict[str, Collector] = {}
        for name in self.declared.tables:
            (folder / name).mkdir()
            collected[name] = Collector(folder / name, kinds[name])
        reached, count = after, 0
        for found in self.stream.read(after, up_to=target, at_least=messages):
            if isinstance(found, Commit):
                reached = found.position
            elif isinstance(found, Change) and found.table in lake_names:
                count += 1
                collected[lake_names[found.table]].add(found)
        return collected, reached, count

    def _commit(
        self,
        commits: int,
        record: ReplicationRecord,
        whole: Mapping[str, Batch],
        collected: Mapping[str, Collector],
        kinds: Mapping[str, Mapping[str, str]],
        *,
        anew: bool,
    ) -> tuple[int, int]:
        lake, estate = self.lake, self.lake.estate
        for name in whole:
            repartition(lake, name, estate.table(name).partition_by)
        written = deleted = 0

        def transaction() -> None:
            nonlocal written, deleted
            written = deleted = 0
            loads = []
            if anew:
                lake.rows("UPDATE ops.replication SET is_current = false WHERE source = ?", [self.name])
            for name in self.declared.tables:
                rows = size = 0
                put_rows = gone = 0
                declared = estate.table(name)
                if name in whole:
                    rows, size = whole[name].rows, whole[name].bytes
                    put_rows, gone = put(lake, name, _replaced(declared), whole[name], Slice())
                if name in collected:
                    applied = apply(lake, name, declared, collected[name], kinds[name], f"changes of {self.name}")
                    rows, put_rows, gone = (
                        rows + len(collected[name]), put_rows + applied.written, gone + applied.deleted,
                    )  # fmt: skip
                if name in whole or name in collected:
                    loads.append(_load_record(record, name, rows, size, put_rows, gone))
                    written, deleted = written + put_rows, deleted + gone
            now = datetime.now(UTC)
            write(lake, [ReplicationRecord(**{**vars(record), "finished_at": now}), *loads])

        def done() -> AlreadyLoaded | None:
            found = lake.rows(
                "SELECT 1 FROM ops.replication WHERE source = ? AND is_current AND started_at = ?",
                [self.name, record.started_at],
            )
            return AlreadyLoaded(self.name) if found else None

        key = f"replicate:{self.name}:{commits}"
        once(lake, key, transaction, done, f"{self.name}: {record.changes} changes")
        return written, deleted


def _replaced(declared: Table) -> Table:
    return declared.model_copy(update={"mode": "replace", "deleted_when": None, "delete_absent": False})


def _load_record(record: ReplicationRecord, table: str, rows: int, size: int, written: int, deleted: int) -> LoadRecord:
    now = datetime.now(UTC)
    return LoadRecord(
        load_id=new_load_id(), load_key=f"{table}:changes:{record.position}", table_name=table, mode="changes",
        status="committed", source=record.source, slice_start=None, slice_end=str(record.position), rows=rows,
        bytes=size, files=0, started_at=record.started_at, finished_at=now,
        stage_seconds=(now - record.started_at).total_seconds(), check_seconds=0.0,
        flow_run_id=record.flow_run_id, reason=None, rows_written=written, rows_deleted=deleted,
    )  # fmt: skip


def follow(
    estate: Estate,
    folder: Path,
    name: str,
    *,
    until: datetime | None = None,
    resync: bool = False,
    run_id: str | None = None,
    say: Callable[[str], None] = print,
    messages: int = MESSAGES,
    pause: Callable[[], None] | None = None,
) -> list[Caught]:
    """Bring the changes of a source into the lake, up to now or until a time; return a part for each commit.

    One process at a time follows a source: raises ConflictError when another one does. Safe to kill at any moment
    and to run again.
    """
    catalog = database(estate.database(estate.lake.catalog.site, estate.lake.catalog.database))
    done: list[Caught] = []
    with (
        catalog.exclusive(f"causeway-replicate-{name}", wait=False),
        TemporaryDirectory(prefix="causeway-replicate-") as spill,
        open_lake(
            estate, read_only=False, memory_limit=int(estate.lake.memory_limit), temp_directory=Path(spill)
        ) as lake,
    ):
        follower = Follower(lake, folder, name, changes(estate, name), run_id, say)
        beginning = follower.begin(resync)
        snapshots, anew = beginning.snapshots, beginning.create
        while True:
            caught = follower.catch_up(snapshots, messages, anew=anew)
            snapshots, anew = (), False
            if caught is not None:
                done.append(caught)
                say(f"{name}: {caught.changes:,} changes up to position {caught.position:,}")
            elif until is None or datetime.now(UTC) >= until:
                return done
            elif pause:
                pause()
