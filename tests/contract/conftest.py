"""Fixtures of the contract suites: an estate of one site over the session's servers, and a source of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from connectors.databases import Database, database
from connectors.duck import connect
from connectors.estate import Endpoint, Estate, ObjectStore
from connectors.objects import Objects, objects
from connectors.secrets import SecretRef
from connectors.sources import Source, source
from tests.servers import Running

MakeSource = Callable[..., Source]


@pytest.fixture
def store(object_store: Running) -> ObjectStore:
    """The session's object store, as an estate describes it."""
    return ObjectStore(url=object_store.url, access_key=SecretRef("STORE_ACCESS"), secret_key=SecretRef("STORE_SECRET"))


@pytest.fixture
def endpoint(postgres: Running) -> Endpoint:
    """The session's database, as an estate describes it."""
    return Endpoint(url=postgres.url, password=SecretRef("DB_PASSWORD"))


@pytest.fixture
def stored(store: ObjectStore) -> Objects:
    """The driver of the session's object store."""
    return objects(store)


@pytest.fixture
def bucket(stored: Objects) -> str:
    """An empty bucket."""
    name = f"test-{secrets.token_hex(6)}"
    stored.ensure_bucket(name)
    return name


@pytest.fixture
def business(endpoint: Endpoint) -> Database:
    """The driver of the session's database."""
    return database(endpoint)


@pytest.fixture
def table(business: Database) -> Iterator[str]:
    """The name of a table that is dropped afterwards."""
    name = f"t_{secrets.token_hex(6)}"
    yield f"public.{name}"
    business.execute(f"DROP TABLE IF EXISTS public.{name} CASCADE")


def estate_of(declared: Mapping[str, Any], **site: Any) -> Estate:
    """Return an estate with one site `here` and one source `x`."""
    return Estate.model_validate({
        "name": "test",
        "organisation": {"team": {"title": "Team"}},
        "sites": {"here": {"kind": "private", "region": "r", "holds": "restricted", **site}},
        "lake": {"site": "here", "bucket": "lake", "catalog": {"site": "here", "database": "business"}},
        "sources": {"x": declared},
    })  # fmt: skip


@pytest.fixture
def make_source(store: ObjectStore, endpoint: Endpoint, tmp_path: Path) -> MakeSource:
    """Make the driver of a source at site `here`; files are looked for in `tmp_path`."""

    def make(types: Mapping[str, str] | None = None, **declared: Any) -> Source:
        estate = estate_of(declared, objects=store, databases={"business": endpoint})
        return source(estate, "x", types or {}, tmp_path)

    return make


@pytest.fixture
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB as a load has it."""
    connection = connect(memory_limit=192 * 2**20, threads=2)
    yield connection
    connection.close()
