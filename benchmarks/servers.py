"""The servers of a benchmark, on loopback, stopped by their own process ids when the context ends."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers import Running, free_ports, postgres_binaries, seaweedfs

__all__ = ["Running", "postgresql", "prefect", "psql", "seaweedfs"]

_READY_SECONDS = 120
_USER = "business"
_ROOT = Path(__file__).resolve().parents[1]
# PostgreSQL refuses to run as root; the capability lets it reach a folder that only root may enter.
_UNPRIVILEGED = (
    "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
    "--inh-caps=+dac_override", "--ambient-caps=+dac_override",
)  # fmt: skip
_POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "fsync": "off",
}


def psql() -> Path:
    """Return PostgreSQL's own client."""
    return _binaries() / "psql"


@contextmanager
def postgresql(folder: Path) -> Iterator[Running]:
    """Run a PostgreSQL with a database `business`; a data folder that is there already is used again."""
    data, password_file, port = folder / "pgdata", folder / "password", str(free_ports(1)[0])
    prefix = _UNPRIVILEGED if os.geteuid() == 0 else ()
    if not password_file.exists():
        _initialise(prefix, data, password_file)
    password = password_file.read_text()
    settings = [part for key, value in _POSTGRES_SETTINGS.items() for part in ("-c", f"{key}={value}")]
    command = [*prefix, str(_binaries() / "postgres"), "-D", str(data), "-p", port, *settings]
    client = ["-h", "127.0.0.1", "-p", port, "-U", _USER]
    environment = {**os.environ, "PGPASSWORD": password}
    # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for the clients.
    with _process(command, folder / "postgres.out", environment, signal.SIGINT) as server:
        _wait_for(server, lambda: _succeeds([str(_binaries() / "pg_isready"), "-q", *client]))
        query = "SELECT 1 / count(*) FROM pg_database WHERE datname = 'business'"
        if not _succeeds([str(psql()), *client, "-d", "postgres", "-qc", query], environment):
            subprocess.run([_binaries() / "createdb", *client, _USER], env=environment, check=True)
        yield Running(server.pid, f"postgresql://{_USER}@127.0.0.1:{port}/{_USER}", _USER, password)


@contextmanager
def prefect(folder: Path) -> Iterator[Running]:
    """Run a Prefect server on SQLite; its URL is that of the API."""
    port = str(free_ports(1)[0])
    folder.mkdir(parents=True, exist_ok=True)
    # What `prefect server start` comes down to, in one process instead of two.
    command = [
        sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app",
        "--host", "127.0.0.1", "--port", port, "--timeout-keep-alive", "5",
    ]  # fmt: skip
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
        "PYTHONPATH": str(_ROOT),
        "DO_NOT_TRACK": "1",
        "PREFECT__SERVER_FINAL": "1",
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/prefect.db",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder / "ui"),
    }
    url = f"http://127.0.0.1:{port}/api"
    with _process(command, folder / "prefect.out", environment) as server:
        _wait_for(server, lambda: _answers(f"{url}/health"))
        yield Running(server.pid, url, "", "")


def _initialise(prefix: Sequence[str], data: Path, password_file: Path) -> None:
    """Make the cluster; the password file is left last, so that a killed attempt is started afresh."""
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True, mode=0o700)
    if prefix:
        shutil.chown(data, "nobody", "nogroup")
    draft = password_file.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_hex(16))
    subprocess.run(
        [
            *prefix, str(_binaries() / "initdb"), "-D", str(data), "-U", _USER, "-A", "scram-sha-256",
            "--pwfile", str(draft), "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions",
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    draft.rename(password_file)


def _binaries() -> Path:
    found = postgres_binaries()
    if found is None:
        raise SystemExit("benchmarks need PostgreSQL: install causeway with its extra: causeway[embedded]")
    return found


@contextmanager
def _process(
    command: Sequence[str],
    output: Path,
    environment: dict[str, str],
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a session of its own, so that Ctrl-C reaches only the benchmark, which stops it."""
    with output.open("wb") as sink:
        server = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        yield server
    finally:
        server.send_signal(stop)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)


def _wait_for(server: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    end = time.monotonic() + _READY_SECONDS
    while not ready():
        if server.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the server did not become ready: {server.args!r}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def _succeeds(command: Sequence[str], environment: dict[str, str] | None = None) -> bool:
    return subprocess.run(command, capture_output=True, check=False, env=environment).returncode == 0
