"""Whether a server answers: each probe returns None when it does, else what it answered instead."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from pathlib import Path

Probe = Callable[[float], str | None]
"""Takes the seconds it may wait."""


def http_ok(url: str, accept: Callable[[bytes], bool] = lambda _: True) -> Probe:
    """Probe for status 200 with an acceptable body; proxies of the environment are not used."""
    host, _, path = url.removeprefix("http://").partition("/")

    def probe(seconds: float) -> str | None:
        connection = http.client.HTTPConnection(host, timeout=seconds)
        try:
            connection.request("GET", f"/{path}")
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            return f"GET {url}: {error or type(error).__name__}"
        finally:
            connection.close()
        if response.status == 200 and accept(body):
            return None
        return f"GET {url}: status {response.status}, not ready"

    return probe


def postgres_answers(port: int, database: str, password: str) -> Probe:
    """Probe for a query answered to the role that has the database's name."""

    def probe(seconds: float) -> str | None:
        import psycopg

        try:
            with psycopg.connect(
                host="127.0.0.1", port=port, dbname=database, user=database, password=password,
                connect_timeout=max(2, round(seconds)),  # libpq takes no less than 2
            ) as connection:  # fmt: skip
                connection.execute("select 1")
        except psycopg.Error as error:
            return f"connect to {database} on port {port}: {str(error).strip()}"
        return None

    return probe


def pid_written(path: Path, pid: int | None) -> Probe:
    """Probe for a file that holds the pid of the very process that is asked about."""

    def probe(_: float) -> str | None:
        try:
            found = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return f"{path} does not exist yet"
        return None if found == str(pid) else f"{path} names pid {found or 'none'}, not {pid}"

    return probe
