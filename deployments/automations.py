"""What an estate's Prefect server needs besides deployments: an automation and concurrency limits.

`python -m deployments.automations` creates them on the server that PREFECT_API_URL names; it may be repeated.
"""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from flows import ingest, maintain

ZOMBIES = "causeway: runs without a heartbeat have crashed"
# How many loads and how many compactions run at once.
LIMITS = MappingProxyType({ingest.LIMIT: 2, maintain.LIMIT: 1})
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDED = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
# Three heartbeats at Prefect's own frequency of 180 s: a run that somebody starts from Python keeps to that.
_SILENCE = timedelta(minutes=10)


def zombie_automation() -> AutomationCore:
    """Return what ends a run whose process and runner were both killed; it would be Running for ever."""
    return AutomationCore(
        name=ZOMBIES,
        description="A run that sent heartbeats and then none for 10 minutes is marked Crashed, not run again.",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *_ENDED},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=_SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message="No heartbeat for 10 minutes: the process is gone. Run it again; loads are safe to repeat.",
            )
        ],
    )


def ensure_zombie_automation() -> None:
    """Create the automation unless one of its name is there."""
    with get_client(sync_client=True) as client:
        if not client.read_automations_by_name(ZOMBIES):
            client.create_automation(zombie_automation())


def create_limits() -> None:
    """Create the global concurrency limits that flows take, unless they are there."""
    with get_client(sync_client=True) as client:
        for name, limit in LIMITS.items():
            try:
                client.read_global_concurrency_limit_by_name(name)
            except ObjectNotFound:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=limit))


def main() -> None:
    """Create what is missing, and change nothing that an operator has set."""
    create_limits()
    ensure_zombie_automation()
    print(f"global concurrency limits {', '.join(LIMITS)} and automation '{ZOMBIES}' are there")


if __name__ == "__main__":
    main()
