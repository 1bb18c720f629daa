"""Ingest, backfill and query as flows: from each kind of source into the lake, with all their evidence."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from connectors.errors import BadDataError, NotFoundError, QuarantinedError
from deployments.embedded.partner_api import Partner
from flows.ingest import backfill, ingest
from flows.query import query
from tests.flows.estates import Declared
from tests.flows.server import Prefect
from tests.servers import Running

pytestmark = pytest.mark.servers

_AT_MOST_FIVE = {"expect": "column_values_to_be_between", "column": "id", "max_value": 5}


@pytest.fixture
def people(postgres: Running, declared: Declared) -> str:
    """A table of the business database with ten rows: id, day of January 2013, amount; returns its name."""
    name = f"public.people_{declared.bucket.removeprefix('lake-')}"
    execute(
        postgres,
        f"CREATE TABLE {name} AS SELECT g::bigint AS id, DATE '2013-01-01' + (g - 1)::int AS day, "
        "(g * 1.25)::numeric(9, 2) AS amount FROM generate_series(1, 10) AS g",
    )
    return name


def execute(postgres: Running, sql: str) -> None:
    """Run a statement in the business database."""
    with psycopg.connect(postgres.url, password=postgres.password, autocommit=True) as connection:
        connection.execute(sql.encode())


def table_of(name: str) -> dict[str, Any]:
    """Return the source of a table of the business database."""
    return {"kind": "database", "site": "idc", "database": "business", "table": name}


@contextmanager
def partner(folder: Path) -> Iterator[str]:
    """Serve a folder as the partner's API; gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Partner, folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_table_of_a_database_is_loaded_with_evidence_artifacts_and_its_asset(
    declared: Declared, people: str, prefect: Prefect
) -> None:
    declared.add(
        "people", table_of(people), mode="merge", key=["id"], description="A person.",
        expectations=[{"expect": "column_values_to_not_be_null", "column": "amount"}],
    )  # fmt: skip
    report = ingest(str(declared), "people")
    assert (report.status, report.rows) == ("committed", 10)
    assert declared.rows("SELECT count(*), sum(id), sum(amount)::VARCHAR FROM lake.people") == [(10, 55, "68.75")]
    run = prefect.last_run()
    loads = declared.rows("SELECT load_id, status, rows, files, source, mode, flow_run_id FROM ops.loads")
    assert loads == [(report.load_id, "committed", 10, 1, "people", "merge", run["id"])]
    judged = declared.rows("SELECT expectation, success, unexpected, rows FROM ops.quality ORDER BY 1")
    assert [one[1:] for one in judged] == [(True, 0, 10)] * 3  # what is declared, and that the key is one
    (shown,) = prefect.artifacts("load-people")
    assert "people: committed" in shown["data"]
    assert "| rows | 10 read, 10 written, 0 deleted |" in shown["data"]
    assert str(report.version) in shown["data"]
    (quality,) = prefect.artifacts("quality-people")
    assert {row["result"] for row in json.loads(quality["data"])} == {"ok"}
    (event,) = prefect.events("prefect.asset.materialization.succeeded", f"s3://{declared.bucket}/people")
    assert event["resource"]["prefect.asset.owners"] == '["team"]'
    assert any(one["prefect.resource.id"] == f"prefect.flow-run.{run['id']}" for one in event["related"])

    again = ingest(str(declared), "people")
    assert again.status == "committed"
    assert declared.rows("SELECT count(*), sum(id) FROM lake.people") == [(10, 55)]


def test_a_query_of_a_database_is_loaded(declared: Declared, people: str) -> None:
    source = {"kind": "database", "site": "idc", "database": "business"}
    declared.add("big", {**source, "query": f"SELECT id, amount FROM {people} WHERE id > 7"})
    assert ingest(str(declared), "big").rows == 3
    assert declared.rows("SELECT list(id ORDER BY id) FROM lake.big") == [([8, 9, 10],)]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_objects_of_a_bucket_are_loaded(declared: Declared, tmp_path: Path, kind: str) -> None:
    files = {"csv": "(HEADER)", "jsonl": "(FORMAT json)", "parquet": "(FORMAT parquet)"}
    bucket = f"source-{declared.bucket}"
    declared.store.ensure_bucket(bucket)
    for number in range(2):
        file = tmp_path / f"{number}.{kind}"
        select = f"SELECT range + {number * 5} AS id, 'n' || range AS name FROM range(5)"
        duckdb.connect().execute(f"COPY ({select}) TO '{file}' {files[kind]}")
        declared.store.put(bucket, f"in/{file.name}", file.read_bytes())
    declared.add("things", {"kind": "objects", "site": "idc", "bucket": bucket, "path": f"in/*.{kind}", "format": kind})
    assert ingest(str(declared), "things").rows == 10
    assert declared.rows("SELECT count(*), sum(id), min(name), max(name) FROM lake.things") == [(10, 45, "n0", "n4")]


def test_files_beside_the_estate_are_loaded(declared: Declared) -> None:
    folder = declared.path.parent / "in"
    folder.mkdir()
    (folder / "a.csv").write_text('id;name\n1;"Müller; A"\n2;-\n')
    declared.add(
        "things",
        {"kind": "files", "path": "in/*.csv", "format": "csv", "delimiter": ";", "null_values": ["-"]},
        columns={"id": "INTEGER"},
    )
    assert ingest(str(declared), "things").rows == 2
    assert declared.rows("SELECT id, name FROM lake.things ORDER BY id") == [(1, "Müller; A"), (2, None)]


def test_all_pages_of_the_partners_api_are_loaded(declared: Declared, tmp_path: Path) -> None:
    rows = [{"id": number, "seats": number * 2 if number % 3 else None} for number in range(1, 251)]
    (tmp_path / "planes.json").write_text(json.dumps(rows))
    with partner(tmp_path) as url:
        declared.add(
            "planes",
            {"kind": "http", "url": f"{url}/planes", "items": "items", "pagination": "page",
             "size_parameter": "size", "page_size": 100},
        )  # fmt: skip
        assert ingest(str(declared), "planes").rows == 250
    expected = sum(row["seats"] or 0 for row in rows)
    assert declared.rows("SELECT count(*), sum(id), sum(seats) FROM lake.planes") == [(250, 31375, expected)]


def test_documents_become_objects_and_rows_and_stay_one_each(declared: Declared) -> None:
    folder = declared.path.parent / "manuals"
    folder.mkdir()
    for name in ("a.pdf", "b.pdf"):
        (folder / name).write_bytes(b"%PDF-1.7 the same bytes")
    declared.add("manuals", {"kind": "documents", "path": "manuals/**", "tags": {"shelf": "1"}})
    for _ in range(2):
        assert ingest(str(declared), "manuals").rows == 2
    found = declared.rows("SELECT path, media_type, bytes, url, tags['shelf'] FROM lake.objects ORDER BY path")
    assert [row[:3] for row in found] == [
        ("a.pdf", "application/pdf", 23),
        ("b.pdf", "application/pdf", 23),
    ]
    (url,) = {row[3] for row in found}
    bucket, _, key = str(url).removeprefix("s3://").partition("/")
    assert declared.store.read(bucket, key).read() == b"%PDF-1.7 the same bytes"
    assert len(list(declared.store.list(bucket, "objects/sha256/"))) == 1


def test_a_bad_batch_is_quarantined_and_the_mended_one_is_loaded_under_the_same_key(
    declared: Declared, people: str, postgres: Running, prefect: Prefect
) -> None:
    declared.add("people", table_of(people), expectations=[_AT_MOST_FIVE])
    with pytest.raises(QuarantinedError) as caught:
        ingest(str(declared), "people", load_key="monday")
    run = prefect.last_run()
    assert (run["state"]["type"], run["state"]["name"]) == ("FAILED", "Quarantined")
    assert "5 of 10 rows" in run["state"]["message"]
    assert declared.count("people") is None
    (load,) = declared.loads("people")
    assert load[:2] == ("quarantined", 10)
    assert "column_values_to_be_between (id) max_value=5: 5 of 10 rows" in str(load[2])
    kept = declared.rows("SELECT load_id, reasons, row_data, batch_url FROM ops.quarantine")
    assert sorted(json.loads(row[2])["id"] for row in kept) == [6, 7, 8, 9, 10]
    assert {row[0] for row in kept} <= {word.strip("'\"") for word in str(caught.value).split()}
    assert set(str(kept[0][3]).split()) == declared.batch_files("people")
    assert "nothing became visible" in prefect.artifacts("load-people")[0]["data"]
    assert not prefect.post("/events/filter", {"filter": {"resource": {"id": [f"s3://{declared.bucket}/people"]}}})[
        "events"
    ]

    execute(postgres, f"DELETE FROM {people} WHERE id > 5")
    assert ingest(str(declared), "people", load_key="monday").status == "committed"
    assert declared.rows("SELECT count(*), sum(id) FROM lake.people") == [(5, 15)]
    assert [load[0] for load in declared.loads("people")] == ["quarantined", "committed"]
    assert declared.value("SELECT count(*) FROM ops.quarantine") == 5


def test_a_failure_of_level_warn_only_warns(declared: Declared, people: str, prefect: Prefect) -> None:
    declared.add("people", table_of(people), expectations=[{**_AT_MOST_FIVE, "level": "warn"}])
    report = ingest(str(declared), "people")
    assert report.status == "committed"
    assert "5 of 10 rows" in report.warnings[0]
    assert declared.count("people") == 10
    assert declared.rows("SELECT level, success, unexpected FROM ops.quality") == [("warn", False, 5)]
    assert "5 of 10 rows" in prefect.artifacts("load-people")[0]["data"]
    assert json.loads(prefect.artifacts("quality-people")[0]["data"])[0]["result"] == "warn"


def test_a_dry_run_shows_the_plan_and_changes_nothing(declared: Declared, people: str, prefect: Prefect) -> None:
    declared.add("people", table_of(people), cursor="id", expectations=[_AT_MOST_FIVE])
    report = ingest(str(declared), "people", start="2", end="4", dry_run=True)
    assert report.status == "planned"
    (planned,) = backfill(str(declared), "people", "2", "4", dry_run=True)
    assert planned.status == "planned"
    assert declared.count("people") is None
    assert declared.loads("people") == []
    assert declared.batch_files("people") == set()
    shown = prefect.artifacts("plan-people")[0]["data"]
    assert "nothing was done" in shown
    assert "2 ≤ id < 4" in shown
    assert "1 expectations" in shown


def test_the_same_slice_of_an_append_table_is_loaded_once(declared: Declared, people: str) -> None:
    declared.add("people", table_of(people), cursor="id")
    first = ingest(str(declared), "people", start="1", end="4")
    again = ingest(str(declared), "people", start="1", end="4")
    assert (first.status, again.status, again.load_id) == ("committed", "already-loaded", first.load_id)
    assert declared.rows("SELECT count(*), sum(id) FROM lake.people") == [(3, 6)]
    assert ingest(str(declared), "people", start="4").status == "committed"
    assert declared.rows("SELECT count(*), sum(id) FROM lake.people") == [(10, 55)]


def test_a_load_key_given_twice_is_loaded_once(declared: Declared, people: str) -> None:
    declared.add("people", table_of(people))
    statuses = [ingest(str(declared), "people", load_key=key).status for key in ("a", "a", "b")]
    assert statuses == ["committed", "already-loaded", "committed"]
    assert declared.count("people") == 20
    assert len(declared.loads("people")) == 2


def test_a_backfill_by_windows_run_again_changes_nothing_in_an_append_table(declared: Declared, people: str) -> None:
    declared.add("people", table_of(people), cursor="day")
    ask = partial(backfill, str(declared), "people", "2013-01-02", "2013-01-09", "3d")
    assert [(one.status, one.rows) for one in ask()] == [("committed", 3), ("committed", 3), ("committed", 1)]
    before = declared.rows("SELECT count(*), sum(id), min(id), max(id) FROM lake.people")
    assert before == [(7, 35, 2, 8)]
    assert {one.status for one in ask()} == {"already-loaded"}
    assert declared.rows("SELECT count(*), sum(id), min(id), max(id) FROM lake.people") == before


def test_a_backfill_of_a_replace_table_puts_each_window_in_its_place(
    declared: Declared, people: str, postgres: Running
) -> None:
    declared.add("people", table_of(people), cursor="day", mode="replace")
    assert ingest(str(declared), "people").rows == 10
    execute(postgres, f"UPDATE {people} SET amount = 0 WHERE id BETWEEN 3 AND 8")
    backfill(str(declared), "people", "2013-01-03", "2013-01-07", "2d")
    found = declared.rows("SELECT count(*), list(id ORDER BY id) FILTER (WHERE amount = 0) FROM lake.people")
    assert found == [(10, [3, 4, 5, 6])]


def test_what_is_asked_wrongly_is_answered_with_the_choices(declared: Declared, people: str, prefect: Prefect) -> None:
    declared.add("people", table_of(people))
    with pytest.raises(NotFoundError, match=r"'peple'.*Choose one of: people"):
        ingest(str(declared), "peple")
    assert prefect.last_run()["state"]["type"] == "FAILED"
    with pytest.raises(BadDataError, match=r"no cursor.*tables\.people\.cursor"):
        ingest(str(declared), "people", start="1")
    with pytest.raises(NotFoundError, match="no such file"):
        ingest(str(declared.path.parent / "nowhere.yaml"), "people")


def test_a_query_answers_from_one_snapshot_and_leaves_an_artifact(
    declared: Declared, people: str, prefect: Prefect
) -> None:
    declared.add("people", table_of(people))
    first = ingest(str(declared), "people", load_key="a")
    ingest(str(declared), "people", load_key="b")
    sql = "SELECT count(*) AS n, sum(amount) AS total FROM lake.people"
    assert [row["n"] for row in query(str(declared), sql)] == [20]
    assert [row["n"] for row in query(str(declared), sql, version=first.version)] == [10]
    shown = prefect.artifacts("answer")[0]
    assert json.loads(shown["data"]) == [{"n": 10, "total": "68.75"}]
    assert f"Snapshot {first.version}" in shown["description"]
    assert len(query(str(declared), "SELECT id FROM lake.people", rows=7)) == 7
    assert "explain_value" in query(str(declared), sql, dry_run=True)[0]
    with pytest.raises(BadDataError, match="nmae"):
        query(str(declared), "SELECT nmae FROM lake.people")
