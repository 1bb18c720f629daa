"""What an ingest decides: windows, keys of loads, and whether a batch may go in."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import BadDataError, NotFoundError, PolicyError
from connectors.estate import Estate, Expectation
from datalake.judge import Verdict
from datalake.quality import Count
from tasks.ingest.plan import Accept, LoadPlan, Refuse, decide, plan_load, windows
from tests.unit.estates import changed, plain

moments = st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2030, 1, 1))
lengths = st.timedeltas(min_value=timedelta(hours=1), max_value=timedelta(days=4000))
spans = st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=40))
texts = st.text(alphabet="abc019-", min_size=1, max_size=8)


def estate(mode: str = "append", **fields: Any) -> Estate:
    """Return an estate whose table `orders` has the mode."""
    data = plain()
    data["tables"]["orders"] |= {"mode": mode, **fields}
    return Estate.model_validate(data)


def plan(mode: str, start: str | None, end: str | None, key: str | None = None, run: str = "run-1") -> LoadPlan:
    return plan_load(estate(mode), "orders", start, end, key, run)


# --- Windows -------------------------------------------------------------------------------------


@given(start=moments, span=spans, length=lengths)
def test_windows_touch_do_not_overlap_and_cover_the_whole(start: datetime, span: timedelta, length: timedelta) -> None:
    first, last = start.isoformat(), (start + span).isoformat()
    made = windows(first, last, length)
    assert made[0][0] == first
    assert made[-1][1] == last
    assert all(left[1] == right[0] for left, right in pairwise(made))
    times = [(datetime.fromisoformat(one), datetime.fromisoformat(other)) for one, other in made]
    assert all(timedelta(0) < other - one <= length for one, other in times)
    assert all(other - one == length for one, other in times[:-1])


@given(start=texts, end=texts)
def test_without_a_length_there_is_one_window(start: str, end: str) -> None:
    assert windows(start, end, None) == [(start, end)]


def test_windows_of_days_end_with_the_shorter_one() -> None:
    assert windows("2013-01-01", "2013-01-03T12:00", timedelta(days=1)) == [
        ("2013-01-01", "2013-01-02T00:00:00"),
        ("2013-01-02T00:00:00", "2013-01-03T00:00:00"),
        ("2013-01-03T00:00:00", "2013-01-03T12:00"),
    ]


@pytest.mark.parametrize(
    ("start", "end", "length"),
    [
        ("a", "b", timedelta(days=1)),
        ("2013-01-01", "2013-02-01T00:00+00:00", timedelta(days=1)),
        ("2013-01-01", "2013-02-01", timedelta(0)),
        ("2013-01-01", "2013-02-01", timedelta(days=-1)),
    ],
)
def test_windows_that_cannot_be_cut_are_refused(start: str, end: str, length: timedelta) -> None:
    with pytest.raises(BadDataError, match="cut into windows"):
        windows(start, end, length)


def test_a_window_longer_than_the_calendar_is_the_whole() -> None:
    assert windows("2013-01-01", "2013-02-01", timedelta.max) == [("2013-01-01", "2013-02-01")]


# --- Load keys -----------------------------------------------------------------------------------


@given(start=texts, run=texts, other_run=texts)
def test_the_same_slice_of_an_append_table_has_the_same_key_in_every_run(start: str, run: str, other_run: str) -> None:
    assert plan("append", start, None, run=run).load_key == plan("append", start, None, run=other_run).load_key


@given(one=st.tuples(st.none() | texts, st.none() | texts), other=st.tuples(st.none() | texts, st.none() | texts))
def test_different_slices_of_an_append_table_have_different_keys(
    one: tuple[str | None, str | None], other: tuple[str | None, str | None]
) -> None:
    try:
        keys = [plan("append", *bounds).load_key for bounds in (one, other)]
    except BadDataError:
        return  # start is not before end
    assert (keys[0] == keys[1]) == (one == other)


@pytest.mark.parametrize("mode", ["append", "replace", "merge"])
@given(run=texts, other_run=texts)
def test_a_whole_load_has_its_runs_key_and_a_retry_has_the_same(mode: str, run: str, other_run: str) -> None:
    key = plan(mode, None, None, run=run).load_key
    assert plan(mode, None, None, run=run).load_key == key
    assert (plan(mode, None, None, run=other_run).load_key == key) == (run == other_run)


@pytest.mark.parametrize("mode", ["replace", "merge"])
def test_a_slice_that_is_replaced_or_merged_again_is_a_load_of_its_own(mode: str) -> None:
    assert plan(mode, "1", "2", run="a").load_key != plan(mode, "1", "2", run="b").load_key


@given(key=texts, run=texts, other_run=texts)
def test_a_key_of_the_users_own_is_the_key_in_every_run(key: str, run: str, other_run: str) -> None:
    assert plan("append", None, None, key, run).load_key == plan("append", None, None, key, other_run).load_key
    assert plan("append", None, None, key).load_key == f"orders:{key}"


def test_tables_never_share_a_key() -> None:
    data = plain()
    data["tables"]["others"] = data["tables"]["orders"]
    both = Estate.model_validate(data)
    keys = {plan_load(both, table, None, None, "mine", "run").load_key for table in ("orders", "others")}
    assert len(keys) == 2


# --- What is refused before anything is read -----------------------------------------------------


def test_data_never_goes_to_a_lake_that_may_not_hold_it() -> None:
    data = changed("sites.idc.holds", "internal")
    data["tables"]["orders"]["data_class"] = "restricted"
    with pytest.raises(PolicyError, match="site idc may hold internal at most"):
        plan_load(Estate.model_validate(data), "orders", None, None, None, "run")


def test_an_unknown_table_and_a_slice_without_a_cursor_are_refused() -> None:
    with pytest.raises(NotFoundError, match="Choose one of: orders"):
        plan_load(estate(), "flights", None, None, None, "run")
    with pytest.raises(BadDataError, match="no cursor column"):
        plan_load(estate(cursor=None), "orders", "1", None, None, "run")


@pytest.mark.parametrize(("start", "end"), [("10", "9"), ("9", "9"), ("2013-02-01", "2013-01-31T23:00"), ("b", "a")])
def test_a_slice_that_ends_before_it_starts_is_refused(start: str, end: str) -> None:
    with pytest.raises(BadDataError, match="is not before end"):
        plan("append", start, end)


def test_documents_go_to_the_table_of_objects_by_merge() -> None:
    data = plain()
    data["sources"]["papers"] = {"kind": "documents", "path": "**"}
    data["tables"]["papers"] = {"source": "papers", "owner": "team"}
    made = plan_load(Estate.model_validate(data), "papers", None, None, None, "run")
    assert (made.target, made.mode, made.table) == ("objects", "merge", "papers")


# --- Decisions -----------------------------------------------------------------------------------


def _verdict(level: str, success: bool, column: str) -> Verdict:
    asked = Expectation.model_validate({"expect": "column_values_to_be_unique", "column": column, "level": level})
    return Verdict(Count(asked, 10, 0 if success else 3), success)


verdicts = st.lists(st.builds(_verdict, st.sampled_from(["warn", "quarantine"]), st.booleans(), st.sampled_from("abc")))


@given(verdicts)
def test_a_batch_is_accepted_exactly_when_no_quarantine_expectation_failed(found: list[Verdict]) -> None:
    failed = [one for one in found if not one.success]
    serious = [one for one in failed if one.count.expectation.level == "quarantine"]
    decision = decide(found)
    if serious:
        assert isinstance(decision, Refuse)
        assert len(decision.reasons) == len(serious)
    else:
        assert isinstance(decision, Accept)
        assert len(decision.warnings) == len(failed)


def test_a_reason_says_what_failed_and_how_often() -> None:
    decision = decide([_verdict("quarantine", False, "id")])
    assert decision == Refuse(("column_values_to_be_unique (id): 3 of 10 rows",))
