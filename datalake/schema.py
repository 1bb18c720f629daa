"""Decides how a table changes so that a batch fits into it, or why it can't."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from connectors.errors import SchemaError

_INTEGERS = {
    "TINYINT": (8, True), "SMALLINT": (16, True), "INTEGER": (32, True), "BIGINT": (64, True),
    "HUGEINT": (128, True), "UTINYINT": (8, False), "USMALLINT": (16, False),
    "UINTEGER": (32, False), "UBIGINT": (64, False),
}  # fmt: skip
_EXACT_BITS = {"FLOAT": 24, "DOUBLE": 53}
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


@dataclass(frozen=True)
class Evolution:
    """The changes of a table's columns that a batch asks for: names to DuckDB types."""

    added: Mapping[str, str]
    widened: Mapping[str, str]


def plan_evolution(name: str, table: Mapping[str, str], batch: Mapping[str, str]) -> Evolution:
    """Return the changes after which every value of the batch fits and no value of the table is lost.

    A table's column never narrows and never disappears: SchemaError that shows both schemas.
    """
    lost = [column for column in table if column not in batch]
    faults = [f"column {column} {table[column]} is missing in the batch" for column in lost]
    widened: dict[str, str] = {}
    for column, found in batch.items():
        held = table.get(column, found)
        if held == found:
            continue
        if is_wider(found, held):
            widened[column] = found
        else:
            verb = "narrows" if is_wider(held, found) else "changes"
            faults.append(f"column {column} {verb} from {held} to {found}")
    if faults:
        raise SchemaError(
            "lake", "fit a batch into", name,
            f"{'; '.join(faults)}\n  table: {_shown(table)}\n  batch: {_shown(batch)}",
            f"Mend the source, or declare the types in tables.{name}.columns of the estate.",
        )  # fmt: skip
    added = {column: kind for column, kind in batch.items() if column not in table}
    return Evolution(added, widened)


def is_wider(new: str, old: str) -> bool:
    """Whether every value of the type `old` is also one of `new`, without loss; equal types are not wider.

    A date beyond the year 294246 is no timestamp: reading it as one is an error, never another date.
    """
    if new == old:
        return False
    if old == "DATE" and new == "TIMESTAMP":
        return True
    if old == "FLOAT" and new == "DOUBLE":
        return True
    if old in _INTEGERS:
        return _integer_fits(old, new)
    before, after = _DECIMAL.fullmatch(old), _DECIMAL.fullmatch(new)
    if before and after:
        precision, scale = (int(text) for text in before.groups())
        wide_precision, wide_scale = (int(text) for text in after.groups())
        return wide_scale >= scale and wide_precision - wide_scale >= precision - scale
    return False


def _integer_fits(old: str, new: str) -> bool:
    bits, signed = _INTEGERS[old]
    if new in _INTEGERS:
        wide, wide_signed = _INTEGERS[new]
        return wide > bits if wide_signed else wide > bits and not signed
    if new in _EXACT_BITS:
        return bits <= _EXACT_BITS[new]
    decimal = _DECIMAL.fullmatch(new)
    if decimal:
        precision, scale = (int(text) for text in decimal.groups())
        return precision - scale >= len(str(2 ** (bits - signed) - 1))
    return False


def _shown(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())
