"""deployments/prefect.yaml holds against Prefect's own model, the flows and the production estate."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import ConcurrencyLimitSpec, DeploymentConfig, PrefectYamlModel, RawScheduleConfig
from prefect.cli.deploy._models import WorkPoolConfig as WorkPool
from prefect.cli.deploy._schedules import _schedule_config_to_deployment_schedule as schedule_of
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.flows import Flow, load_flow_from_entrypoint
from pydantic import BaseModel

from connectors.estate import load_estate
from tests.unit.estates import EXAMPLES, REPOSITORY

CONFIG: dict[str, Any] = yaml.safe_load((REPOSITORY / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))
DEPLOYMENTS: list[dict[str, Any]] = CONFIG["deployments"]
SCHEDULES = [(one["entrypoint"], schedule) for one in DEPLOYMENTS for schedule in one["schedules"]]


def unknown(model: type[BaseModel], given: dict[str, Any]) -> set[str]:
    """Return the keys that Prefect would ignore without a word."""
    known = {field.alias or name for name, field in model.model_fields.items()} | model.model_fields.keys()
    return given.keys() - known


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    return load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)


def test_prefects_model_takes_the_file_and_knows_every_key() -> None:
    PrefectYamlModel.model_validate(CONFIG)
    assert unknown(PrefectYamlModel, CONFIG) == set()
    for one in DEPLOYMENTS:
        assert unknown(DeploymentConfig, one) == set()
        assert unknown(WorkPool, one["work_pool"]) == set()
        assert unknown(ConcurrencyLimitSpec, one["concurrency_limit"]) == set()


def test_a_key_that_prefect_ignores_would_be_found() -> None:
    assert unknown(DeploymentConfig, {"name": "x", "workpool": {}}) == {"workpool"}


def test_nothing_is_built_or_pulled_because_the_flows_are_installed() -> None:
    assert [CONFIG[step] for step in ("build", "push", "pull")] == [[], [], []]


def test_every_flow_of_the_project_is_deployed_once() -> None:
    assert sorted(flow_of(one).name for one in DEPLOYMENTS) == [
        "backfill",
        "ingest",
        "maintain",
        "query",
        "replicate",
        "watch",
    ]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: str(one["entrypoint"]))
def test_a_deployment_says_all_that_an_operator_needs(deployment: dict[str, Any]) -> None:
    assert deployment["description"]
    assert {"causeway", "production"} <= set(deployment["tags"])
    assert deployment["work_pool"]["name"] == "causeway"
    assert deployment["enforce_parameter_schema"] is True
    limit = ConcurrencyLimitSpec.model_validate(deployment["concurrency_limit"])
    assert limit.limit
    ConcurrencyLimitStrategy(limit.collision_strategy)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: str(one["entrypoint"]))
def test_the_parameters_are_the_flows_own(deployment: dict[str, Any]) -> None:
    flow = flow_of(deployment)
    names = inspect.signature(flow.fn).parameters.keys()
    assert deployment["parameters"].keys() <= names
    for schedule in deployment["schedules"]:
        given = deployment["parameters"] | schedule["parameters"]
        assert given.keys() <= names
        flow.validate_parameters(given)


@pytest.mark.parametrize(("entrypoint", "schedule"), SCHEDULES, ids=lambda one: str(one)[:40])
def test_a_schedule_parses_and_is_due_again(entrypoint: str, schedule: dict[str, Any]) -> None:
    checked = RawScheduleConfig.model_validate(schedule)  # this model forbids unknown keys
    assert checked.slug
    assert checked.active is True
    assert checked.timezone == "UTC"
    made = schedule_of(schedule)["schedule"]
    assert made.cron == schedule["cron"]
    from prefect.server.schemas.schedules import CronSchedule

    due = next(iter(CronSchedule(**made.model_dump())._get_dates_generator(1, datetime(2030, 1, 1, tzinfo=UTC))))
    assert due >= datetime(2030, 1, 1, tzinfo=UTC)


def test_slugs_are_unique_in_a_deployment() -> None:
    for one in DEPLOYMENTS:
        slugs = [schedule["slug"] for schedule in one["schedules"]]
        assert len(set(slugs)) == len(slugs)


def test_the_schedules_of_ingest_are_those_of_the_production_estate() -> None:
    estate = load_estate(EXAMPLES / "production.yaml")
    declared = {name: table.schedule for name, table in estate.tables.items() if table.schedule}
    ingest = next(one for one in DEPLOYMENTS if one["entrypoint"].endswith(".ingest"))
    deployed = {one["parameters"]["table"]: one["cron"] for one in ingest["schedules"]}
    assert deployed == declared
    assert all(one["slug"] == one["parameters"]["table"].replace("_", "-") for one in ingest["schedules"])
