"""Turns the items of JSON pages into typed Arrow batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from connectors.duck import connect, quote_identifier
from connectors.errors import BadDataError

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "INT", "BIGINT", "HUGEINT", "UBIGINT", "UINTEGER")
_FITS: Mapping[str, tuple[type, ...]] = {
    "BOOLEAN": (bool,),
    "BIGINT": (int,),
    "DECIMAL(38, 0)": (int,),
    "DOUBLE": (int, Decimal),
    "VARCHAR": (str,),
    "JSON": (dict, list),
}
_DECLARE = "Declare the column's type in the table's columns."


class RowTyper:
    """Types rows as declared, else as the first page shows; every later page has to fit.

    A missing key is NULL. A key that is neither declared nor in the first page stops the load, as does a
    value that would have to be changed to fit.
    """

    def __init__(self, declared: Mapping[str, str], first: Sequence[Any], where: str) -> None:
        self._where = where
        self._declared = declared
        rows = [self._checked(item, 1, number) for number, item in enumerate(first, 1)]
        names = dict.fromkeys(name for row in rows for name in row)
        self.kinds = {
            name: declared.get(name) or self._inferred(name, [row.get(name) for row in rows])
            for name in [*names, *(name for name in declared if name not in names)]
        }
        if not self.kinds:
            raise BadDataError("http", "read", f"{where}, page 1", "it has no rows, so no columns are known", _DECLARE)
        self._caster = connect(threads=1)
        self.schema = self._cast(self._texts([])).schema

    def close(self) -> None:
        """Free the memory."""
        self._caster.close()

    def batches(self, items: Sequence[Any], page: int) -> Sequence[pa.RecordBatch]:
        """Return the rows of one page; raises BadDataError with page, row, column and value."""
        rows = [self._checked(item, page, number) for number, item in enumerate(items, 1)]
        for number, row in enumerate(rows, 1):
            self._require_fit(row, page, number)
        texts = self._texts(rows)
        try:
            batches: list[pa.RecordBatch] = self._cast(texts).to_batches()
        except (duckdb.ConversionException, duckdb.InvalidInputException) as error:
            raise self._misfit(texts, page) from error
        return batches

    def _checked(self, item: Any, page: int, number: int) -> dict[str, Any]:
        if not isinstance(item, dict):
            raise self._bad(page, number, f"it is {_shown(item)}, not an object", "Check items.")
        return item

    def _require_fit(self, row: dict[str, Any], page: int, number: int) -> None:
        for name, value in row.items():
            if name not in self.kinds:
                raise self._bad(page, number, f"the key '{name}' was not in the first page", _DECLARE)
            kind = self.kinds[name]
            if value is None or self._fits(name, kind, value):
                continue
            raise self._bad(page, number, f"column '{name}': the value {_shown(value)} is not {kind}", _DECLARE)

    def _fits(self, name: str, kind: str, value: Any) -> bool:
        if name not in self._declared:
            # A bool is an int for Python only.
            return isinstance(value, _FITS[kind]) and isinstance(value, bool) == (kind == "BOOLEAN")
        fraction = isinstance(value, Decimal) and value != value.to_integral_value()
        return not (fraction and kind.upper() in _INTEGERS)

    def _inferred(self, name: str, values: Sequence[Any]) -> str:
        seen = {type(value) for value in values if value is not None}
        if not seen:
            return "VARCHAR"
        large = any(type(value) is int and not -(2**63) <= value < 2**63 for value in values)
        for kind, types in _FITS.items():
            if seen <= set(types) and not (large and kind == "BIGINT"):
                return kind
        raise BadDataError(
            "http", "read", f"{self._where}, page 1",
            f"column '{name}' mixes {', '.join(sorted(one.__name__ for one in seen))}", _DECLARE,
        )  # fmt: skip

    def _texts(self, rows: Sequence[dict[str, Any]]) -> pa.Table:
        return pa.table({
            name: pa.array([_text(row.get(name)) for row in rows], pa.string()) for name in self.kinds
        })  # fmt: skip

    def _cast(self, texts: pa.Table) -> pa.Table:
        columns = ", ".join(
            f"CAST({quote_identifier(name)} AS {kind}) AS {quote_identifier(name)}" for name, kind in self.kinds.items()
        )
        with _registered(self._caster, texts):
            return self._caster.execute(f"SELECT {columns} FROM texts").to_arrow_table()

    def _misfit(self, texts: pa.Table, page: int) -> BadDataError:
        for name, kind in self.kinds.items():
            with _registered(self._caster, texts):
                found = self._caster.execute(
                    f"SELECT number, value FROM (SELECT row_number() OVER () AS number, "
                    f"{quote_identifier(name)} AS value FROM texts) "
                    f"WHERE value IS NOT NULL AND TRY_CAST(value AS {kind}) IS NULL LIMIT 1"
                ).fetchone()
            if found:
                cause = f"column '{name}': the value {_shown(found[1])} is not {kind}"
                return self._bad(page, int(found[0]), cause, _DECLARE)
        return self._bad(page, 0, "a value does not fit its type", _DECLARE)

    def _bad(self, page: int, row: int, cause: str, next_step: str) -> BadDataError:
        return BadDataError("http", "read", f"{self._where}, page {page}, row {row}", cause, next_step)


@contextmanager
def _registered(connection: duckdb.DuckDBPyConnection, table: pa.Table) -> Iterator[None]:
    """Show a table to a connection under the name `texts` inside the context."""
    connection.register("texts", table)
    try:
        yield
    finally:
        connection.unregister("texts")


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, dict, list)):
        return json.dumps(value, ensure_ascii=False, default=float)
    return str(value)


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
