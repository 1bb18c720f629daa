"""DuckDB connections that never reach for the internet, and the extensions installed with Causeway."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import duckdb

from connectors.errors import CapabilityError
from connectors.estate import ObjectStore


def connect(
    memory_limit: int | None = None, threads: int | None = None, temp_directory: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """Return a new in-memory database in UTC that loads no extension and keeps no secret by itself.

    `memory_limit` is in bytes. Without `temp_directory` nothing is ever spilled to disk: what does not fit
    into memory fails.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "allow_persistent_secrets": False,
        "temp_directory": str(temp_directory) if temp_directory else "",
    }
    if memory_limit is not None:
        config["memory_limit"] = f"{memory_limit}B"
    if threads is not None:
        config["threads"] = threads
    connection = duckdb.connect(":memory:", config=config)
    # Texts without an offset would otherwise mean another time on a machine with another clock.
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def load_extension(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load an extension (a repeated call is harmless): the packaged file, else one that DuckDB has installed.

    Raises CapabilityError when there is neither. It takes 0.1 to 0.6 s, so reuse connections.
    """
    if _is_loaded(connection, name):
        return
    file = extension_file(name)
    package = f"duckdb-extension-{name.replace('_', '-')}"
    try:
        connection.execute(f"LOAD {quote_literal(str(file)) if file else quote_identifier(name)}")
    except duckdb.Error as error:
        raise CapabilityError(
            "duckdb", "load extension", name,
            f"{str(file) if file else 'no package holds it'}: {_first_sentence(error)}",
            f"Install {package}=={duckdb.__version__}, or run INSTALL {name} in DuckDB.",
        ) from error  # fmt: skip


def extension_file(name: str) -> Path | None:
    """Return the file of the package `duckdb_extension_<name>` for this DuckDB, without importing it."""
    spec = find_spec(f"duckdb_extension_{name}")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "extensions", f"v{duckdb.__version__}", f"{name}.duckdb_extension")
        if path.is_file():
            return path
    return None


def in_transaction(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether a transaction is open: a statement that fails in it, such as DETACH, would undo all of it.

    Time stands still in a transaction. Not BEGIN, which in a transaction fails and so undoes it without a
    word; not `txid_current()`, which is fatal where a DuckLake is the default database.
    """
    try:
        first, second = (connection.execute("SELECT epoch_us(now())").fetchone() for _ in range(2))
    except duckdb.TransactionException:  # open, and failed already
        return True
    return first == second


def quote_identifier(name: str) -> str:
    """Return a name as SQL, whatever it contains."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Return a text as a SQL string, whatever it contains."""
    return "'" + text.replace("'", "''") + "'"


def _is_loaded(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    found = connection.execute(
        "SELECT count(*) FROM duckdb_extensions() WHERE loaded AND extension_name = ?", [name]
    ).fetchone()
    return bool(found and found[0])


def _first_sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def s3_secret(store: ObjectStore, scope: str) -> str:
    """Return the fields of a secret for what lies below the URL `scope` (s3:// or s3a://) of an object store."""
    scheme, _, host = store.url.rstrip("/").partition("://")
    fields = {
        "KEY_ID": quote_literal(store.access_key.reveal()),
        "SECRET": quote_literal(store.secret_key.reveal()),
        "ENDPOINT": quote_literal(host),
        "REGION": quote_literal(store.region),
        "URL_STYLE": "'path'",
        "USE_SSL": "true" if scheme == "s3+https" else "false",
        "SCOPE": quote_literal(scope),
    }
    return ", ".join(["TYPE s3", *(f"{name} {value}" for name, value in fields.items())])
