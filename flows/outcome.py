"""How a flow ends that could not do its work."""

from __future__ import annotations

from typing import Any

from prefect.states import Failed

from connectors.errors import CausewayError, QuarantinedError


def failure(error: CausewayError) -> Any:
    """Return the state of a run that ended with one of our errors; a caller gets the error raised.

    A flow returns it where it would raise: the run then shows the error's own words, and no stack trace,
    which would tell its reader nothing that the words do not.
    """
    name = "Quarantined" if isinstance(error, QuarantinedError) else "Failed"
    return Failed(name=name, message=str(error), data=error)
