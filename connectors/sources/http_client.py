"""Fetches one JSON page with GET, and tries again where that may help."""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import httpx

from connectors.errors import (
    AccessDeniedError,
    BadDataError,
    CausewayError,
    FixableError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)

_TRIES = 5
_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 60.0
_LARGEST_PAGE_BYTES = 64 * 2**20
_TIMEOUT = httpx.Timeout(30, connect=10)


class HttpClient:
    """Reads pages of one API; the token goes to that API's own origin only, as redirects are not followed."""

    def __init__(self, headers: dict[str, str], token: str | None, pause_seconds: float) -> None:
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(
            headers={"Accept": "application/json", "User-Agent": "causeway", **headers, **authorization},
            timeout=_TIMEOUT, follow_redirects=False,
        )  # fmt: skip
        self._pause_seconds, self._next_request = pause_seconds, 0.0

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, url: httpx.URL, where: str) -> Any:
        """Return the parsed page; decimals as Decimal, so that nothing is lost before it is typed.

        429, 5xx and broken connections are tried five times in all. Raises ThrottledError or UnavailableError
        then, AccessDeniedError, NotFoundError, BadDataError at once.
        """
        for left in reversed(range(_TRIES)):
            self._wait_for_turn()
            try:
                return _parsed(self._fetch(url, where), where)
            except (ThrottledError, UnavailableError) as error:
                if not left:
                    raise
                wait = getattr(error.__cause__, "retry_after", None)
            time.sleep(_delay(_TRIES - 1 - left, wait))
        raise AssertionError("unreachable")

    def _wait_for_turn(self) -> None:
        ahead = self._next_request - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        self._next_request = time.monotonic() + self._pause_seconds

    def _fetch(self, url: httpx.URL, where: str) -> bytes:
        try:
            with self._client.stream("GET", url) as response:
                if response.status_code != 200:
                    _refuse(response, where)
                return _body(response, where)
        except httpx.TransportError as error:
            raise UnavailableError(
                "http", "read", where, f"no whole answer: {str(error) or type(error).__name__}",
                "Check that the API is running and reachable.",
            ) from error  # fmt: skip


class _RefusalError(Exception):
    """Carries how long the server asks to wait, for the error that it causes."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"HTTP status {status}")
        self.retry_after = retry_after


def _refuse(response: httpx.Response, where: str) -> NoReturn:
    status = response.status_code
    refused = _RefusalError(status, _retry_after(response))
    kinds: dict[int, tuple[type[CausewayError], str]] = {
        401: (AccessDeniedError, "Check the source's token in the estate."),
        403: (AccessDeniedError, "Check what the source's token may read."),
        404: (NotFoundError, "Correct the source's url in the estate."),
        429: (ThrottledError, "Lower the source's requests_per_second."),
    }
    default: tuple[type[CausewayError], str] = (FixableError, "Correct the source's url in the estate.")
    if status >= 500:
        default = (UnavailableError, "Check the API.")
    kind, next_step = kinds.get(status, default)
    moved = f" to {response.headers['location']}" if "location" in response.headers else ""
    raise kind("http", "read", where, f"HTTP status {status}{moved}", next_step) from refused


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that the header asks for, given as a number or as a date (RFC 9110, 10.2.3)."""
    text = response.headers.get("retry-after", "")
    if text.isdigit():
        return float(text)
    try:
        wait: timedelta = parsedate_to_datetime(text) - datetime.now(UTC)
        return wait.total_seconds()
    except (TypeError, ValueError):
        return None


def _delay(tries: int, asked: float | None) -> float:
    backoff = _FIRST_DELAY_SECONDS * float(2**tries) * random.uniform(0.5, 1.0)
    return min(max(asked or 0.0, backoff), _LONGEST_DELAY_SECONDS)


def _body(response: httpx.Response, where: str) -> bytes:
    parts, size = [], 0
    for part in response.iter_bytes():
        size += len(part)
        if size > _LARGEST_PAGE_BYTES:
            raise BadDataError(
                "http", "read", where, f"the page is larger than {_LARGEST_PAGE_BYTES:,} bytes",
                "Ask for smaller pages: set page_size and size_parameter.",
            )  # fmt: skip
        parts.append(part)
    return b"".join(parts)


def _parsed(body: bytes, where: str) -> Any:
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = f"byte {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise BadDataError(
            "http", "read", where, f"the page is not JSON ({reason})", "Check the source's url."
        ) from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
