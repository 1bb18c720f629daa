"""What the status of tables says, and the events of those that are late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from connectors.errors import QuarantinedError
from datalake.session import open_lake
from datalake.tables import TableStatus, table_statuses
from deployments.cli import main
from flows.ingest import ingest
from flows.watch import row_of, watch
from tests.flows.estates import Declared

pytestmark = pytest.mark.servers

_SOURCE = {"kind": "files", "path": "t.csv", "format": "csv"}
_SMALL = {"expect": "column_values_to_be_between", "column": "a", "max_value": 5}


def status(declared: Declared, name: str, after: timedelta = timedelta(0)) -> TableStatus:
    with open_lake(declared.estate) as lake:
        found = table_statuses(lake, declared.estate, datetime.now(UTC) + after)
    return next(one for one in found if one.name == name)


def test_a_table_says_what_it_holds_and_when_it_is_late(declared: Declared, capsys: pytest.CaptureFixture[str]) -> None:
    file = declared.path.parent / "t.csv"
    file.write_text("a\n1\n2\n", encoding="utf-8")
    declared.add("t", _SOURCE, mode="replace", fresh_within="1h", expectations=[_SMALL])
    declared.add("never", _SOURCE, fresh_within="2d")
    declared.add("free", _SOURCE)
    ingest(str(declared), "t")
    found = status(declared, "t")
    assert (found.rows, found.unmet, found.expectations, found.late_by, found.failed) == (2, 0, 1, None, None)
    later = status(declared, "t", timedelta(hours=3))
    assert later.late_by is not None
    assert timedelta(0) < later.late_by - timedelta(hours=2) < timedelta(minutes=1)
    assert row_of(later)["freshness"].startswith("late by 2h")
    file.write_text("a\n9\n", encoding="utf-8")
    with pytest.raises(QuarantinedError):
        ingest(str(declared), "t")
    refused = status(declared, "t")
    assert (refused.rows, refused.unmet) == (2, 1)
    assert "column_values_to_be_between" in str(refused.failed)
    assert watch(str(declared)).late == ("never",)
    capsys.readouterr()
    assert main(["--estate", str(declared), "tables"]) == 1
    printed = capsys.readouterr().out
    assert "never loaded" in printed
    assert "0 of 1 (last load set aside or failed)" in printed
