"""Maintain as a flow: what it does, what it would do, and what it leaves as evidence."""

from __future__ import annotations

import pytest

from connectors.errors import NotFoundError
from flows.ingest import ingest
from flows.maintain import maintain
from tests.flows.estates import Declared

pytestmark = pytest.mark.servers


def test_a_plan_changes_nothing_and_a_run_leaves_evidence(declared: Declared) -> None:
    folder = declared.path.parent
    declared.add("t", {"kind": "files", "path": "t.csv", "format": "csv"}, sort_by=["a"])
    for number in range(3):
        (folder / "t.csv").write_text(f"a,b\n{9 - number},x\n", encoding="utf-8")
        ingest(str(declared), "t")
    version = declared.value("SELECT id FROM lake.current_snapshot()")
    planned = maintain(str(declared), dry_run=True).actions
    assert declared.value("SELECT id FROM lake.current_snapshot()") == version
    assert {one.table_name for one in planned if one.action == "compact"} == {"t", "ops.loads"}
    done = maintain(str(declared)).actions
    assert [one.action for one in done] == ["compact", "compact", "expire", "remove orphans", "statistics"]
    merged = next(one for one in done if one.table_name == "t")
    assert (merged.files_before, merged.files_after) == (3, 1)
    assert declared.rows("SELECT a FROM lake.t") == [(7,), (8,), (9,)]
    assert declared.value("SELECT count(*) FROM ops.maintenance") == 5
    assert [one.action for one in maintain(str(declared), tables=["t"]).actions] == []


def test_an_unknown_table_is_refused(declared: Declared) -> None:
    with pytest.raises(NotFoundError, match="table 'nothing'"):
        maintain(str(declared), tables=["nothing"])
