"""Which loopback ports an installation uses, and who holds one that it cannot have."""

from __future__ import annotations

import json
import os
import random
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from connectors.errors import FixableError
from deployments.embedded.home import Home, write_private
from deployments.embedded.process import all_pids, command_name

GRPC_OFFSET = 10_000
# Ports and gRPC twins stay below 32768, where the kernel's outgoing connections begin.
_LOWEST, _HIGHEST = 20_000, 32_767 - GRPC_OFFSET
_ATTEMPTS = 400
_SOCKETS = Path("/tmp")  # noqa: S108 - SeaweedFS has this name built in

OBJECTS = ("", "_MASTER", "_VOLUME", "_FILER", "_ICEBERG", "_ADMIN")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "idc-objects": tuple(f"IDC_OBJECTS{part}_PORT" for part in OBJECTS),
    "cloud-objects": tuple(f"CLOUD_OBJECTS{part}_PORT" for part in OBJECTS),
    "idc-database": ("IDC_DATABASE_PORT",),
    "prefect": ("PREFECT_PORT",),
    "partner-api": ("PARTNER_API_PORT",),
}


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket of this machine."""

    address: str
    port: int
    inode: int


def load_ports(home: Home) -> dict[str, int]:
    """Return the recorded ports by name, none of them checked; empty if none are recorded."""
    try:
        found = json.loads(home.ports_file.read_text(encoding="utf-8"))
        return {str(name): int(port) for name, port in found.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise FixableError(
            "embedded estate", "read", str(home.ports_file), f"it is not a map of ports: {error}",
            "Run `causeway down`, delete the file, and run `causeway up`: new ports are chosen.",
        ) from error  # fmt: skip


def ensure_ports(home: Home, unused: Iterable[str]) -> tuple[dict[str, int], list[str]]:
    """Return all ports and a line for each group that had to move; records them if they changed.

    `unused` names the groups whose servers are down: those ports are checked, and chosen anew when
    somebody else took one. No server's data depends on its port.
    """
    recorded = load_ports(home)
    ports, moves = dict(recorded), []
    for group, names in GROUPS.items():
        known = [ports[name] for name in names if name in ports]
        complete = len(known) == len(names)
        obstacle = next(filter(None, map(_obstacle, known)), None) if group in unused else None
        if complete and obstacle is None:
            continue
        ports.update(zip(names, _free_block(len(names), set(ports.values())), strict=True))
        if obstacle:
            moves.append(f"{group:<14} moved to port {ports[names[0]]}: {obstacle}")
    if ports != recorded:
        write_private(home.ports_file, json.dumps(ports, indent=2) + "\n")
    return ports, moves


def _free_block(size: int, taken: set[int]) -> range:
    """Return `size` adjacent ports that are free, as are their gRPC twins.

    Random, so that installations that start at the same moment do not choose the same ones.
    """
    for _ in range(_ATTEMPTS):
        first = random.randrange(_LOWEST, _HIGHEST - size)
        block = range(first, first + size)
        if taken.isdisjoint(block) and not any(map(_obstacle, block)):
            return block
    raise FixableError("embedded estate", "choose", f"{size} free ports", f"none between {_LOWEST} and {_HIGHEST}")


def _obstacle(port: int) -> str | None:
    """Return why a server cannot listen on `port` and its gRPC twin, or None."""
    for number in (port, port + GRPC_OFFSET):
        if not _can_listen(number):
            return f"port {number} is taken by {holder(number)}"
        if path := _foreign_socket(number):
            return f"{path} belongs to another user"
    return None


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def _foreign_socket(port: int) -> Path | None:
    """SeaweedFS binds /tmp/seaweedfs-*-PORT.sock and dies of one that another user left there."""
    found = _SOCKETS.glob(f"seaweedfs-*-{port}.sock")
    mine = os.geteuid()
    return next((path for path in found if mine and path.lstat().st_uid != mine), None)


def remove_sockets(ports: Iterable[int]) -> None:
    """Remove the sockets that SeaweedFS leaves behind; one of another user would die of them."""
    for port in ports:
        for number in (port, port + GRPC_OFFSET):
            for path in _SOCKETS.glob(f"seaweedfs-*-{number}.sock"):
                with suppress(OSError):
                    path.unlink()


def holder(port: int) -> str:
    """Say in words which process listens on `port`, as far as this user may know."""
    inodes = {listener.inode for listener in listeners() if listener.port == port}
    for pid in all_pids():
        if inodes & set(socket_inodes(pid)):
            return f"{command_name(pid)} (pid {pid})"
    return "a process of another user" if inodes else "a socket that is about to close"


def listeners() -> Iterator[Listener]:
    """Yield the listening TCP sockets of this machine, IPv4 and IPv6."""
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net") / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if fields[3] == "0A":  # TCP_LISTEN
                address, port = fields[1].split(":")
                yield Listener(_address(address), int(port, 16), int(fields[9]))


def _address(text: str) -> str:
    """Decode the kernel's form: 32-bit words in host order, each written as hexadecimal digits."""
    words = (bytes.fromhex(word)[::-1] for word in re.findall(".{8}", text))
    packed = b"".join(words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def socket_inodes(pid: int) -> Iterator[int]:
    """Yield the sockets that a process holds; none if it has gone or is another user's."""
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return
    for descriptor in descriptors:
        with suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                yield int(target[8:-1])
