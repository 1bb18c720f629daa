"""Query: answer SQL over the lake, and leave the answer as an artifact."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from pydantic import Field

from connectors.errors import CausewayError
from connectors.estate import load_estate
from datalake import query as lake_query
from flows.outcome import failure

_PLAIN = (str, int, float, bool, type(None))


@flow(name="query", persist_result=False)
def query(
    estate: str,
    sql: str,
    version: Annotated[int | None, Field(ge=0)] = None,
    rows: Annotated[int, Field(ge=1, le=10_000)] = 100,
    dry_run: bool = False,
) -> list[dict[str, Any]]:
    """Answer a SELECT over the lake from one snapshot; it reads only.

    Args:
        estate: Path of the estate file on the machine that runs the flow.
        sql: One SELECT over `lake.TABLE` and `ops.TABLE`.
        version: Number of the snapshot to read. Empty: the newest.
        rows: How many rows to show, 10,000 at most.
        dry_run: Show how the query would be run, and read nothing.
    """
    try:
        return _answer(estate, f"EXPLAIN {sql}" if dry_run else sql, version, rows)
    except CausewayError as error:
        return cast(list[dict[str, Any]], failure(error))


def _answer(estate: str, sql: str, version: int | None, rows: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with lake_query.query(load_estate(estate), sql, version=version) as answer:
        for batch in answer.reader:
            found.extend(batch.slice(0, rows - len(found)).to_pylist())
            if len(found) == rows:
                break
    shown = [{name: _shown(value) for name, value in row.items()} for row in found]
    create_table_artifact(shown, key="answer", description=f"Snapshot {answer.version}: `{sql}`")
    get_run_logger().info("%d rows from snapshot %d", len(found), answer.version)
    return found


def _shown(value: object) -> object:
    """Return what an artifact's JSON can hold."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value if isinstance(value, _PLAIN) else str(value)
