"""The API of a partner: a folder of JSON lists, each served as a paginated collection.

`GET /<name>?page=1&size=100` answers `{"items": […], "page": 1, "pages": 34}` from `<name>.json`.
"""

from __future__ import annotations

import argparse
import json
import re
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_LARGEST_PAGE = 1000
_NAME = re.compile(r"/([a-z][a-z0-9_-]*)")


class Partner(BaseHTTPRequestHandler):
    """Answers GET; every request reads its list again, so that new data needs no restart."""

    protocol_version = "HTTP/1.1"

    def __init__(self, folder: Path, *arguments: Any) -> None:
        self._folder = folder
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Answer a page, or `{"status": "ok"}` at /health."""
        parts = urlsplit(self.path)
        if parts.path == "/health":
            self._answer(200, {"status": "ok"})
            return
        name = _NAME.fullmatch(parts.path)
        file = self._folder / f"{name.group(1)}.json" if name else None
        if file is None or not file.is_file():
            self._answer(404, {"error": f"no collection at {parts.path}"})
            return
        try:
            page, size = _paging(parse_qs(parts.query))
        except ValueError as error:
            self._answer(400, {"error": str(error)})
            return
        items = json.loads(file.read_text(encoding="utf-8"))
        chosen = items[(page - 1) * size : page * size]
        self._answer(200, {"items": chosen, "page": page, "pages": -(-len(items) // size)})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing about requests that went well; errors are in the answers."""

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _paging(query: dict[str, list[str]]) -> tuple[int, int]:
    page, size = (int(query.get(name, [default])[0]) for name, default in (("page", "1"), ("size", "100")))
    if page < 1 or not 1 <= size <= _LARGEST_PAGE:
        raise ValueError(f"page starts at 1 and size is 1 to {_LARGEST_PAGE}")
    return page, size


def main() -> None:
    """Serve a folder on loopback until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    asked = parser.parse_args()
    with ThreadingHTTPServer(("127.0.0.1", asked.port), partial(Partner, asked.folder)) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
