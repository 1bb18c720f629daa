"""Fixtures of all tests: real servers once a session, an estate with a lake of its own for each test."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path

import psycopg
import pytest
import yaml

from tests.servers import Running, postgres_binaries, postgresql, seaweedfs, weed_binary

# Nothing that a developer's shell names may reach the tests.
for _name in ("CAUSEWAY_HOME", "CAUSEWAY_ESTATE", "PREFECT_API_URL"):
    os.environ.pop(_name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests whose servers are not on this machine, with the reason; never where skips are forbidden."""
    missing = [
        name for name, found in (("SeaweedFS", weed_binary()), ("PostgreSQL", postgres_binaries())) if found is None
    ]
    if missing and not os.environ.get("CAUSEWAY_NO_SKIPS"):
        reason = f"not installed: {', '.join(missing)} (make install-test)"
        for item in items:
            if item.get_closest_marker("servers"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where skips are forbidden, a skipped test has failed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CAUSEWAY_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where no test may skip: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A SeaweedFS for the session; its credentials are in the environment as STORE_ACCESS and STORE_SECRET."""
    with seaweedfs(tmp_path_factory.mktemp("objects")) as running:
        os.environ["STORE_ACCESS"], os.environ["STORE_SECRET"] = running.username, running.password
        yield running


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A PostgreSQL for the session; the password is in the environment as DB_PASSWORD."""
    with postgresql(tmp_path_factory.mktemp("database")) as running:
        os.environ["DB_PASSWORD"] = running.password
        yield running


@pytest.fixture
def estate_file(object_store: Running, postgres: Running, tmp_path: Path) -> Path:
    """An estate with one site and an empty lake: its own bucket and its own catalog."""
    unique = secrets.token_hex(4)
    with psycopg.connect(postgres.url, password=postgres.password, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE lake_{unique}".encode())
    url, _, _ = postgres.url.rpartition("/")
    estate = {
        "name": "test",
        "organisation": {"team": {"title": "Team"}},
        "sites": {
            "idc": {
                "kind": "private",
                "region": "here",
                "holds": "confidential",
                "objects": {
                    "url": object_store.url,
                    "access_key": "secret:STORE_ACCESS",
                    "secret_key": "secret:STORE_SECRET",
                },
                "databases": {
                    "catalog": {"url": f"{url}/lake_{unique}", "password": "secret:DB_PASSWORD"},
                    "business": {"url": postgres.url, "password": "secret:DB_PASSWORD"},
                },
            }
        },
        "lake": {"site": "idc", "bucket": f"lake-{unique}", "catalog": {"site": "idc", "database": "catalog"}},
        "sources": {},
        "tables": {},
    }
    path = tmp_path / "estate.yaml"
    path.write_text(yaml.safe_dump(estate, sort_keys=False), encoding="utf-8")
    return path
