"""What the browser tests know of the estate under test, and of a page."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import ConsoleMessage, Page

from connectors.errors import NotFoundError
from connectors.estate import load_estate
from datalake.session import open_lake
from deployments.embedded import Home

ROOT = Path(__file__).resolve().parents[2]
# Files that Prefect's own pages ask for and that Prefect does not ship.
_PREFECTS_OWN = ("/favicon.ico", "/ico/undefined.svg")


@dataclass
class Watched:
    """A page, and what went wrong on it: errors in its console, requests that left this machine."""

    page: Page
    ui: str
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        self.page.on("request", lambda request: self._asked(request.url))

    def _heard(self, message: ConsoleMessage) -> None:
        where = message.location.get("url", "")
        if message.type == "error" and urlsplit(where).path not in _PREFECTS_OWN:
            self.problems.append(f"console: {message.text} ({where})")

    def _asked(self, url: str) -> None:
        if not url.removeprefix("blob:").startswith((self.ui, self.ui.replace("http", "ws", 1), "data:")):
            self.problems.append(f"request to elsewhere: {url}")


@dataclass(frozen=True)
class Load:
    """A row of ops.loads."""

    status: str
    rows: int
    files: int
    mode: str
    source: str
    flow_run_id: str


@dataclass(frozen=True)
class Site:
    """An embedded estate that runs, with the shell variables by which its users reach it."""

    home: Home
    variables: Mapping[str, str]

    @property
    def api(self) -> str:
        return self.variables["PREFECT_API_URL"]

    @property
    def ui(self) -> str:
        return self.api.removesuffix("/api")

    def run_page(self, flow_run_id: str) -> str:
        return f"{self.ui}/runs/flow-run/{flow_run_id}"

    def deployment(self, name: str) -> str:
        """The id of a deployment, which is named flow/estate."""
        return str(self.ask("GET", f"/deployments/name/{name}")["id"])

    def ask(self, method: str, path: str, content: object = None) -> Any:
        """Call Prefect's API; for what has no sign on a page."""
        with httpx.Client(trust_env=False, timeout=30) as client:
            answer = client.request(method, self.api + path, json=content)
            answer.raise_for_status()
            return answer.json() if answer.content else None

    def run(self, *command: str) -> str:
        """Run a program as a user of this estate does in a shell; return what it printed."""
        environment = {**os.environ, **self.variables, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def loads(self, table: str) -> list[Load]:
        """The evidence of a table's loads, the oldest first; none where no lake was made yet."""
        columns = ", ".join(Load.__dataclass_fields__)
        sql = f"SELECT {columns} FROM ops.loads WHERE table_name = '{table}' ORDER BY started_at"
        try:
            with open_lake(load_estate(self.home.estate_file)) as lake:
                return [Load(*row) for row in lake.rows(sql)]
        except NotFoundError:
            return []

    def airports_in_the_lake(self) -> list[tuple[str, str, float]]:
        with open_lake(load_estate(self.home.estate_file)) as lake:
            return [
                (row[0], row[1], float(row[2]))
                for row in lake.rows("SELECT faa, name, lat FROM lake.airports ORDER BY 1")
            ]

    def airports_in_the_source(self) -> list[tuple[str, str, float]]:
        path = self.home.path / "data" / "files" / "reference" / "airports.csv"
        with path.open(encoding="utf-8", newline="") as file:
            return sorted((row["faa"], row["name"], float(row["lat"])) for row in csv.DictReader(file))


def wait_for(found: Callable[[], bool], seconds: float = 90) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(1)
