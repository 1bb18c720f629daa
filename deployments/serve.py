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
from connectors.estate import ChangesSource, Estate, load_estate
from deployments.automations import create_limits, ensure_zombie_automation
from flows.ingest import backfill, ingest
from flows.maintain import maintain
from flows.query import query
from flows.replicate import replicate
from flows.watch import watch

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
        _deployment(replicate, estate, place, _replications(estate)),
        _deployment(watch, estate, place, _cron(estate.lake.watch)),
        _deployment(maintain, estate, place, _cron(estate.lake.maintenance.schedule)),
    ]
    for one in made:
        _refine_form(one, estate)
    return made


def _cron(schedule: str | None) -> list[Schedule]:
    return [Cron(schedule, timezone="UTC", slug="regular")] if schedule else []


def _replications(estate: Estate) -> list[Schedule]:
    return [
        Cron(one.schedule, timezone="UTC", slug=name, parameters={"source": name})
        for name, one in estate.sources.items()
        if isinstance(one, ChangesSource) and one.schedule
    ]


def _deployment(
    flow: Any, estate: Estate, parameters: dict[str, Any], schedules: list[Schedule] | None = None
) -> RunnerDeployment:
    made = flow.to_deployment(name=estate.name, parameters=parameters, schedules=schedules, tags=["causeway"])
    return cast(RunnerDeployment, made)


def _refine_form(deployment: RunnerDeployment, estate: Estate) -> None:
    """Make the field that names a table a choice of the estate's tables, and what may be empty a plain field."""
    # Prefect derives the form from the signature and has no public door to refine it at run time.
    fields = deployment._parameter_openapi_schema.properties
    if "source" in fields:
        followed = sorted(name for name, one in estate.sources.items() if isinstance(one, ChangesSource))
        if followed:
            fields["source"]["enum"] = followed
    if "tables" in fields:
        fields["tables"] |= {"type": "array", "items": {"type": "string", "enum": sorted(estate.tables)}}
        fields["tables"].pop("anyOf", None)
        fields["tables"].pop("default", None)
    if "table" in fields:
        sliced = deployment.flow_name == backfill.name
        fields["table"]["enum"] = sorted(name for name, one in estate.tables.items() if one.cursor or not sliced)
    for field in fields.values():
        # `str | None` would be shown as two buttons, "str" and "None". What is optional may be null all the same.
        types = [one for one in field.get("anyOf", []) if one != {"type": "null"}]
        if len(types) == 1 and field.get("default", ...) is None:
            del field["anyOf"], field["default"]
            field.update(types[0])


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
