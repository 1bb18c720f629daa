"""A paginated JSON API, read with GET."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa

from connectors.errors import BadDataError, CausewayError, PolicyError
from connectors.estate import Estate, HttpSource
from connectors.sources import Slice
from connectors.sources.http_client import HttpClient
from connectors.sources.http_rows import RowTyper
from connectors.sources.selecting import slice_condition, unique_name

_MISSING = object()


class HttpPages:
    """Reads page after page while DuckDB pulls; one page is in memory at a time.

    By page number or offset it ends at the first page without rows, as an API may give fewer rows than asked
    for. A page that came before, whatever its address, stops the load.
    """

    def __init__(
        self,
        estate: Estate,
        name: str,
        declared: HttpSource,
        types: Mapping[str, str],
        folder: Path,
    ) -> None:
        self._declared, self._types = declared, types
        self._where = f"source '{name}' ({declared.url})"
        self._failure: CausewayError | None = None

    def describe(self) -> str:
        """Say where the rows come from."""
        return self._where

    def estimate(self) -> int | None:
        """Return None: an API does not tell."""
        return None

    @contextmanager
    def scan(self, connection: duckdb.DuckDBPyConnection, part: Slice) -> Iterator[str]:
        """Give the SELECT; each run of it reads the API from its first page again."""
        declared, self._failure = self._declared, None
        token = declared.token.reveal() if declared.token else None
        pause = 1 / declared.requests_per_second if declared.requests_per_second else 0.0
        with closing(HttpClient(declared.headers, token, pause)) as client:
            first = next(self._pages(client))
            with closing(RowTyper(self._types, first, self._where)) as typer:
                relation = unique_name("pages")
                connection.register(relation, _Stream(typer.schema, lambda: self._batches(client, typer)))
                try:
                    cut = slice_condition(part, typer.kinds, cast="CAST({} AS {})", where=self._where)
                    yield f"SELECT * FROM {relation} WHERE {cut}"
                finally:
                    connection.unregister(relation)

    def translate(self, error: Exception) -> Exception:
        """Return what stopped the reading of pages, which DuckDB reports as a text only."""
        return self._failure or error

    def _batches(self, client: HttpClient, typer: RowTyper) -> Iterator[pa.RecordBatch]:
        try:
            for number, items in enumerate(self._pages(client), 1):
                yield from typer.batches(items, number)
        except CausewayError as error:
            self._failure = error
            raise

    def _pages(self, client: HttpClient) -> Iterator[list[Any]]:
        """Yield the items of every page; the first page is yielded even when it is empty."""
        declared, seen, offset, number = self._declared, set[bytes](), 0, 0
        url: httpx.URL | None = self._address(declared.first_page if declared.pagination == "page" else 0)
        while url is not None:
            number += 1
            where = f"{self._where}, page {number}"
            page = client.get(url, where)
            items = self._items(page, where)
            self._require_new(items, seen, where)
            if items or number == 1:
                yield items
            offset += len(items)
            if declared.pagination == "next":
                url = self._linked(page, url, where)
            else:
                url = self._counted(number, offset) if items else None

    def _address(self, position: int | str | None) -> httpx.URL:
        declared = self._declared
        url = httpx.URL(declared.url)
        if declared.size_parameter:
            url = url.copy_set_param(declared.size_parameter, declared.page_size)
        by_position = declared.pagination in ("page", "offset") or isinstance(position, str)
        return url.copy_set_param(declared.page_parameter, position) if by_position else url

    def _counted(self, pages: int, rows: int) -> httpx.URL | None:
        """Return the address of the page after so many pages and rows."""
        if self._declared.pagination == "none":
            return None
        by_page = self._declared.pagination == "page"
        return self._address(self._declared.first_page + pages if by_page else rows)

    def _linked(self, page: Any, url: httpx.URL, where: str) -> httpx.URL | None:
        """Return the address that a page's link or token leads to, never one at another origin."""
        link = _at(page, self._declared.next_path)
        if link is _MISSING or link is None or link == "":
            return None
        text = str(link)
        is_address = "://" in text or text.startswith(("/", "?"))
        following = url.join(text) if is_address else self._address(text)
        if _origin(following) != _origin(url):
            raise PolicyError(
                "http", "follow", where, f"the next page is at another origin, {following.host}",
                "Correct the API; the token is sent to the source's own origin only.",
            )  # fmt: skip
        if following == url:
            raise self._repeated(where, f"its link '{self._declared.next_path}' leads to itself")
        return following

    def _items(self, page: Any, where: str) -> list[Any]:
        items = _at(page, self._declared.items)
        if not isinstance(items, list):
            keys = ", ".join(page) if isinstance(page, dict) else type(page).__name__
            path = self._declared.items or "the page itself"
            raise BadDataError(
                "http", "read", where, f"there is no list at '{path}'; the page has: {keys}",
                "Correct the source's items in the estate.",
            )  # fmt: skip
        return items

    def _require_new(self, items: list[Any], seen: set[bytes], where: str) -> None:
        if not items:
            return
        text = json.dumps(items, sort_keys=True, default=str)
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in seen:
            raise self._repeated(where, "it has the rows of an earlier page")
        seen.add(digest)

    def _repeated(self, where: str, cause: str) -> BadDataError:
        declared = self._declared
        parameter = declared.page_parameter
        return BadDataError(
            "http", "read", where, f"{cause}; the API may ignore the parameter '{parameter}'",
            "Correct pagination and page_parameter of the source in the estate, or the API.",
        )  # fmt: skip


class _Stream:
    """Arrow batches that DuckDB can start to read more than once."""

    def __init__(self, schema: pa.Schema, batches: Any) -> None:
        self._schema, self._batches = schema, batches

    def __arrow_c_schema__(self) -> object:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        reader = pa.RecordBatchReader.from_batches(self._schema, self._batches())
        return reader.__arrow_c_stream__(requested_schema)


def _at(page: Any, path: str) -> Any:
    """Return what lies at a key path, or `_MISSING`."""
    for key in path.split(".") if path else []:
        if not isinstance(page, dict) or key not in page:
            return _MISSING
        page = page[key]
    return page


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
