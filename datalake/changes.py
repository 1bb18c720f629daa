"""Brings changes into their tables: collected on disk, reduced to one for each key, applied in one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from psycopg.adapt import Transformer
from psycopg.pq import Format

from connectors.changes import Change
from connectors.duck import quote_identifier, quote_literal
from connectors.errors import SchemaError
from connectors.estate import Table
from datalake.load import exclude_others
from datalake.schema import plan_evolution
from datalake.session import ALIAS, Lake
from datalake.translation import lake_errors

_ROWS_A_FILE = 100_000
_SEQUENCE, _ACTION, _UNCHANGED = "__causeway_sequence", "__causeway_action", "__causeway_unchanged"
_TEXT_ARRAY = 1009


class Collector:
    """Changes of one table, in their order, in Parquet files of a folder; a truncation forgets those before it."""

    def __init__(self, folder: Path, kinds: Mapping[str, str]) -> None:
        self._folder = folder
        self._arrays = {name for name, kind in kinds.items() if kind.endswith("]")}
        self._rows: list[Change] = []
        self._written = 0
        self._files: list[Path] = []
        self.columns: dict[str, None] = {}
        """Columns that were sent, in their order."""
        self.truncated = False
        self.partial = False
        """Whether some update left a large value out."""

    def __len__(self) -> int:
        return self._written + len(self._rows)

    def add(self, change: Change) -> None:
        """Keep a change."""
        if change.action == "truncate":
            self.truncated = True
            self._rows.clear()
            self._files.clear()
            return
        if change.action == "upsert":
            self.columns.update(dict.fromkeys([*change.values, *change.unchanged]))
        self.partial = self.partial or bool(change.unchanged)
        self._rows.append(change)
        if len(self._rows) >= _ROWS_A_FILE:
            self._flush()

    def files(self) -> list[str]:
        """Write what is left; return all files."""
        self._flush()
        return [str(path) for path in self._files]

    def _flush(self) -> None:
        if not self._rows:
            return
        names = dict.fromkeys(name for row in self._rows for name in row.values)
        columns: dict[str, pa.Array] = {
            name: pa.array([self._text(name, row.values.get(name)) for row in self._rows], pa.string())
            for name in names
        }
        columns[_SEQUENCE] = pa.array(range(self._written, self._written + len(self._rows)), pa.int64())
        columns[_ACTION] = pa.array([row.action for row in self._rows], pa.string())
        columns[_UNCHANGED] = pa.array([sorted(row.unchanged) for row in self._rows], pa.list_(pa.string()))
        path = self._folder / f"{self._written:012}.parquet"
        pq.write_table(pa.table(columns), path)
        self._files.append(path)
        self._written += len(self._rows)
        self._rows.clear()

    def _text(self, name: str, value: str | None) -> str | None:
        """Return what DuckDB can cast: of an array, JSON."""
        if value is None or name not in self._arrays:
            return value
        loader = Transformer().get_loader(_TEXT_ARRAY, Format.TEXT)
        # Bounds such as [0:2]={…} are not kept: the lake's lists begin where lists begin.
        return json.dumps(loader.load(value[value.index("{") :].encode()))


@dataclass(frozen=True)
class Applied:
    """What the changes of one table did to it."""

    written: int
    deleted: int


def apply(lake: Lake, name: str, declared: Table, collected: Collector, kinds: Mapping[str, str], what: str) -> Applied:
    """Apply a table's changes in the transaction that is open; the last one of each key counts.

    `kinds` are the DuckDB types of the source's columns. A column that the source has no longer stays, and is NULL in
    what is new. Raises SchemaError for a type that narrows.
    """
    target = f"{ALIAS}.main.{quote_identifier(name)}"
    columns = {column: kinds[column] for column in collected.columns if column in kinds}
    with lake_errors("apply changes to", name):
        if columns:
            _fit(lake, name, target, columns)
        exclude_others(lake, name, what)
        deleted = 0
        if collected.truncated:
            deleted += int(lake.value(f"SELECT count(*) FROM {target}"))
            lake.connection.execute(f"TRUNCATE {target}")
        files = collected.files()
        if not files:
            return Applied(0, deleted)
        missing = [key for key in declared.key if key not in kinds]
        if missing:
            raise SchemaError(
                "lake", "apply changes to", name, f"the key's column {', '.join(missing)} is not in the source",
                f"Correct tables.{name}.key: the source has {', '.join(kinds)}.",
            )  # fmt: skip
        listed = ", ".join(map(quote_literal, files))
        changes = f"read_parquet([{listed}], union_by_name => true)"
        reduced = _reduced(changes, declared.key, columns, kinds, collected.partial)
        lake.connection.execute(f"CREATE OR REPLACE TEMP TABLE causeway_changes AS {reduced}")
        same = " AND ".join(f"held.{quote_identifier(key)} = found.{quote_identifier(key)}" for key in declared.key)
        deleted += _count(
            lake,
            f"DELETE FROM {target} AS held WHERE EXISTS (SELECT 1 FROM temp.causeway_changes AS found "
            f"WHERE {_ACTION} = 'delete' AND {same})",
        )
        written = _count(lake, _merge(target, columns, same, collected.partial)) if columns else 0
        lake.connection.execute("DROP TABLE temp.causeway_changes")
    return Applied(written, deleted)


def _fit(lake: Lake, name: str, target: str, columns: Mapping[str, str]) -> None:
    held = lake.columns(name)
    common = {column: kind for column, kind in held.items() if column in columns}
    evolution = plan_evolution(name, common, columns)
    for column, kind in evolution.widened.items():
        lake.connection.execute(f"ALTER TABLE {target} ALTER {quote_identifier(column)} SET DATA TYPE {kind}")
    for column, kind in evolution.added.items():
        lake.connection.execute(f"ALTER TABLE {target} ADD COLUMN {quote_identifier(column)} {kind}")


def _reduced(
    changes: str, key: Sequence[str], columns: Mapping[str, str], kinds: Mapping[str, str], partial: bool
) -> str:
    """Return the SELECT of the last change of each key, typed; with a column of what it leaves unchanged."""
    keys = ", ".join(f"CAST({quote_identifier(name)} AS VARCHAR)" for name in key)
    named = {**{name: kinds[name] for name in key}, **columns}
    if not partial:
        listed = ", ".join(
            f"{_typed(quote_identifier(name), kind)} AS {quote_identifier(name)}" for name, kind in named.items()
        )
        return (
            f"SELECT {listed}, {_ACTION}, {_UNCHANGED} FROM {changes} "
            f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {_SEQUENCE} DESC) = 1"
        )
    # A value that was left out is the one before it: in these changes, or else in the table.
    values, known = [], []
    for name, kind in named.items():
        quoted = quote_identifier(name)
        if name in key:
            values.append(f"{_typed(f'any_value({quoted})', kind)} AS {quoted}")
            continue
        sent = f"FILTER (WHERE {_ACTION} = 'upsert' AND NOT list_contains({_UNCHANGED}, {quote_literal(name)}))"
        last = f"(arg_max({{'v': {quoted}}}, {_SEQUENCE}) {sent}).v"
        values.append(f"{_typed(last, kind)} AS {quoted}")
        known.append(f"CASE WHEN count(*) {sent} = 0 THEN {quote_literal(name)} END")
    return (
        f"SELECT {', '.join(values)}, arg_max({_ACTION}, {_SEQUENCE}) AS {_ACTION}, "
        f"list_filter([{', '.join(known)}], lambda x: x IS NOT NULL) AS {_UNCHANGED} FROM {changes} GROUP BY {keys}"
    )


def _typed(text: str, kind: str) -> str:
    """Return the SQL that reads PostgreSQL's text of a value."""
    if kind == "BLOB":
        return f"unhex(substr({text}, 3))"
    if kind.endswith("]"):
        return f"CAST(CAST({text} AS JSON) AS {kind})"
    return f"CAST({text} AS {kind})"


def _merge(target: str, columns: Mapping[str, str], same: str, partial: bool) -> str:
    names = list(map(quote_identifier, columns))
    if partial:
        sets = ", ".join(
            f"{quoted} = CASE WHEN list_contains(found.{_UNCHANGED}, {quote_literal(name)}) "
            f"THEN held.{quoted} ELSE found.{quoted} END"
            for name, quoted in zip(columns, names, strict=True)
        )
    else:
        sets = ", ".join(f"{name} = found.{name}" for name in names)
    upserts = f"(FROM temp.causeway_changes WHERE {_ACTION} = 'upsert')"
    return (
        f"MERGE INTO {target} AS held USING {upserts} AS found ON ({same}) "
        f"WHEN MATCHED THEN UPDATE SET {sets} "
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) VALUES ({', '.join('found.' + name for name in names)})"
    )


def _count(lake: Lake, sql: str) -> int:
    found = lake.connection.execute(sql).fetchone()
    return int(found[0]) if found else 0
