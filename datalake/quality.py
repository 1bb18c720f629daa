"""Counts, in SQL over a batch, how many rows each expectation did not expect."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType

import duckdb

from connectors.duck import quote_identifier, quote_literal
from connectors.errors import BadDataError, SchemaError
from connectors.estate import Expectation
from datalake.batch import Batch
from datalake.session import Lake
from datalake.translation import translate

SAMPLE_ROWS = 1000


@dataclass(frozen=True)
class Count:
    """How an expectation fared in a batch, before anybody judges it."""

    expectation: Expectation
    considered: int
    """Rows that it speaks of: all, or those whose column is not null."""
    unexpected: int

    @property
    def allowed(self) -> int:
        """Greatest number of unexpected rows that `mostly` forgives."""
        return int(self.considered * (1 - self.expectation.mostly) + 1e-9)

    @property
    def percent(self) -> float:
        """Unexpected rows in percent of those considered."""
        return 100 * self.unexpected / self.considered if self.considered else 0.0


def count_violations(lake: Lake, batch: Batch, expectations: Sequence[Expectation]) -> list[Count]:
    """Return a count for each expectation, in their order.

    Rows: a condition on one column is a WHERE of its own, which Parquet's statistics answer where all is well;
    other conditions cost one pass together; uniqueness costs a grouping each. Nulls are not considered, as Great
    Expectations has it, but for expectations about nulls. Raises SchemaError when an expectation speaks of a
    column that the batch lacks, BadDataError when it can't be computed.
    """
    _require_columns(batch, expectations)
    conditions = {one: condition for one in expectations if (condition := unexpected_rows(one))}
    by_statistics = {one: condition for one, condition in conditions.items() if _has_statistics(batch, one)}
    rowwise = {one: condition for one, condition in conditions.items() if one not in by_statistics}
    fields = ["count(*)"]
    for one, condition in rowwise.items():
        fields.append(f"count(*) FILTER (WHERE {considered_rows(one)})")
        fields.append(f"count(*) FILTER (WHERE {condition})")
    total, *numbers = _row(lake, batch, f"SELECT {', '.join(fields)} FROM {batch.relation}")
    found = {one: Count(one, numbers[2 * index], numbers[2 * index + 1]) for index, one in enumerate(rowwise)}
    # Each opens every file of the batch, so that what expectations of a column share is asked once.
    rows_where = cache(partial(_rows_where, lake, batch))
    for one, condition in by_statistics.items():
        nulls = rows_where(f"NOT ({considered_rows(one)})")
        found[one] = Count(one, total - nulls, rows_where(condition))
    for one in expectations:
        if one.expect == "table_row_count_to_be_between":
            found[one] = Count(one, 1, 0 if _within(total, one) else 1)
        elif one not in found:
            found[one] = _duplicates(lake, batch, one)
    return [found[one] for one in expectations]


def failing_rows(
    lake: Lake, batch: Batch, failed: Sequence[Expectation], limit: int = SAMPLE_ROWS
) -> list[tuple[str, str]]:
    """Return up to `limit` rows of a batch that failed expectations did not expect: (JSON, reasons)."""
    conditions = {one: _row_condition(batch, one) for one in failed}
    usable = {one: condition for one, condition in conditions.items() if condition}
    if not usable:
        return []
    reasons = ", ".join(
        f"CASE WHEN {condition} THEN {quote_literal(one.title)} END" for one, condition in usable.items()
    )
    anything = " OR ".join(f"({condition})" for condition in usable.values())
    try:
        found = lake.connection.execute(
            f"SELECT to_json(batch)::VARCHAR, list_filter([{reasons}], lambda x: x IS NOT NULL) "
            f"FROM {batch.relation} AS batch WHERE {anything} LIMIT {limit}"
        ).fetchall()
    except duckdb.Error as error:
        raise translate(error, "sample the failing rows of", batch.table) from error
    return [(str(row), json.dumps(why)) for row, why in found]


def unexpected_rows(one: Expectation) -> str | None:
    """Return the SQL condition of the rows that are not expected; None when no single row tells."""
    make = _ROWWISE.get(one.expect)
    return make(one) if make else None


def considered_rows(one: Expectation) -> str:
    """Return the SQL condition of the rows that an expectation speaks of."""
    if one.expect in ("column_values_to_not_be_null", "column_values_to_be_null", "unexpected_rows"):
        return "true"
    names = [one.column_a, one.column_b] if one.column_a else [one.column]
    return " AND ".join(f"{quote_identifier(name)} IS NOT NULL" for name in names if name)


def _column(one: Expectation) -> str:
    assert one.column is not None  # the estate's model sees to it
    return quote_identifier(one.column)


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else quote_literal(str(value))


def _outside(value: str, one: Expectation) -> str:
    bounds = []
    if one.min_value is not None:
        bounds.append(f"{value} < {_literal(one.min_value)}")
    if one.max_value is not None:
        bounds.append(f"{value} > {_literal(one.max_value)}")
    return "(" + " OR ".join(bounds) + ")"


def _in_set(one: Expectation) -> str:
    return f"{_column(one)} IN ({', '.join(map(_literal, one.value_set))})"


def _matches(one: Expectation) -> str:
    return f"regexp_matches({_column(one)}::VARCHAR, {quote_literal(one.regex or '')})"


def _not_greater(one: Expectation) -> str:
    operator = "<" if one.or_equal else "<="
    return f"{quote_identifier(one.column_a or '')} {operator} {quote_identifier(one.column_b or '')}"


_ROWWISE: Mapping[str, Callable[[Expectation], str]] = MappingProxyType(
    {
        "column_values_to_not_be_null": lambda one: f"{_column(one)} IS NULL",
        "column_values_to_be_null": lambda one: f"{_column(one)} IS NOT NULL",
        "column_values_to_be_between": lambda one: _outside(_column(one), one),
        "column_values_to_be_in_set": lambda one: f"NOT {_in_set(one)}",
        "column_values_to_not_be_in_set": _in_set,
        "column_values_to_match_regex": lambda one: f"NOT {_matches(one)}",
        "column_values_to_not_match_regex": _matches,
        "column_value_lengths_to_be_between": lambda one: _outside(f"length({_column(one)}::VARCHAR)", one),
        "column_pair_values_a_to_be_greater_than_b": _not_greater,
        "unexpected_rows": lambda one: f"({one.condition})",
    }
)


def _unique_columns(one: Expectation) -> list[str]:
    return list(one.columns) or [one.column or ""]


def _has_statistics(batch: Batch, one: Expectation) -> bool:
    """Whether Parquet tells of a column which row groups a condition can hold in; NaN is in no statistics."""
    return one.column is not None and batch.columns[one.column] not in ("FLOAT", "DOUBLE")


def _rows_where(lake: Lake, batch: Batch, condition: str) -> int:
    return _row(lake, batch, f"SELECT count(*) FROM {batch.relation} WHERE {condition}")[0]


def _duplicates(lake: Lake, batch: Batch, one: Expectation) -> Count:
    """Count the rows whose key another row has too; a key with a null in it is not considered."""
    names = ", ".join(map(quote_identifier, _unique_columns(one)))
    nonnull = " AND ".join(f"{quote_identifier(name)} IS NOT NULL" for name in _unique_columns(one))
    considered, unexpected = _row(
        lake,
        batch,
        "SELECT coalesce(sum(n), 0)::BIGINT, coalesce(sum(n) FILTER (WHERE n > 1), 0)::BIGINT FROM "
        f"(SELECT count(*) AS n FROM {batch.relation} WHERE {nonnull} GROUP BY {names})",
    )
    return Count(one, considered, unexpected)


def _row_condition(batch: Batch, one: Expectation) -> str | None:
    if one.expect in ("column_values_to_be_unique", "compound_columns_to_be_unique"):
        names = ", ".join(map(quote_identifier, _unique_columns(one)))
        return f"({names}) IN (SELECT ({names}) FROM {batch.relation} GROUP BY {names} HAVING count(*) > 1)"
    return unexpected_rows(one)


def _row(lake: Lake, batch: Batch, sql: str) -> tuple[int, ...]:
    try:
        found = lake.connection.execute(sql).fetchone()
    except duckdb.Error as error:
        translated = translate(error, "check", batch.table)
        if isinstance(error, duckdb.BinderException | duckdb.ConversionException):
            raise BadDataError(
                "lake", "check", batch.table, translated.cause,
                f"Mend tables.{batch.table}.expectations in the estate.",
            ) from error  # fmt: skip
        raise translated from error
    assert found is not None
    return tuple(int(number) for number in found)


def _within(total: int, one: Expectation) -> bool:
    low = float("-inf") if one.min_value is None else float(one.min_value)
    high = float("inf") if one.max_value is None else float(one.max_value)
    return low <= total <= high


def _require_columns(batch: Batch, expectations: Sequence[Expectation]) -> None:
    for one in expectations:
        named = [one.column, one.column_a, one.column_b, *one.columns]
        missing = [name for name in named if name is not None and name not in batch.columns]
        if missing:
            raise SchemaError(
                "lake", "check", batch.table,
                f"expectation '{one.title}' speaks of {', '.join(missing)}, which the batch lacks",
                f"The batch has: {', '.join(batch.columns)}.",
            )  # fmt: skip


def key_expectations(key: Sequence[str]) -> list[Expectation]:
    """Return what must hold for a merge: every row has its key, and no two rows the same."""
    present = [Expectation(expect="column_values_to_not_be_null", column=column) for column in key]
    if len(key) == 1:
        return [*present, Expectation(expect="column_values_to_be_unique", column=key[0])]
    return [*present, Expectation(expect="compound_columns_to_be_unique", columns=tuple(key))]
