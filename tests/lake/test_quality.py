"""What is counted in a batch, who judges it, and what is kept of a batch that is set aside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import SchemaError
from connectors.estate import Expectation, load_estate
from connectors.sources import Slice
from datalake.batch import new_load_id, stage
from datalake.judge import Judge, judge_counts
from datalake.quality import Count, count_violations, failing_rows, key_expectations
from datalake.quarantine import quarantine
from datalake.session import Lake
from tests.lake.loading import SelectSource, record_of, writing

pytestmark = pytest.mark.servers

# Ten rows: v is 0..9 with a null instead of 9, w is v but for one row, k has one value twice.
_ROWS = """
SELECT CASE WHEN i = 9 THEN NULL ELSE i END AS v, i + 1 AS w, CASE WHEN i = 8 THEN 7 ELSE i END AS k,
       'n' || i AS name, i % 2 = 0 AS even FROM (SELECT range AS i FROM range(10))
"""


def _counts(lake: Lake, expectations: list[Expectation]) -> list[Count]:
    batch = stage(lake, "t", SelectSource(_ROWS), Slice(), new_load_id())
    return count_violations(lake, batch, expectations)


@pytest.mark.parametrize(
    ("fields", "considered", "unexpected"),
    [
        ({"expect": "column_values_to_not_be_null", "column": "v"}, 10, 1),
        ({"expect": "column_values_to_be_null", "column": "v"}, 10, 9),
        ({"expect": "column_values_to_be_between", "column": "v", "min_value": 2, "max_value": 5}, 9, 5),
        ({"expect": "column_values_to_be_in_set", "column": "name", "value_set": ["n1", "n2"]}, 10, 8),
        ({"expect": "column_values_to_not_be_in_set", "column": "v", "value_set": [0, 1]}, 9, 2),
        ({"expect": "column_values_to_be_in_set", "column": "even", "value_set": [True]}, 10, 5),
        ({"expect": "column_values_to_match_regex", "column": "name", "regex": "^n[0-4]$"}, 10, 5),
        ({"expect": "column_values_to_not_match_regex", "column": "name", "regex": "3"}, 10, 1),
        ({"expect": "column_value_lengths_to_be_between", "column": "name", "max_value": 1}, 10, 10),
        ({"expect": "column_pair_values_a_to_be_greater_than_b", "column_a": "w", "column_b": "v"}, 9, 0),
        ({"expect": "column_pair_values_a_to_be_greater_than_b", "column_a": "v", "column_b": "w"}, 9, 9),
        ({"expect": "column_values_to_be_unique", "column": "k"}, 10, 2),
        ({"expect": "compound_columns_to_be_unique", "columns": ["k", "even"]}, 10, 0),
        ({"expect": "table_row_count_to_be_between", "min_value": 11}, 1, 1),
        ({"expect": "unexpected_rows", "condition": "v > 6 AND even"}, 10, 1),
    ],
)
def test_each_expectation_counts_what_it_does_not_expect(
    estate_file: Path, fields: dict[str, Any], considered: int, unexpected: int
) -> None:
    with writing(load_estate(estate_file)) as lake:
        (count,) = _counts(lake, [Expectation.model_validate(fields)])
        assert (count.considered, count.unexpected) == (considered, unexpected)


def test_counts_agree_with_great_expectations_on_the_rows_themselves(estate_file: Path) -> None:
    import great_expectations as gx
    import great_expectations.expectations as theirs_by_name

    expectations = [
        Expectation(expect="column_values_to_be_between", column="v", min_value=2, max_value=5),
        Expectation(expect="column_values_to_not_be_null", column="v"),
        Expectation(expect="column_values_to_be_unique", column="k"),
        Expectation(expect="column_values_to_match_regex", column="name", regex="^n[0-4]$"),
    ]
    made: Any = theirs_by_name  # it exports its classes without saying so to type checkers
    theirs = [
        made.ExpectColumnValuesToBeBetween(column="v", min_value=2, max_value=5),
        made.ExpectColumnValuesToNotBeNull(column="v"),
        made.ExpectColumnValuesToBeUnique(column="k"),
        made.ExpectColumnValuesToMatchRegex(column="name", regex="^n[0-4]$"),
    ]
    with writing(load_estate(estate_file)) as lake:
        ours = [count.unexpected for count in _counts(lake, expectations)]
        frame = lake.connection.execute(_ROWS).df()
    context = gx.get_context(mode="ephemeral")
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": frame})
    assert ours == [batch.validate(one).result["unexpected_count"] for one in theirs]


def test_an_expectation_of_a_column_that_is_not_there_says_so(estate_file: Path) -> None:
    wrong = Expectation(expect="column_values_to_not_be_null", column="nmae")
    with writing(load_estate(estate_file)) as lake, pytest.raises(SchemaError, match=r"nmae.*name"):
        _counts(lake, [wrong])


def test_the_judge_forgives_what_mostly_forgives_and_can_be_asked_again() -> None:
    one = Expectation(expect="column_values_to_not_be_null", column="v", mostly=0.9)
    with Judge() as judge:
        assert [v.success for v in judge.verdicts("t", [Count(one, 100, 10), Count(one, 100, 11)])] == [
            True,
            False,
        ]
        assert [v.success for v in judge.verdicts("t", [Count(one, 0, 0)])] == [True]


def test_great_expectations_judges_each_count_by_what_is_allowed() -> None:
    asked = [
        {"name": "0: a", "unexpected": 0, "allowed": 0, "severity": "critical"},
        {"name": "1: a", "unexpected": 3, "allowed": 2, "severity": "warning"},
    ]
    assert judge_counts("suite", asked) == [True, False]


def test_a_quarantined_batch_keeps_its_rows_and_reasons_and_is_in_no_table(estate_file: Path) -> None:
    bad = Expectation(expect="column_values_to_be_between", column="v", max_value=5)
    unique = key_expectations(["k"])[-1]
    with writing(load_estate(estate_file)) as lake:
        batch = stage(lake, "t", SelectSource(_ROWS), Slice(), new_load_id())
        rows = failing_rows(lake, batch, [bad, unique])
        quarantine(lake, batch, record_of(batch, "k1"), [], rows)
        assert not lake.has_table("t")
        found = lake.rows("SELECT row_data, reasons FROM ops.quarantine ORDER BY row_data->>'w'")
        assert [json.loads(row)["w"] for row, _ in found] == [7, 8, 9]
        assert [len(json.loads(reasons)) for _, reasons in found] == [1, 2, 2]
        assert lake.value(f"SELECT count(*) FROM {batch.relation}") == 10
