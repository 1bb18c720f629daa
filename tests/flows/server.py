"""A Prefect server for tests, and what its client tells of runs, artifacts, logs and events."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import httpx
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness


class Prefect:
    """What a running Prefect server knows."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the API; raises for an answer that is an error."""
        with httpx.Client(base_url=self.url, trust_env=False, timeout=30) as client:
            answer = client.post(path, json=body or {})
            answer.raise_for_status()
            return answer.json()

    def artifacts(self, key: str) -> list[dict[str, Any]]:
        """Return the artifacts of a key, the newest first."""
        found: list[dict[str, Any]] = self.post(
            "/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
        )
        return sorted(found, key=lambda one: str(one["created"]), reverse=True)

    def every_artifact(self) -> list[dict[str, Any]]:
        """Return up to 200 artifacts."""
        found: list[dict[str, Any]] = self.post("/artifacts/filter", {"sort": "CREATED_DESC"})
        return found

    def last_run(self, flow: str = "ingest") -> dict[str, Any]:
        """Return the newest run of a flow."""
        found = self.post(
            "/flow_runs/filter",
            {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 1},
        )
        return dict(found[0])

    def logs(self, run_id: str) -> list[str]:
        """Return the messages of a run's logs."""
        found = self.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}})
        return [str(one["message"]) for one in found]

    def events(self, prefix: str, resource: str) -> list[dict[str, Any]]:
        """Return the events of a kind about one resource; they are written behind, so it waits a little."""
        body = {
            "filter": {"event": {"prefix": [prefix]}, "resource": {"id": [resource]}},
            "limit": 50,
        }
        found: list[dict[str, Any]] = []

        def seen() -> bool:
            found.extend(self.post("/events/filter", body)["events"])
            return bool(found)

        wait_until(seen, 15)
        return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether the condition came true in that time."""
    end = monotonic() + seconds
    while not condition():
        if monotonic() > end:
            return False
        sleep(0.1)
    return True


@contextmanager
def prefect_server() -> Iterator[Prefect]:
    """Run a server with a database of its own; flows of this process use it while the context is open.

    Flows of other processes use it with PREFECT_API_URL in their environment.
    """
    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield Prefect(str(PREFECT_API_URL.value()))


def child_environment(url: str) -> dict[str, str]:
    """Return the environment of a process whose flows use the server at `url`."""
    return {**os.environ, "PREFECT_API_URL": url, "PYTHONUNBUFFERED": "1", "PREFECT_LOGGING_COLORS": "false"}
