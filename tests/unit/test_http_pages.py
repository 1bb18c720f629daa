"""Reading a paginated API that fails, repeats itself, changes its mind or lies: against a real HTTP server."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from connectors.duck import connect
from connectors.errors import (
    AccessDeniedError,
    BadDataError,
    FixableError,
    NotFoundError,
    PolicyError,
    ThrottledError,
    UnavailableError,
)
from connectors.estate import Estate
from connectors.sources import Slice, source
from tests.json_api import Answer, Fault, JsonApi, answer

ROWS = [{"id": number, "name": f"n{number}"} for number in range(1, 251)]


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.sources.http_client._FIRST_DELAY_SECONDS", 0.01)


def read(
    api: JsonApi, types: dict[str, str] | None = None, part: Slice | None = None, **declared: Any
) -> list[tuple[Any, ...]]:
    settings = {"kind": "http", "url": api.url, "items": "items", "pagination": "page", **declared}
    estate = Estate.model_validate({
        "name": "test",
        "organisation": {"team": {"title": "Team"}},
        "sites": {"here": {"kind": "private", "region": "r", "holds": "restricted"}},
        "lake": {"site": "here", "bucket": "b", "catalog": {"site": "here", "database": "d"}},
        "sources": {"x": settings},
    })  # fmt: skip
    made = source(estate, "x", types or {}, Path())
    connection = connect(threads=2)
    with made.scan(connection, part or Slice()) as select:
        try:
            return connection.execute(select).fetchall()
        except duckdb.Error as error:
            raise made.translate(error) from error


def pages(*found: Sequence[object], **more: Any) -> Fault:
    """Serve these pages by number, then empty ones."""

    def serve(number: int, query: dict[str, str]) -> Answer:
        page = int(query.get("page", 1))
        return answer({"items": found[page - 1] if page <= len(found) else [], **more})

    return serve


def failing(times: int, status: int, **headers: str) -> Fault:
    """Refuse the second and following requests so many times."""
    return lambda number, query: answer({}, status, **headers) if 2 <= number < 2 + times else None


def test_all_pages_are_read_in_order() -> None:
    with JsonApi(ROWS) as api:
        rows = read(api, page_size=100, size_parameter="size")
    assert rows == [(row["id"], row["name"]) for row in ROWS]
    assert {query["size"] for query in api.requests} == {"100"}


def test_a_server_that_gives_smaller_pages_than_asked_loses_nothing() -> None:
    with JsonApi([], fault=pages(ROWS[:7], ROWS[7:100], ROWS[100:])) as api:
        assert len(read(api, page_size=1000, size_parameter="size")) == 250


def test_offsets_count_the_rows_that_came() -> None:
    def serve(number: int, query: dict[str, str]) -> Answer:
        start = int(query["skip"])
        return answer(ROWS[start : start + 33 + number])

    with JsonApi([], fault=serve) as api:
        rows = read(api, items="", pagination="offset", page_parameter="skip")
    assert [row[0] for row in rows] == [row["id"] for row in ROWS]


@pytest.mark.parametrize("style", ["absolute", "path", "query", "token"])
def test_links_and_tokens_are_followed(style: str) -> None:
    def serve(number: int, query: dict[str, str]) -> Answer:
        start = int(query.get("page", 0))
        following = start + 100 if start + 100 < len(ROWS) else None
        links = {"absolute": f"{api.url}?page={following}", "path": f"/rows?page={following}",
                 "query": f"?page={following}", "token": str(following)}  # fmt: skip
        page = {"data": {"rows": ROWS[start : start + 100]}, "meta": {"next": following and links[style]}}
        return answer(page)

    with JsonApi([], fault=serve) as api:
        rows = read(api, items="data.rows", pagination="next", next_path="meta.next")
    assert len(rows) == 250


def test_without_pagination_one_page_is_read() -> None:
    with JsonApi(ROWS, size=1000) as api:
        assert len(read(api, pagination="none")) == 250


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_passing_faults_are_outlived(status: int) -> None:
    with JsonApi(ROWS, fault=failing(3, status)) as api:
        assert len(read(api)) == 250


def test_a_torn_answer_is_asked_for_again() -> None:
    whole = json.dumps({"items": ROWS[:100]}).encode()

    def serve(number: int, query: dict[str, str]) -> Answer | None:
        return (200, {"Content-Length": str(len(whole)), "Connection": "close"}, whole[:500]) if number == 3 else None

    with JsonApi(ROWS, fault=serve) as api:
        assert len(read(api)) == 250


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, UnavailableError),
        (429, ThrottledError),
        (401, AccessDeniedError),
        (403, AccessDeniedError),
        (404, NotFoundError),
        (418, FixableError),
    ],
)
def test_lasting_faults_are_errors_that_name_page_and_status(status: int, kind: type[Exception]) -> None:
    with (
        JsonApi(ROWS, fault=failing(1000, status)) as api,
        pytest.raises(kind, match=f"page 1: HTTP status {status}|page 2: HTTP status {status}"),
    ):
        read(api)
    assert len(api.requests) == (6 if status in (429, 500) else 2)


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_obeyed(as_date: bool) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2.5), usegmt=True) if as_date else "1"
    with JsonApi(ROWS[:10], fault=failing(1, 429, Retry_After=later)) as api:
        begun = time.monotonic()
        read(api)
    assert time.monotonic() - begun >= 0.9


def test_never_faster_than_allowed() -> None:
    with JsonApi(ROWS) as api:
        begun = time.monotonic()
        read(api, requests_per_second=20)
    assert time.monotonic() - begun >= 0.05 * (len(api.requests) - 1)


def test_a_repeated_page_is_an_error_that_names_the_parameter() -> None:
    with (
        JsonApi([], fault=lambda number, query: answer({"items": ROWS[:100], "at": number})) as api,
        pytest.raises(BadDataError, match=r"page 2: it has the rows of an earlier page.*'page'"),
    ):
        read(api)
    with (
        JsonApi([], fault=pages(ROWS[:100], ROWS[100:], ROWS[:100])) as api,
        pytest.raises(BadDataError, match="page 3: it has the rows of an earlier page"),
    ):
        read(api)


def test_a_link_that_leads_to_itself_is_an_error() -> None:
    with (
        JsonApi([], fault=lambda number, query: answer({"items": [{"id": number}], "next": "/rows"})) as api,
        pytest.raises(BadDataError, match="leads to itself"),
    ):
        read(api, pagination="next")


def test_the_token_goes_to_the_source_and_never_to_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "a-very-secret-token")
    with JsonApi(ROWS) as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        with JsonApi([], fault=lambda number, query: answer({"items": ROWS[:5], "next": elsewhere})) as api:
            with pytest.raises(PolicyError, match="another origin, localhost"):
                read(api, pagination="next", token="secret:API_TOKEN")
            assert set(api.tokens) == {"Bearer a-very-secret-token"}
        moved = failing(1000, 302, Location=elsewhere)
        with JsonApi(ROWS, fault=moved) as api, pytest.raises(FixableError, match="HTTP status 302 to"):
            read(api, token="secret:API_TOKEN")
    assert other.requests == []


def test_a_denied_token_is_not_shown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("API_TOKEN", "a-very-secret-token")
    caplog.set_level(logging.DEBUG)
    with (
        JsonApi(ROWS, fault=lambda number, query: answer({"token": "x"}, 401)) as api,
        pytest.raises(AccessDeniedError) as caught,
    ):
        read(api, token="secret:API_TOKEN")
    assert "a-very-secret-token" not in f"{caught.value!r} {caught.value} {caplog.text}"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"<html>", "page 1: the page is not JSON"),
        (b'{"items": [{"a": NaN}]}', "not JSON"),
        (b'{"rows": []}', "there is no list at 'items'; the page has: rows"),
        (b'{"items": {"a": 1}}', "there is no list at 'items'"),
        (b'{"items": [1]}', "page 1, row 1: it is 1, not an object"),
        (b'{"items": []}', "no columns are known"),
    ],
)
def test_a_page_of_another_shape_is_refused(body: bytes, expected: str) -> None:
    with JsonApi([], fault=lambda number, query: (200, {}, body)) as api, pytest.raises(BadDataError, match=expected):
        read(api)


def test_a_page_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.sources.http_client._LARGEST_PAGE_BYTES", 1000)
    with JsonApi(ROWS) as api, pytest.raises(BadDataError, match="page 1: the page is larger than 1,000 bytes"):
        read(api)


def test_types_come_from_the_first_page_and_later_pages_must_fit() -> None:
    first = [{"i": 1, "f": 1.5, "s": "x", "b": True, "n": None, "j": {"a": 1}, "big": 2**70, "mixed": 1},
             {"i": 2, "f": 2, "mixed": 1.5}]  # fmt: skip
    with JsonApi([], fault=pages(first)) as api:
        rows = read(api)
    assert rows == [
        (1, 1.5, "x", True, None, '{"a": 1}', 2**70, 1.0),
        (2, 2.0, None, None, None, None, None, 1.5),
    ]


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ({"i": "abc"}, "page 2, row 2: column 'i': the value 'abc' is not BIGINT"),
        ({"i": 1.5}, "column 'i': the value 1.5 is not BIGINT"),
        ({"i": 2**63}, "column 'i': the value '9223372036854775808' is not BIGINT"),
        ({"i": True}, "column 'i': the value True is not BIGINT"),
        ({"s": 5}, "column 's': the value 5 is not VARCHAR"),
        ({"s": {"a": 1}}, "is not VARCHAR"),
        ({"new": 1}, "page 2, row 2: the key 'new' was not in the first page"),
    ],
)
def test_a_later_value_that_does_not_fit_is_named(later: dict[str, Any], expected: str) -> None:
    with (
        JsonApi([], fault=pages([{"i": 1, "s": "x"}], [{"i": 2, "s": "y"}, later])) as api,
        pytest.raises(BadDataError, match=expected),
    ):
        read(api)


def test_a_first_page_that_mixes_types_asks_for_a_declaration() -> None:
    rows = [{"a": 1}, {"a": "x"}]
    with JsonApi([], fault=pages(rows)) as api:
        with pytest.raises(BadDataError, match=r"column 'a' mixes int, str.*Declare"):
            read(api)
        assert read(api, {"a": "VARCHAR"}) == [("1",), ("x",)]


def test_declared_types_are_exact_and_what_does_not_fit_is_named() -> None:
    types = {"d": "DECIMAL(38,20)", "t": "TIMESTAMPTZ", "later": "INTEGER"}
    exact = "123456789.12345678901234567890"
    good = b'{"items": [{"d": %s, "t": "2024-01-01T00:00:00Z"}]}' % exact.encode()
    with JsonApi([], fault=lambda number, query: (200, {}, good) if number <= 2 else answer({"items": []})) as api:
        assert read(api, types) == [(Decimal(exact), datetime(2024, 1, 1, tzinfo=UTC), None)]
    with (
        JsonApi([], fault=pages([{"d": 1}], [{"d": 1, "t": "2024-01-01"}, {"d": 1, "t": "soon"}])) as api,
        pytest.raises(BadDataError, match="page 2, row 2: column 't': the value 'soon' is not TIMESTAMPTZ"),
    ):
        read(api, types)
    with JsonApi([], fault=pages([{"later": 1.5}])) as api, pytest.raises(BadDataError, match=r"1.5 is not INTEGER"):
        read(api, types)


def test_a_slice_is_cut_from_the_pages() -> None:
    with JsonApi(ROWS) as api:
        assert read(api, part=Slice("id", "99", "102")) == [(99, "n99"), (100, "n100"), (101, "n101")]


def test_nothing_listens_is_unavailable() -> None:
    with JsonApi(ROWS) as api:
        url = api.url
    with pytest.raises(UnavailableError, match="page 1: no whole answer"):
        read(api, url=url)


def test_one_page_at_a_time_is_in_memory() -> None:
    """The second page is asked for only after the first was taken."""

    def rows() -> Iterator[dict[str, Any]]:
        yield from ({"id": number, "pad": "x" * 100} for number in range(3000))

    with JsonApi(list(rows()), size=500) as api:
        settings = {"kind": "http", "url": api.url, "items": "items", "pagination": "page"}
        estate = Estate.model_validate({
            "name": "test",
            "organisation": {"team": {"title": "Team"}},
            "sites": {"here": {"kind": "private", "region": "r", "holds": "restricted"}},
            "lake": {"site": "here", "bucket": "b", "catalog": {"site": "here", "database": "d"}},
            "sources": {"x": settings},
        })  # fmt: skip
        with source(estate, "x", {}, Path()).scan(connect(threads=1), Slice()):
            assert len(api.requests) == 1
