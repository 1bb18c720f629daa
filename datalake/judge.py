"""Great Expectations' judgement on the counts of a batch, in a process of its own.

Its import takes seconds and 200 MB. As a process that is started when a load begins it is ready when the
counts are, its memory never adds to the load's, and it ends with the judgement.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from connectors.errors import FixableError
from datalake.quality import Count

_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Verdict:
    """Great Expectations' word on one expectation."""

    count: Count
    success: bool


class Judge:
    """A judge that is on its way. Asked once more, it sends for another; close it in the end."""

    def __init__(self) -> None:
        self._process = _summon()

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; harmless when it has ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def verdicts(self, table: str, counts: Sequence[Count]) -> list[Verdict]:
        """Return a verdict for each count, in their order; raises FixableError when the judge fails."""
        asked = [
            {
                "name": f"{index}: {count.expectation.title}",
                "unexpected": count.unexpected,
                "allowed": count.allowed,
                "severity": _SEVERITIES[count.expectation.level],
            }
            for index, count in enumerate(counts)
        ]
        if self._process.poll() is not None:
            self._process = _summon()
        try:
            answer, errors = self._process.communicate(
                json.dumps({"suite": table, "counts": asked}), timeout=_TIMEOUT_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            self.close()
            raise _failure(table, f"no answer within {_TIMEOUT_SECONDS} s") from error
        if self._process.returncode != 0:
            last = (errors.strip().splitlines() or ["no message"])[-1]
            raise _failure(table, f"exit code {self._process.returncode}: {last}")
        return [Verdict(count, bool(success)) for count, success in zip(counts, json.loads(answer), strict=True)]


def _summon() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "datalake.judge"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GX_ANALYTICS_ENABLED": "false"},
    )


_SEVERITIES = {"warn": "warning", "quarantine": "critical"}


def _failure(table: str, cause: str) -> FixableError:
    return FixableError("great-expectations", "judge", table, cause, "Nothing was committed; run the load again.")


def judge_counts(suite: str, counts: Sequence[dict[str, Any]]) -> list[bool]:
    """Let Great Expectations validate a frame of one row, a column an expectation; return its successes."""
    import great_expectations as gx
    import pandas as pd
    from great_expectations.expectations.core.expect_column_values_to_be_between import (
        ExpectColumnValuesToBeBetween,
    )

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    made = context.suites.add(gx.ExpectationSuite(name=suite))
    for one in counts:
        made.add_expectation(
            ExpectColumnValuesToBeBetween(
                column=one["name"], min_value=0, max_value=one["allowed"], severity=one["severity"]
            )
        )
    frame = pd.DataFrame({one["name"]: [one["unexpected"]] for one in counts})
    whole = (
        context.data_sources.add_pandas("counts")
        .add_dataframe_asset("counts")
        .add_batch_definition_whole_dataframe("counts")
    )
    result = whole.get_batch({"dataframe": frame}).validate(made)
    found = {one.expectation_config.kwargs["column"]: one.success for one in result.results if one.expectation_config}
    return [bool(found[one["name"]]) for one in counts]


def _main() -> None:
    # The import comes first: it overlaps with the load, until the question arrives.
    import great_expectations  # noqa: F401

    question = json.load(sys.stdin)
    answer = judge_counts(question["suite"], question["counts"])
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _main()
