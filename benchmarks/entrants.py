"""Who takes part: how each is started, and how what it has left on S3 is read again."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from benchmarks.estate import CHECKED, PLAIN, UNIQUE
from benchmarks.objects import open_objects
from benchmarks.servers import psql
from benchmarks.setting import BUCKET, TABLE, Setting, variable
from benchmarks.source import TOTALS_SQL, Totals, totals
from connectors.estate import load_estate
from datalake.session import open_lake

_ROOT = Path(__file__).resolve().parents[1]
_NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there
_SLING_PACKAGES = ("sling_linux_amd64", "sling_linux_arm64")


@dataclass(frozen=True)
class Run:
    """The surroundings of one run."""

    setting: Setting
    estate: Path
    prefect_url: str | None
    folder: Path
    """an empty folder of its own"""
    label: str

    @property
    def result(self) -> str:
        """URL below which a peer leaves its result."""
        return f"s3://{BUCKET}/{self.label}"

    def environment(self) -> dict[str, str]:
        """Return the variables of every entrant: none of the caller's Prefect, no reports to anybody."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        return {
            **kept,
            **self.setting.environment(),
            variable("result"): self.result,
            "HOME": str(self.folder),
            "PYTHONPATH": str(_ROOT),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "DO_NOT_TRACK": "1",
        }


@dataclass(frozen=True)
class Entrant:
    """One row of the table."""

    name: str
    title: str
    kind: Literal["limit", "causeway", "peer"]
    start: Callable[[Run], tuple[Sequence[str], Mapping[str, str]]]
    """returns the command and its environment"""
    landed: Callable[[Run], Totals] | None
    """reads the result again; absent when nothing lands"""


def _copy(run: Run) -> tuple[Sequence[str], Mapping[str, str]]:
    setting = run.setting
    command = [
        str(psql()), "-X", "-q", "-h", setting.pg_host, "-p", setting.pg_port, "-U", setting.pg_user,
        "-d", setting.pg_database, "-c", f"COPY (SELECT * FROM {TABLE}) TO STDOUT (FORMAT binary)",
    ]  # fmt: skip
    return command, {**run.environment(), "PGPASSWORD": setting.pg_password}


def _python(module: str, *arguments: str, **variables: str) -> Callable[[Run], tuple[Sequence[str], Mapping[str, str]]]:
    command = [sys.executable, "-m", f"benchmarks.peers.{module}", *arguments]
    return lambda run: (command, {**run.environment(), **variables})


def _causeway(table: str) -> Callable[[Run], tuple[Sequence[str], Mapping[str, str]]]:
    def start(run: Run) -> tuple[Sequence[str], Mapping[str, str]]:
        assert run.prefect_url is not None
        command = [sys.executable, "-m", "benchmarks.peers.causeway", str(run.estate), table]
        prefect = {
            "PREFECT_API_URL": run.prefect_url,
            "PREFECT_HOME": str(run.folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        return command, {**run.environment(), **prefect}

    return start


def _sling(run: Run) -> tuple[Sequence[str], Mapping[str, str]]:
    """Sling's own binary. Its Parquet writer needs a DuckDB that it would download, unless that is off."""
    setting = run.setting
    store = {
        "type": "s3",
        "bucket": BUCKET,
        "access_key_id": setting.s3_access_key,
        "secret_access_key": setting.s3_secret_key,
        "endpoint": f"http://{setting.s3_host}",
        "region": "us-east-1",
    }
    variables = {
        "SOURCE": f"{setting.pg_url}?sslmode=disable",
        "STORE": json.dumps(store),
        "SLING_HOME_DIR": str(run.folder),
        "SLING_DISABLE_TELEMETRY": "true",
        "SLING_DUCKDB_COMPUTE": "false",
        "HTTP_PROXY": _NOWHERE,
        "HTTPS_PROXY": _NOWHERE,
    }
    command = [
        str(_sling_binary()), "run", "--src-conn", "SOURCE", "--src-stream", f"public.{TABLE}",
        "--tgt-conn", "STORE", "--tgt-object", f"{run.result}/{TABLE}.parquet",
        "--tgt-options", '{"format": "parquet"}',
    ]  # fmt: skip
    return command, {**run.environment(), **variables}


def _sling_binary() -> Path:
    """Return the packaged program itself, so that no Python around it is measured."""
    for package in _SLING_PACKAGES:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            return Path(folder, "bin", package.replace("_", "-"))
    raise SystemExit("sling is not installed: uv sync --group bench")


def _parquet(run: Run) -> Totals:
    """Return the totals of what a peer has written; dlt's own tables beside it are not Parquet."""
    with open_objects(run.setting) as connection:
        return _fetched(connection.execute(f"{TOTALS_SQL} FROM read_parquet('{run.result}/**/*.parquet')"))


def _lake(table: str) -> Callable[[Run], Totals]:
    def landed(run: Run) -> Totals:
        """Return the totals of a table of the lake and drop it, so that every run starts alike."""
        with open_lake(load_estate(run.estate), read_only=False) as lake:
            found = _fetched(lake.connection.execute(f"{TOTALS_SQL} FROM lake.{table}"))
            lake.connection.execute(f"DROP TABLE lake.{table}")
        return found

    return landed


def _fetched(answer: Any) -> Totals:
    return totals(answer.fetchone())


_DLT_VARIABLES = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}

ENTRANTS = (
    Entrant("copy", "COPY binary to nowhere", "limit", _copy, None),
    Entrant("causeway", "causeway, no validation", "causeway", _causeway(PLAIN), _lake(PLAIN)),
    Entrant("causeway-checked", "causeway, validated", "causeway", _causeway(CHECKED), _lake(CHECKED)),
    Entrant("causeway-unique", "causeway, validated + unique", "causeway", _causeway(UNIQUE), _lake(UNIQUE)),
    Entrant("duckdb", "DuckDB, one file", "peer", _python("duckdb_scanner"), _parquet),
    Entrant(
        "dlt-connectorx", "dlt (connectorx)", "peer",
        _python("dlt_sql", "connectorx", **_DLT_VARIABLES), _parquet,
    ),
    Entrant(
        "dlt-pyarrow", "dlt (pyarrow)", "peer", _python("dlt_sql", "pyarrow", **_DLT_VARIABLES), _parquet
    ),
    Entrant("sling", "sling", "peer", _sling, _parquet),
)  # fmt: skip
