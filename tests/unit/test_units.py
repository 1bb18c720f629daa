"""Durations and sizes as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from connectors.units import Duration, Size, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25), ("30s", 30), ("15m", 900), ("15min", 900), ("4h", 14400), ("1h 30m", 5400),
        ("1h30m", 5400), ("7d", 604800), ("2w", 1209600), (" 1.5 h ", 5400), ("0s", 0),
    ],
)  # fmt: skip
def test_a_duration_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", " ", "5", 5, None, "-5s", "5 parsecs", "h", "1h x", "1 month", "1.h", "1e3s"])
def test_what_is_no_duration_is_refused_with_examples(value: object) -> None:
    with pytest.raises(ValueError, match="write for example 30s, 15m"):
        parse_duration(value)


@pytest.mark.parametrize("text", ["99999999999d", "9" * 400 + "s"])
def test_a_duration_beyond_all_bounds_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="longer than any duration"):
        parse_duration(text)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)))
def test_a_duration_that_is_written_is_read_as_the_same(value: timedelta) -> None:
    adapter = TypeAdapter(Duration)
    assert abs(parse_duration(format_duration(value)) - value) <= timedelta(microseconds=1)
    assert adapter.validate_python(adapter.dump_python(value)) == parse_duration(format_duration(value))


@pytest.mark.parametrize(
    ("text", "size"),
    [("512 MiB", 512 << 20), ("10GB", 10**10), ("1.5 GiB", 3 << 29), ("10", 10), (10, 10), ("1 tib", 1 << 40)],
)
def test_a_size_is_read_in_decimal_or_binary_units(text: str | int, size: int) -> None:
    assert TypeAdapter(Size).validate_python(text) == size


@pytest.mark.parametrize("value", ["-5", -5, "5 parsecs", "", "MiB", "nan GiB", None, [1]])
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Size).validate_python(value)
