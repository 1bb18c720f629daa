"""A small real JSON API whose faults a test chooses."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, dict[str, str], bytes]
Fault = Callable[[int, dict[str, str]], Answer | None]


class JsonApi:
    """Serves `rows` as `{"items": [...]}` by `page` and `size`; `fault` may answer a request instead.

    A fault is called with the number of the request and its query.
    """

    def __init__(self, rows: list[dict[str, Any]], size: int = 100, fault: Fault | None = None) -> None:
        self.rows, self.size, self.fault = rows, size, fault
        self.requests: list[dict[str, str]] = []
        self.tokens: list[str | None] = []

    def __enter__(self) -> Self:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = {key: value[0] for key, value in parse_qs(urlsplit(self.path).query).items()}
                api.requests.append(query)
                api.tokens.append(self.headers.get("Authorization"))
                status, headers, body = api.answer(len(api.requests), query)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Address of the first page."""
        return f"http://127.0.0.1:{self._server.server_port}/rows"

    def answer(self, number: int, query: dict[str, str]) -> Answer:
        """Return the answer to a request."""
        if self.fault and (chosen := self.fault(number, query)):
            return chosen
        start = (int(query.get("page", 1)) - 1) * self.size
        return answer({"items": self.rows[start : start + self.size]})


def answer(page: Any, status: int = 200, **headers: str) -> Answer:
    """Return a JSON answer; `_` in the name of a header stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": "application/json", **named}, json.dumps(page).encode()
