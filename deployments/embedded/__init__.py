"""The embedded estate: two sites of real servers on this machine, with no supervisor."""

from deployments.embedded.home import Home
from deployments.embedded.lifecycle import down, remove, up
from deployments.embedded.status import ServiceStatus, State, Status, status

__all__ = ["Home", "ServiceStatus", "State", "Status", "down", "remove", "status", "up"]
