"""Estates of flow tests: what they declare, and what their lake holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from connectors.estate import Estate, load_estate
from connectors.objects import Objects, objects
from datalake.session import open_lake


@dataclass(frozen=True)
class Declared:
    """An estate file that a test adds to."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def estate(self) -> Estate:
        """The estate as the file says it now."""
        return load_estate(self.path)

    @property
    def bucket(self) -> str:
        """The lake's bucket."""
        return self.estate.lake.bucket

    @property
    def store(self) -> Objects:
        """The object store of the lake's site."""
        estate = self.estate
        return objects(estate.objects(estate.lake.site))

    def add(self, table: str, source: dict[str, Any], **fields: Any) -> None:
        """Declare a table and its source, which has the table's name with '-' for '_'."""
        content = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        name = table.replace("_", "-")
        content.setdefault("sources", {})[name] = source
        owner = next(iter(content["organisation"]))
        content.setdefault("tables", {})[table] = {"source": name, "owner": owner, **fields}
        self.path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    def change(self, **parts: Any) -> None:
        """Replace top-level parts of the estate."""
        content = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        self.path.write_text(yaml.safe_dump({**content, **parts}, sort_keys=False), encoding="utf-8")

    def content(self) -> Any:
        """Return the file as plain values."""
        return yaml.safe_load(self.path.read_text(encoding="utf-8"))

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a statement over the lake."""
        with open_lake(self.estate, read_only=False) as lake:
            return lake.rows(sql, list(parameters) or None)

    def value(self, sql: str, *parameters: Any) -> Any:
        """Return the first column of the first row."""
        return self.rows(sql, *parameters)[0][0]

    def count(self, table: str) -> int | None:
        """Return the number of a table's rows that anybody can see; None when there is no table."""
        with open_lake(self.estate, read_only=False) as lake:
            if not lake.has_table(table):
                return None
            return int(lake.value(f"SELECT count(*) FROM lake.{table}"))

    def loads(self, table: str) -> list[tuple[str, int, str | None]]:
        """Return (status, rows, reason) of every load of a table, the oldest first."""
        found = self.rows("SELECT status, rows, reason FROM ops.loads WHERE table_name = ? ORDER BY started_at", table)
        return [(str(status), int(rows), reason) for status, rows, reason in found]

    def batch_files(self, table: str) -> set[str]:
        """Return the URLs of the batch files of a table that lie on the store."""
        found = self.store.list(self.bucket, f"batches/{table}/")
        return {f"s3://{self.bucket}/{one.key}" for one in found}
