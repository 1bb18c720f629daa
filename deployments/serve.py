"""Serves every flow as a deployment of a Prefect server, with forms that know the estate's names."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.schedules import Cron, Schedule

from connectors.errors import CausewayError
from connectors.estate import Estate, load_estate
from deployments.automations import create_limits, ensure_zombie_automation
from flows.ingest import backfill, ingest
from flows.query import query

_RUNS_AT_ONCE = 4


def deployments(estate_path: Path) -> list[RunnerDeployment]:
    """Return a deployment of each flow, named after the estate.

    A table with a schedule gives ingest a schedule; where a form asks for a table it offers the estate's.
    """
    estate = load_estate(estate_path)
    place = {"estate": str(estate_path.resolve())}
    schedules = [
        Cron(table.schedule, timezone="UTC", slug=name.replace("_", "-"), parameters={"table": name})
        for name, table in estate.tables.items()
        if table.schedule
    ]
    made = [
        _deployment(ingest, estate, place, schedules),
        _deployment(backfill, estate, place),
        _deployment(query, estate, place),
    ]
    for one in made:
        _offer_tables(one, estate)
    return made


def _deployment(
    flow: Any, estate: Estate, parameters: dict[str, Any], schedules: list[Schedule] | None = None
) -> RunnerDeployment:
    made = flow.to_deployment(name=estate.name, parameters=parameters, schedules=schedules, tags=["causeway"])
    return cast(RunnerDeployment, made)


def _offer_tables(deployment: RunnerDeployment, estate: Estate) -> None:
    """Make the form's text field that names a table a choice of the estate's tables."""
    # Prefect derives the form from the signature and has no public door to refine it at run time.
    field = deployment._parameter_openapi_schema.properties.get("table")
    if field is not None:
        field["enum"] = sorted(estate.tables)


async def _serve(made: Sequence[RunnerDeployment], ready: Path) -> None:
    # Schedules outlive the runner: a run that was due meanwhile waits for the next one.
    runner = Runner(name="causeway", limit=_RUNS_AT_ONCE, pause_on_shutdown=False)
    for deployment in made:
        await runner.aadd_deployment(deployment)
    ready.write_text(str(os.getpid()), encoding="utf-8")
    await runner.start()


def main() -> None:
    """Serve until stopped the flows of the estate CAUSEWAY_ESTATE; say so in the folder CAUSEWAY_HOME."""
    create_limits()
    ensure_zombie_automation()
    ready = Path(os.environ["CAUSEWAY_HOME"]) / "run" / "flows.ready"
    made = deployments(Path(os.environ["CAUSEWAY_ESTATE"]))
    asyncio.run(_serve(made, ready))


if __name__ == "__main__":
    try:
        main()
    except CausewayError as error:
        sys.exit(str(error))
