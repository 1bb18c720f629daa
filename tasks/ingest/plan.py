"""Decides what a load takes, under which key, and what its verdicts mean."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from connectors.errors import BadDataError, PolicyError
from connectors.estate import ChangesSource, DocumentsSource, Estate, Table
from connectors.sources import Slice
from connectors.units import parse_duration
from datalake.documents import TABLE as OBJECTS
from datalake.increments import Progress
from datalake.judge import Verdict


@dataclass(frozen=True)
class LoadPlan:
    """One load: what is taken, where it goes, and the key under which it is committed at most once."""

    table: str
    """The table that was asked for."""
    target: str
    """The table of the lake that the rows go to."""
    mode: str
    source: str
    part: Slice
    load_key: str
    cursor: str | None = None
    """Column that slices and increments are cut by."""
    progress: Progress | None = None
    """Where the table's increments were, when the load is one."""


@dataclass(frozen=True)
class Accept:
    """The batch goes into its table; the warnings are recorded."""

    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Refuse:
    """The batch is set aside."""

    reasons: tuple[str, ...]


def plan_load(
    estate: Estate,
    table: str,
    start: str | None,
    end: str | None,
    load_key: str | None,
    run_id: str,
    progress: Progress | None = None,
    full: bool = False,
) -> LoadPlan:
    """Return what to load, so that no row gets where it may not lie and no load is committed twice.

    Without a key of its own a load that names a slice of an append table has the slice as its key: the
    same slice again is a no-op. Other loads have their run's id in it: a retry of the run is a no-op, while
    a new run puts what it finds in the place of what is there (replace, merge) or adds it (append).
    With the `progress` of a table's increments the load is the next one, or a `full` one in its place.
    Raises NotFoundError, PolicyError, BadDataError.
    """
    declared = estate.table(table)
    if isinstance(estate.source(declared.source), ChangesSource):
        raise BadDataError(
            "estate", "ingest", table, f"the table follows the changes of source {declared.source}",
            f"Run the flow replicate: causeway replicate {declared.source}.",
        )  # fmt: skip
    if not estate.may_hold(estate.lake.site, declared.data_class):
        held = estate.site(estate.lake.site).holds
        raise PolicyError(
            "estate", "ingest", table,
            f"its class is {declared.data_class}, and site {estate.lake.site} may hold {held} at most",
            "Put the lake where the data may lie, or lower the class after looking at the data.",
        )  # fmt: skip
    part = _slice(table, declared.cursor, start, end)
    if progress is not None:
        if load_key:
            raise BadDataError(
                "estate", "ingest", table, f"an increment has a key of its own, and can't be {load_key!r}",
                "Leave the key empty, or name a slice by start and end.",
            )  # fmt: skip
        if progress.start is not None and not full:
            part = Slice(declared.cursor, progress.start, None, with_nulls=True)
    is_documents = isinstance(estate.source(declared.source), DocumentsSource)
    sliced = declared.mode == "append" and part.cursor is not None
    about = load_key or (progress.key if progress else _digest(start, end, "" if sliced else run_id))
    return LoadPlan(
        table=table,
        target=OBJECTS if is_documents else table,
        mode="merge" if is_documents else declared.mode,
        source=declared.source,
        part=part,
        load_key=f"{table}:{about}",
        cursor=declared.cursor,
        progress=progress,
    )


def is_increment(declared: Table, start: str | None, end: str | None) -> bool:
    """Whether a load that names these bounds is the next of the table's increments."""
    return declared.increment is not None and start is None and end is None


def _digest(*parts: str | None) -> str:
    """Return a short text that differs when any part does."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()[:32]


def _slice(table: str, cursor: str | None, start: str | None, end: str | None) -> Slice:
    if start is None and end is None:
        return Slice()
    if cursor is None:
        raise BadDataError(
            "estate", "slice", table, "the table has no cursor column",
            f"Name one in tables.{table}.cursor, or load the table as a whole.",
        )  # fmt: skip
    if start is not None and end is not None and not _before(start, end):
        raise BadDataError(
            "estate", "slice", table, f"start {start!r} is not before end {end!r}",
            "A slice holds the rows with start <= cursor < end.",
        )  # fmt: skip
    return Slice(cursor, start, end)


def _before(start: str, end: str) -> bool:
    """Compare as numbers, else as times, else as texts."""
    for read in (float, _time):
        try:
            return bool(read(start) < read(end))  # type: ignore[operator]
        except (ValueError, TypeError):
            continue
    return start < end


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def decide(verdicts: Sequence[Verdict]) -> Accept | Refuse:
    """Return whether a batch may go in: never when an expectation of level quarantine failed."""
    failed = [verdict for verdict in verdicts if not verdict.success]
    reasons = tuple(_words(verdict) for verdict in failed if verdict.count.expectation.level == "quarantine")
    warnings = tuple(_words(one) for one in failed if one.count.expectation.level == "warn")
    return Refuse(reasons) if reasons else Accept(warnings)


def _words(verdict: Verdict) -> str:
    count = verdict.count
    if count.expectation.expect == "table_row_count_to_be_between":
        return count.expectation.title
    return f"{count.expectation.title}: {count.unexpected} of {count.considered} rows"


def window_length(text: str | None) -> timedelta | None:
    """Return the length of a backfill's windows, None for a single one; raises BadDataError."""
    if not text:
        return None
    try:
        length = parse_duration(text)
    except ValueError as error:
        raise BadDataError("estate", "cut into windows of", repr(text), f"the length {error}") from error
    if not length:
        raise BadDataError("estate", "cut into windows of", repr(text), "the length is zero", "Write for example 1d.")
    return length


def windows(start: str, end: str, length: timedelta | None) -> list[tuple[str, str]]:
    """Cut start..end into windows of `length` that touch and do not overlap; the last may be shorter.

    Without a length it is one window. Raises BadDataError when a length is given that is none, or with
    bounds that are no times.
    """
    if length is None:
        return [(start, end)]
    if length <= timedelta(0):
        raise BadDataError(
            "estate", "cut into windows", f"{start}..{end}", "a window has no length",
            "Give a length such as 1d or 6h, or leave the window empty.",
        )  # fmt: skip
    try:
        first, last = datetime.fromisoformat(start), datetime.fromisoformat(end)
        span = last - first
    except (ValueError, TypeError) as error:
        raise BadDataError(
            "estate", "cut into windows", f"{start}..{end}", str(error),
            "Windows need times such as 2013-01-31 or 2013-01-31T06:00; leave the window empty otherwise.",
        ) from error  # fmt: skip
    inner = max(-(-span // length) - 1, 0)
    bounds = [start, *((first + length * (index + 1)).isoformat() for index in range(inner)), end]
    return list(pairwise(bounds))
