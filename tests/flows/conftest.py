"""Fixtures of flow tests: one Prefect server for the session, and an estate that a test adds to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.estates import Declared
from tests.flows.server import Prefect, prefect_server


@pytest.fixture(scope="session")
def prefect() -> Iterator[Prefect]:
    """A Prefect server that the flows of this process use."""
    with prefect_server() as running:
        yield running


@pytest.fixture
def declared(estate_file: Path, prefect: Prefect) -> Declared:
    """An estate with an empty lake; tables and sources are added by the test."""
    return Declared(estate_file)
