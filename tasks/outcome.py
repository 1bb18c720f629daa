"""Which failures of a task are worth another try."""

from __future__ import annotations

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from connectors.errors import RetryableError


def is_retryable(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether the task failed with an error of the group 'retry'."""
    result = state.result(raise_on_failure=False)
    return isinstance(result, RetryableError)
