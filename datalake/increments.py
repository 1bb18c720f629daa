"""Where the next increment of a table begins: after what the increments before it have seen.

Increments of a table are a chain: each is committed under the key of its predecessor's successor, so that of two
that begin at the same place one commits and the other finds it done. The order of the chain, and not a clock,
says which is the last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from connectors.duck import quote_identifier, quote_literal
from connectors.errors import BadDataError
from connectors.estate import Table
from datalake.batch import Batch
from datalake.session import Lake
from datalake.translation import lake_errors

_FOLLOWS = "after:"
_NUMBERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|UINTEGER|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)")


@dataclass(frozen=True)
class Progress:
    """How far the increments of a table have come."""

    last: str | None
    """The last increment, by its load id; None before the first."""
    mark: str | None
    """Greatest cursor value that was seen."""
    start: str | None
    """Where the next begins: the mark less the overlap; None for the very beginning."""

    @property
    def key(self) -> str:
        """What the next increment is committed under, at most once."""
        return f"{_FOLLOWS}{self.last or 'nothing'}"


def progress(lake: Lake, name: str, declared: Table) -> Progress:
    """Return where a table's increments are; a cursor that was changed in the estate begins anew.

    Raises BadDataError when the overlap can't be taken from the cursor's type.
    """
    found = lake.rows(
        """
        WITH increments AS (
            SELECT load_id, load_key, cursor_column, cursor_mark FROM ops.loads
            WHERE table_name = ? AND status = 'committed' AND starts_with(load_key, ?)
        )
        SELECT load_id, cursor_column, cursor_mark FROM increments
        WHERE ? || load_id NOT IN (SELECT load_key FROM increments)
        """,
        [name, f"{name}:{_FOLLOWS}", f"{name}:{_FOLLOWS}"],
    )
    if not found:
        return Progress(None, None, None)
    load_id, column, mark = found[0]
    held = lake.columns(name)
    if mark is None or column != declared.cursor or column not in held:
        return Progress(str(load_id), None, None)
    return Progress(str(load_id), str(mark), _less_overlap(lake, name, declared, held, str(mark)))


def _less_overlap(lake: Lake, name: str, declared: Table, held: Mapping[str, str], mark: str) -> str:
    overlap = declared.increment.overlap if declared.increment else 0.0
    kind = held[declared.cursor or ""]
    value = f"CAST({quote_literal(mark)} AS {kind})"
    if not overlap:
        return mark
    if isinstance(overlap, timedelta) and (kind == "DATE" or kind.startswith("TIMESTAMP")):
        micros = overlap // timedelta(microseconds=1)
        earlier = f"{value} - to_microseconds({micros})"
    elif isinstance(overlap, float) and _NUMBERS.fullmatch(kind):
        earlier = f"{value} - CAST({overlap!r} AS {'BIGINT' if 'INT' in kind else 'DOUBLE'})"
    else:
        given = "a time" if isinstance(overlap, timedelta) else "a number"
        raise BadDataError(
            "estate", "begin an increment of", name,
            f"the overlap is {given}, and the cursor {declared.cursor} is {kind}",
            f"Correct tables.{name}.increment.overlap: a duration such as 2h for times, a number for numbers.",
        )  # fmt: skip
    return str(lake.value(f"SELECT CAST({earlier} AS VARCHAR)"))


def mark_of(lake: Lake, batch: Batch, cursor: str, before: Progress) -> str | None:
    """Return the greatest cursor value that is seen once the batch is committed.

    A time in the future counts as now (UTC): one row with a wrong date must not make all that follow it look old.
    """
    kind = batch.columns[cursor]
    newest = f"max({quote_identifier(cursor)})"
    if kind == "DATE" or kind.startswith("TIMESTAMP"):
        now = "now()" if kind.endswith("TIME ZONE") else "timezone('UTC', now())"
        newest = f"least({newest}, CAST({now} AS {kind}))"
    earlier = f"CAST({quote_literal(before.mark)} AS {kind})" if before.mark is not None else f"CAST(NULL AS {kind})"
    with lake_errors("find the mark of", batch.table):
        found = lake.connection.execute(
            f"SELECT CAST(greatest({newest}, {earlier}) AS VARCHAR) FROM {batch.relation}"
        ).fetchone()
    return None if found is None or found[0] is None else str(found[0])
