"""A table's columns change so that a batch fits, and nothing that a table holds is ever lost."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import SchemaError
from datalake.schema import is_wider, plan_evolution

# The smallest and the greatest value of each type, as SQL.
_EXTREMES: dict[str, tuple[str, ...]] = {
    "TINYINT": ("-128", "127"),
    "SMALLINT": ("-32768", "32767"),
    "INTEGER": ("-2147483648", "2147483647"),
    "BIGINT": ("-9223372036854775808", "9223372036854775807"),
    "HUGEINT": ("-170141183460469231731687303715884105728", "170141183460469231731687303715884105727"),
    "UTINYINT": ("0", "255"),
    "USMALLINT": ("0", "65535"),
    "UINTEGER": ("0", "4294967295"),
    "UBIGINT": ("0", "18446744073709551615"),
    "FLOAT": ("-3.4028235e38", "1.1754944e-38", "'nan'", "'-inf'"),
    "DOUBLE": ("1.7976931348623157e308", "0.1"),
    "DATE": ("'290309-12-22 (BC)'", "'294246-12-31'", "'infinity'", "'2000-02-29'"),
    "TIMESTAMP": ("'2000-02-29 12:34:56.789012'",),
    "VARCHAR": ("'x'",),
    "BOOLEAN": ("true",),
} | {
    f"DECIMAL({precision},{scale})": tuple(
        sign + ("9" * (precision - scale) or "0") + ("." + "9" * scale if scale else "") for sign in ("-", "")
    )
    for precision, scale in [
        (3, 0),
        (4, 4),
        (5, 0),
        (5, 2),
        (10, 0),
        (12, 2),
        (18, 3),
        (19, 0),
        (20, 0),
        (38, 0),
        (38, 10),
    ]
}
_PAIRS = [(new, old) for new in _EXTREMES for old in _EXTREMES if is_wider(new, old)]

types = st.sampled_from(sorted(_EXTREMES))
decimals = st.integers(1, 38).flatmap(lambda p: st.integers(0, p).map(lambda s: f"DECIMAL({p},{s})"))
any_type = st.one_of(types, decimals)
schemas = st.dictionaries(st.sampled_from("abcdef"), types, max_size=6)


@given(table=schemas, batch=schemas)
def test_after_a_plan_is_applied_a_replan_has_nothing_to_do(table: dict[str, str], batch: dict[str, str]) -> None:
    try:
        plan = plan_evolution("t", table, batch)
    except SchemaError:
        return
    applied = {**table, **plan.widened, **plan.added}
    again = plan_evolution("t", applied, batch)
    assert (again.added, again.widened) == ({}, {})
    assert applied == batch


@given(table=schemas, batch=schemas)
def test_a_plan_never_loses_or_narrows_a_column(table: dict[str, str], batch: dict[str, str]) -> None:
    fits = all(name in batch and (batch[name] == kind or is_wider(batch[name], kind)) for name, kind in table.items())
    try:
        plan = plan_evolution("t", table, batch)
    except SchemaError:
        assert not fits
        return
    assert fits
    assert not plan.added.keys() & table.keys()
    assert all(is_wider(new, table[name]) for name, new in plan.widened.items())


def test_a_refusal_names_the_columns_and_shows_both_schemas() -> None:
    with pytest.raises(SchemaError) as caught:
        plan_evolution("flights", {"id": "BIGINT", "at": "DATE", "x": "DOUBLE"}, {"id": "INTEGER", "at": "VARCHAR"})
    said = str(caught.value)
    assert "column x DOUBLE is missing in the batch" in said
    assert "column id narrows from BIGINT to INTEGER" in said
    assert "column at changes from DATE to VARCHAR" in said
    assert "table: id BIGINT, at DATE, x DOUBLE" in said
    assert "batch: id INTEGER, at VARCHAR" in said
    assert "tables.flights.columns" in said


@given(any_type)
def test_no_type_is_wider_than_itself(kind: str) -> None:
    assert not is_wider(kind, kind)


@given(any_type, any_type)
def test_of_two_types_at_most_one_is_wider(one: str, other: str) -> None:
    assert not (is_wider(one, other) and is_wider(other, one))


def test_wider_than_wider_is_wider() -> None:
    wider = set(_PAIRS)
    gaps = [(a, b, c) for a, b in wider for b2, c in wider if b == b2 and (a, c) not in wider]
    assert gaps == []


@given(any_type, any_type, any_type)
def test_wider_than_wider_is_wider_for_all_decimals(a: str, b: str, c: str) -> None:
    assert is_wider(a, c) or not (is_wider(a, b) and is_wider(b, c))


def test_a_wider_type_takes_the_extreme_values_without_loss() -> None:
    lossy = []
    with duckdb.connect(":memory:") as connection:
        for new, old in _PAIRS:
            for value in _EXTREMES[old]:
                held = f"CAST({value if value.startswith(chr(39)) else repr(value)} AS {old})"
                row = connection.execute(f"SELECT {held} IS NOT DISTINCT FROM CAST(CAST({held} AS {new}) AS {old})")
                if row.fetchone() != (True,):
                    lossy.append((new, old, value))
    assert lossy == []
    assert len(_PAIRS) > 80


def test_a_date_that_is_no_timestamp_is_an_error_and_never_another_date() -> None:
    with duckdb.connect(":memory:") as connection, pytest.raises(duckdb.ConversionException):
        connection.execute("SELECT CAST(DATE '5881580-07-10' AS TIMESTAMP)")
