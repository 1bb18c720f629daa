"""Chooses the driver of a capability by the scheme of a URL."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from connectors.errors import CapabilityError

# A driver is `module:callable`; it is imported when it is first asked for, so that nobody pays for the others.
DRIVERS: Mapping[str, Mapping[str, str]] = {
    "objects": {
        "s3+http": "connectors.objects.s3:S3Objects",
        "s3+https": "connectors.objects.s3:S3Objects",
    },
    "database": {
        "postgresql": "connectors.databases.postgresql:PostgreSQL",
    },
    "changes": {
        "postgresql": "connectors.changes.postgresql:PostgreSQLChanges",
    },
    "source": {
        "database": "connectors.sources.database:DatabaseTable",
        "objects": "connectors.sources.files:ObjectFiles",
        "files": "connectors.sources.files:LocalFiles",
        "http": "connectors.sources.http:HttpPages",
    },
    "documents": {
        "objects": "connectors.sources.documents:BucketDocuments",
        "files": "connectors.sources.documents:FolderDocuments",
    },
}


def driver(capability: str, scheme: str) -> Any:
    """Return the class or function that drives `scheme`; raises CapabilityError with the choices."""
    choices = DRIVERS[capability]
    if scheme not in choices:
        raise CapabilityError(
            capability, "choose a driver for", scheme, "no driver has this scheme",
            f"Choose one of: {', '.join(sorted(choices))}.",
        )  # fmt: skip
    module, _, name = choices[scheme].partition(":")
    return getattr(import_module(module), name)


def scheme_of(url: str) -> str:
    """Return the scheme of a URL."""
    return url.partition("://")[0]
