"""Bad input through the whole flow: a clear error, a row in ops.loads, nothing visible, and no secret anywhere."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flows.ingest
from connectors.errors import (
    AccessDeniedError,
    BadDataError,
    CausewayError,
    EstateError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from connectors.sources import http_client
from flows.ingest import ingest
from tasks.ingest import steps
from tests.flows.estates import Declared
from tests.flows.server import Prefect
from tests.json_api import JsonApi, answer
from tests.servers import Running

pytestmark = pytest.mark.servers


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry as often as always, but at once."""
    monkeypatch.setattr(http_client, "_FIRST_DELAY_SECONDS", 0.01)
    hasty = steps.stage_batch.with_options(retry_delay_seconds=[0, 0, 0])
    monkeypatch.setattr(flows.ingest, "stage_batch", hasty)


class Refusal:
    """Loads `t`, which has to fail, and looks at everything that is left behind."""

    def __init__(self, declared: Declared, prefect: Prefect, secrets: list[str]) -> None:
        self.declared, self.prefect, self.secrets = declared, prefect, secrets

    def __call__(self, kind: type[CausewayError], *words: str, recorded: bool = True) -> str:
        with pytest.raises(CausewayError) as caught:
            ingest(str(self.declared), "t")
        assert type(caught.value) is kind
        text = str(caught.value)
        for word in words:
            assert word in text
        run = self.prefect.last_run()
        assert run["state"]["type"] == "FAILED"
        assert text in run["state"]["message"]
        self.require_no_secret(text, run)
        if recorded:
            load = self.declared.loads("t")[-1]
            assert load == ("failed", 0, text)
            assert self.declared.count("t") is None
        return text

    def require_no_secret(self, text: str, run: dict[str, Any]) -> None:
        logs = self.prefect.logs(run["id"])
        task_runs = self.prefect.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
        seen = [text, str(run), str(logs), str(task_runs), str(self.prefect.every_artifact())]
        for secret in self.secrets:
            assert not [one for one in seen if secret in one]


@pytest.fixture
def refused(declared: Declared, prefect: Prefect, postgres: Running, object_store: Running) -> Refusal:
    """What every test of bad input ends with."""
    return Refusal(declared, prefect, [postgres.password, object_store.password, object_store.username])


@pytest.fixture
def folder(declared: Declared) -> Path:
    """A folder beside the estate."""
    path = declared.path.parent / "in"
    path.mkdir()
    return path


def files(kind: str, **more: Any) -> dict[str, Any]:
    """Return a source of the files in the folder."""
    return {"kind": "files", "path": f"in/*.{kind}", "format": kind, **more}


def change_site(declared: Declared, part: str, name: str, key: str, value: str) -> None:
    """Change one value of a database or a store of the site."""
    sites = declared.content()["sites"]
    place = sites["idc"][part]
    (place[name] if name else place)[key] = value
    declared.change(sites=sites)


def test_a_wrong_password_of_the_source_is_named_and_not_shown(
    declared: Declared, refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "wr0ng-pass-word")
    refused.secrets.append("wr0ng-pass-word")
    change_site(declared, "databases", "business", "password", "secret:WRONG")
    declared.add("t", {"kind": "database", "site": "idc", "database": "business", "table": "public.t"})
    refused(AccessDeniedError, "postgresql", "password")


def test_a_wrong_password_of_the_catalog_is_named_and_not_shown(
    declared: Declared, refused: Refusal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "wr0ng-pass-word")
    refused.secrets.append("wr0ng-pass-word")
    (folder / "a.csv").write_text("id\n1\n")
    declared.add("t", files("csv"))
    change_site(declared, "databases", "catalog", "password", "secret:WRONG")
    refused(AccessDeniedError, "password", recorded=False)


def test_a_wrong_secret_key_of_the_lakes_store_is_named_and_not_shown(
    declared: Declared, refused: Refusal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.csv").write_text("id\n1\n")
    declared.add("t", files("csv"))
    assert declared.count("t") is None  # the lake is there
    monkeypatch.setenv("WRONG", "wr0ng-secret-key")
    refused.secrets.append("wr0ng-secret-key")
    change_site(declared, "objects", "", "secret_key", "secret:WRONG")
    refused(AccessDeniedError, "access_key and secret_key", recorded=False)


def test_a_secret_without_a_value_names_where_to_put_it(declared: Declared, refused: Refusal) -> None:
    change_site(declared, "databases", "business", "password", "secret:NO_SUCH")
    declared.add("t", {"kind": "database", "site": "idc", "database": "business", "table": "public.t"})
    from connectors.errors import SecretError

    refused(SecretError, "secret:NO_SUCH", "environment variable NO_SUCH")


def test_a_database_that_does_not_answer_is_tried_four_times_and_then_said_to_be_down(
    declared: Declared, refused: Refusal, prefect: Prefect
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        change_site(declared, "databases", "business", "url", f"postgresql://business@127.0.0.1:{port}/business")
        declared.add("t", {"kind": "database", "site": "idc", "database": "business", "table": "public.t"})
        refused(UnavailableError, str(port))
    (stage,) = prefect.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [prefect.last_run()["id"]]}}})
    assert stage["run_count"] == 4


def test_a_missing_table_bucket_object_and_file_are_named(declared: Declared, refused: Refusal) -> None:
    declared.add("t", {"kind": "database", "site": "idc", "database": "business", "table": "public.no_such"})
    refused(NotFoundError, "public.no_such")
    bucket = {"kind": "objects", "site": "idc", "bucket": "no-such-bucket", "path": "*.csv", "format": "csv"}
    declared.add("t", bucket)
    refused(NotFoundError, "no-such-bucket")
    declared.store.ensure_bucket(declared.bucket)
    declared.add("t", {**bucket, "bucket": declared.bucket, "path": "nowhere/*.csv"})
    refused(NotFoundError, "nowhere/*.csv", "no file matches")
    declared.add("t", files("csv"))
    refused(NotFoundError, "in/*.csv", "no file matches")


def test_a_missing_bucket_of_the_lake_is_named(declared: Declared, refused: Refusal, folder: Path) -> None:
    (folder / "a.csv").write_text("id\n1\n")
    declared.add("t", files("csv"))
    assert declared.count("t") is None
    from minio import Minio

    address = declared.estate.objects("idc")
    client = Minio(
        address.url.partition("://")[2], address.access_key.reveal(), address.secret_key.reveal(), secure=False
    )
    for one in client.list_objects(declared.bucket, recursive=True):
        client.remove_object(declared.bucket, str(one.object_name))
    client.remove_bucket(declared.bucket)
    refused(NotFoundError, declared.bucket, recorded=False)


@pytest.mark.parametrize(
    ("name", "content", "source", "words"),
    [
        ("ragged.csv", b"id,name\n1,a\n2\n3,c\n", {}, ("ragged.csv", "line 3", "1 columns", "2")),
        ("wide.csv", b"id,name\n1,a\n2,b,c\n", {}, ("wide.csv", "line 3", "3 columns")),
        ("quote.csv", b'id,name\n1,"a\n2,b\n', {}, ("quote.csv", "line 2", "quote")),
        ("bytes.csv", "id,name\n1,M\xfcller\n".encode("latin-1"), {}, ("bytes.csv", "line 2", "encoding")),
        ("wide16.csv", b"id,name\n1,a\n", {"encoding": "utf-16"}, ("wide16.csv", "utf-16")),
        ("torn.jsonl", b'{"id": 1}\n{"id": 2}\n{"id": ', {}, ("torn.jsonl", "line 3", "torn")),
        ("words.jsonl", b'{"id": 1}\nhello\n{"id": 3}\n', {}, ("words.jsonl", "line 2")),
        ("empty.csv", b"", {}, ("empty.csv", "empty (0 bytes)")),
        ("empty.jsonl", b"", {}, ("empty.jsonl", "empty (0 bytes)")),
        ("empty.parquet", b"", {}, ("empty.parquet", "empty (0 bytes)")),
        ("torn.parquet", b"PAR1 and then nothing more", {}, ("torn.parquet", "footer")),
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_line(
    refused: Refusal, folder: Path, name: str, content: bytes, source: dict[str, Any], words: tuple[str, ...]
) -> None:
    (folder / name).write_bytes(content)
    refused.declared.add("t", files(name.rpartition(".")[2], **source))
    refused(BadDataError, *words)


def test_a_broken_object_is_refused_with_its_name_and_line(declared: Declared, refused: Refusal) -> None:
    bucket = f"source-{declared.bucket}"
    declared.store.ensure_bucket(bucket)
    declared.store.put(bucket, "2013/1.csv", b"id,name\n1,a\n")
    declared.store.put(bucket, "2013/2.csv", b"id,name\n1,a\n2\n")
    declared.add("t", {"kind": "objects", "site": "idc", "bucket": bucket, "path": "2013/*.csv", "format": "csv"})
    refused(BadDataError, "2013/2.csv", "line 3", "1 columns")


@pytest.mark.parametrize(
    ("name", "line"), [("late.csv", "{0},n{0}\n"), ("late.jsonl", '{{"id": {0}, "name": "n{0}"}}\n')]
)
def test_a_type_that_changes_in_mid_file_is_refused_with_line_column_and_value(
    refused: Refusal, folder: Path, name: str, line: str
) -> None:
    head = "id,name\n" if name.endswith("csv") else ""
    bad = line.format("oops") if name.endswith("csv") else '{"id": "oops", "name": "x"}\n'
    lines = [line.format(number) for number in range(60_000)]
    (folder / name).write_text(head + "".join([*lines[:50_000], bad, *lines[50_000:]]))
    refused.declared.add("t", files(name.rpartition(".")[2]))
    number = 50_001 + bool(head)
    text = refused(BadDataError, name, f"line {number}", "oops")
    assert "id" in re.split(r"\W+", text) or name.endswith("jsonl")


def test_a_value_that_does_not_fit_its_declared_type_is_refused(refused: Refusal, folder: Path) -> None:
    (folder / "a.csv").write_text("id,day\n1,2013-01-01\n2,2013-02-30\n")
    refused.declared.add("t", files("csv"), columns={"day": "DATE"})
    refused(BadDataError, "a.csv", "line 3", "'day'", "2013-02-30")


def http(url: str, **more: Any) -> dict[str, Any]:
    """Return a source that reads the test's API."""
    paging = {"items": "items", "pagination": "page", "size_parameter": "size", "page_size": 100}
    return {"kind": "http", "url": url, **paging, **more}


_ROWS = [{"id": number} for number in range(250)]


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [(500, UnavailableError, "HTTP status 500"), (429, ThrottledError, "requests_per_second")],
)
def test_an_api_that_refuses_is_asked_again_and_then_named(
    declared: Declared,
    refused: Refusal,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    kind: type[CausewayError],
    words: str,
) -> None:
    monkeypatch.setenv("API_TOKEN", "t0ken-of-the-partner")
    refused.secrets.append("t0ken-of-the-partner")
    with JsonApi(
        _ROWS, fault=lambda _, query: answer({"error": "no"}, status) if query["page"] == "3" else None
    ) as api:
        declared.add("t", http(api.url, token="secret:API_TOKEN"))
        refused(kind, api.url, "page 3", words)
        assert set(api.tokens) == {"Bearer t0ken-of-the-partner"}


def test_an_api_that_recovers_is_loaded_whole(declared: Declared) -> None:
    failed: set[str] = set()

    def flaky(_: int, query: dict[str, str]) -> Any:
        if query["page"] in failed:
            return None
        failed.add(query["page"])
        return answer({"error": "busy"}, 429 if query["page"] == "2" else 500)

    with JsonApi(_ROWS, fault=flaky) as api:
        declared.add("t", http(api.url))
        assert ingest(str(declared), "t").rows == 250
    assert declared.rows("SELECT count(DISTINCT id), sum(id) FROM lake.t") == [(250, 31125)]


def _repeats(_: int, query: dict[str, str]) -> Any:
    return answer({"items": _ROWS[100:200]}) if query["page"] == "3" else None


def _changes_type(_: int, query: dict[str, str]) -> Any:
    return answer({"items": [{"id": 200}, {"id": "many"}]}) if query["page"] == "3" else None


def _is_html(_: int, query: dict[str, str]) -> Any:
    return (200, {}, b"<html>maintenance</html>") if query["page"] == "2" else None


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_repeats, ("page 3",)),
        (_changes_type, ("page 3", "row 2", "'id'", "many")),
        (_is_html, ("page 2", "not JSON")),
    ],
)
def test_an_api_that_answers_wrongly_is_named_with_its_page(
    declared: Declared, refused: Refusal, fault: Callable[[int, dict[str, str]], Any], words: tuple[str, ...]
) -> None:
    with JsonApi(_ROWS, fault=fault) as api:
        declared.add("t", http(api.url))
        refused(BadDataError, api.url, *words)


def test_an_estate_with_ten_mistakes_is_refused_with_all_of_them_at_once(
    declared: Declared, refused: Refusal, folder: Path
) -> None:
    (folder / "a.csv").write_text("id\n1\n")
    declared.add("t", files("csv"))
    content = declared.content()
    content["sites"]["idc"]["kind"] = "privat"  # 1: no such choice
    content["sites"]["idc"]["holds"] = "everything"  # 2: no such choice
    content["sites"]["idc"]["colour"] = "red"  # 3: an unknown key
    content["sites"]["idc"]["objects"]["secret_key"] = "hunter2-in-clear"  # 4: a secret's value
    content["lake"]["site"] = "nowhere"  # 5: no such site
    content["lake"]["memory_limit"] = "much"  # 6: no size
    content["tables"]["t"]["mode"] = "upsert"  # 7: no such choice
    content["tables"]["t"]["owner"] = "nobody"  # 8: no such owner
    content["tables"]["t"]["source"] = "tt"  # 9: no such source
    content["tables"]["t"]["schedule"] = "daily"  # 10: no cron
    declared.change(**content)
    with pytest.raises(EstateError) as caught:
        ingest(str(declared), "t")
    text = str(caught.value)
    for words in (
        "sites.idc.kind", "privat", "sites.idc.holds", "everything", "sites.idc.colour", "objects.secret_key",
        "lake.site", "nowhere", "lake.memory_limit", "much", "tables.t.mode", "upsert", "tables.t.owner",
        "nobody", "tables.t.source", "tables.t.schedule", "daily", str(declared.path), "public",
    ):  # fmt: skip
        assert words in text
    assert "hunter2" not in text
    refused.secrets.append("hunter2-in-clear")
    run = refused.prefect.last_run()
    assert run["state"]["type"] == "FAILED"
    refused.require_no_secret(text, run)


def test_a_huge_row_group_is_streamed_or_refused_and_never_read_whole(
    declared: Declared, refused: Refusal, folder: Path
) -> None:
    """One row group of 1 GB in memory, that compresses well, under a limit of 192 MiB."""
    text = pa.array(["x" * 1000] * 10_000)
    table = pa.table({"id": pa.array(range(10_000)), "text": text})
    with pq.ParquetWriter(folder / "huge.parquet", table.schema, compression="zstd") as writer:
        writer.write_table(pa.concat_tables([table] * 100), row_group_size=2_000_000)
    assert pq.read_metadata(folder / "huge.parquet").num_row_groups == 1
    declared.add("t", files("parquet"))
    before = peak_bytes()
    assert ingest(str(declared), "t").rows == 1_000_000
    assert peak_bytes() - before < 500 << 20
    assert declared.count("t") == 1_000_000


def peak_bytes() -> int:
    """The most memory that this process has ever held."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) << 10
