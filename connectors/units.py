"""Reads the durations and sizes that people write in an estate."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, ByteSize, PlainSerializer, WithJsonSchema

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d|w)\s*")


def parse_duration(value: object) -> timedelta:
    """Return the duration of a text such as `30s`, `1h 30m` or `7d`; raises ValueError."""
    if isinstance(value, timedelta):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if not text or _PART.sub("", text):
        raise ValueError("is not a duration; write for example 30s, 15m, 4h, 1h 30m or 7d")
    try:
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))
    except OverflowError:
        raise ValueError("is longer than any duration can be") from None


def format_duration(value: timedelta) -> str:
    """Return a text that `parse_duration` reads as the same duration."""
    return f"{value / timedelta(seconds=1):.6f}".rstrip("0").rstrip(".") + "s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["30s", "15m", "4h", "7d"]}),
]

Size = Annotated[
    ByteSize,
    WithJsonSchema({"type": ["string", "integer"], "examples": ["512 MiB", "10 GiB"]}),
]
