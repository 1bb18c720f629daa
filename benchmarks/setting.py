"""What every entrant is told: where the source is, and where its result belongs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields

BUCKET = "bench"
"""Bucket of the peers' results; Causeway's lake has its own."""
TABLE = "lineitem"

_PREFIX = "CAUSEWAY_BENCH_"


@dataclass(frozen=True)
class Setting:
    """The servers of one run; handed to the entrants' processes as environment variables."""

    pg_host: str
    pg_port: str
    pg_user: str
    pg_database: str
    pg_password: str = field(repr=False)
    s3_host: str
    """host:port of the object store, which speaks without TLS."""
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)

    @property
    def pg_url(self) -> str:
        """URL of the database, password included."""
        user = f"{self.pg_user}:{self.pg_password}"
        return f"postgresql://{user}@{self.pg_host}:{self.pg_port}/{self.pg_database}"

    def environment(self) -> dict[str, str]:
        """Return the variables that `from_environment` reads."""
        return {variable(one.name): getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_environment(cls) -> Setting:
        """Read what the benchmark has set for this process."""
        return cls(**{one.name: os.environ[variable(one.name)] for one in fields(cls)})


def variable(name: str) -> str:
    """Return the environment variable of a field; an estate's secrets use these names too."""
    return _PREFIX + name.upper()


def result_prefix() -> str:
    """Return the URL below which this process leaves its result."""
    return os.environ[variable("result")]
