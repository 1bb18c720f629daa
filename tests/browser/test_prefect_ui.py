"""The Prefect UI of an embedded estate, as its user sees it: what is offered, started, done and set aside."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Locator, Page, expect

from connectors.estate import load_estate
from connectors.objects import objects
from deployments.demo.seed import bad_readings, put_live
from tests.browser.site import Site, Watched, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.servers]

AIRPORTS = 1458
FLOWS = ("ingest", "backfill", "query", "maintain", "replicate", "watch")
END = 90_000  # milliseconds from the order to the end of a run: runner's poll, process, imports, load
Picture = Callable[[str], None]


def test_every_flow_is_offered_as_a_deployment_with_its_schedules(site: Site, page: Page, picture: Picture) -> None:
    page.goto(f"{site.ui}/deployments")
    rows = page.get_by_role("row").filter(has_text="embedded")
    expect(rows).to_have_count(len(FLOWS))
    for flow in FLOWS:
        expect(rows.filter(has_text=flow)).to_contain_text("Ready")
    expect(rows.filter(has_text="ingest")).to_contain_text("At 02:00 AM every day")
    picture("deployments")


def test_the_form_of_ingest_offers_the_tables_and_explains_every_field(
    site: Site, page: Page, picture: Picture
) -> None:
    _open_form(site, page, "ingest/embedded")
    for name in ("estate", "table", "start", "end", "load_key", "dry_run"):
        expect(_field(page, name).locator(".p-label__description")).to_have_text(re.compile(r"\w+ \w+.*\."))
    for name in ("start", "end", "load_key"):  # plain text fields, no choice between "str" and "None"
        expect(_field(page, name).get_by_role("textbox")).to_be_visible()
    expect(_field(page, "estate").get_by_role("textbox")).to_have_value(str(site.home.estate_file))
    _open_choice(page)
    expect(page.get_by_role("option")).to_have_text(sorted(load_estate(site.home.estate_file).tables))
    page.get_by_role("option", name="flights", exact=True).click()
    picture("form")


def test_the_form_of_backfill_offers_only_tables_that_can_be_sliced(site: Site, page: Page) -> None:
    _open_form(site, page, "backfill/embedded")
    _open_choice(page)
    expect(page.get_by_role("option")).to_have_text(["flights", "weather"])


def test_a_load_from_the_form_completes_and_shows_its_steps_and_artifacts(
    site: Site, page: Page, picture: Picture
) -> None:
    earlier = len(site.loads("airports"))
    _start_from_form(site, page, "airports")
    _expect_state(page, "Completed")
    page.reload()  # the number of tasks is counted once, when the page opens
    expect(page.get_by_text("3 Task runs").first).to_be_visible()

    _tab(page, "Task Runs")
    for step in ("stage airports", "check airports", "commit airports"):
        expect(page.get_by_role("link", name=step)).to_be_visible()
    expect(page.get_by_text("(3 Completed)")).to_be_visible()

    _tab(page, "Artifacts")
    expect(page.get_by_text("load-airports")).to_be_visible()
    picture("run")
    run_page = page.url

    page.get_by_text("load-airports").click()
    body = page.locator("body")
    expect(body).to_contain_text("airports: committed")
    expect(body).to_contain_text(re.compile(r"rows\s*1,458"))
    expect(body).to_contain_text(re.compile(r"speed\s*[\d,]+ rows/s"))
    expect(body).to_contain_text(re.compile(r"from\s*airports"))
    picture("load")

    page.goto(run_page)
    _tab(page, "Artifacts")
    page.get_by_text("quality-airports").click()
    table = page.get_by_role("row")
    expect(table.filter(has_text="column_values_to_be_unique")).to_contain_text("ok")
    expect(table.filter(has_text="lat")).to_contain_text("ok")
    expect(table.filter(has_text="lon")).to_contain_text("ok")
    picture("quality")
    _expect_one_more_load(site, page, earlier)


def test_a_load_from_the_command_line_gives_the_same(site: Site, page: Page) -> None:
    earlier = len(site.loads("airports"))
    said = site.run(
        "-m", "prefect", "deployment", "run", "ingest/embedded", "--param", "table=airports", "--watch"
    )  # fmt: skip
    assert "Created flow run" in said
    assert "Flow run finished successfully in 'Completed'" in said
    _expect_one_more_load(site, page, earlier)


def test_a_load_from_a_schedule_gives_the_same(site: Site, page: Page) -> None:
    earlier = len(site.loads("airports"))
    ingest = f"/deployments/{site.deployment('ingest/embedded')}"
    site.ask("POST", f"{ingest}/pause_deployment")
    due = datetime.now(UTC) + timedelta(seconds=12)
    every_day = {"interval": 86_400, "anchor_date": due.isoformat(), "timezone": "UTC"}
    parameters = {"table": "airports"}
    (made,) = site.ask(
        "POST", f"{ingest}/schedules", [{"schedule": every_day, "active": True, "parameters": parameters}]
    )
    # The scheduler looks at a deployment that was resumed within 5 s, at others once a minute.
    site.ask("POST", f"{ingest}/resume_deployment")
    try:
        wait_for(lambda: len(site.loads("airports")) > earlier)
    finally:
        site.ask("DELETE", f"{ingest}/schedules/{made['id']}")
    _expect_one_more_load(site, page, earlier)


def test_a_load_from_python_gives_the_same(site: Site, page: Page) -> None:
    earlier = len(site.loads("airports"))
    code = f"from flows.ingest import ingest; print(ingest({str(site.home.estate_file)!r}, 'airports').rows)"
    assert site.run("-c", code).split()[-1] == str(AIRPORTS)
    _expect_one_more_load(site, page, earlier)


def test_a_bad_batch_is_shown_as_quarantined_with_the_reason(site: Site, page: Page, picture: Picture) -> None:
    put_live(objects(load_estate(site.home.estate_file).objects("cloud")), "2014-01-01T01.jsonl", bad_readings())
    _start_from_form(site, page, "weather_live")
    _expect_state(page, "Quarantined")
    body = page.locator("body")
    expect(body).to_contain_text("column_values_to_be_between (humid)")
    expect(body).to_contain_text("1 of 28 rows")
    expect(body).to_contain_text("nothing of it is visible")
    picture("quarantined")
    _tab(page, "Details")
    expect(body).to_contain_text(re.compile(r"State Message\s*lake: load weather_live: column_values_to_be_between"))
    _tab(page, "Artifacts")
    page.get_by_text("quality-weather-live").click()
    rows = page.get_by_role("row")
    expect(rows.filter(has_text="humid")).to_contain_text("quarantine")
    expect(rows.filter(has_text="origin")).to_contain_text("quarantine")


def test_the_zombie_automation_and_the_limit_are_on_their_pages(site: Site, page: Page) -> None:
    page.goto(f"{site.ui}/automations")
    expect(page.get_by_text("causeway: runs without a heartbeat have crashed")).to_be_visible()
    expect(page.locator("body")).to_contain_text("for 10 minutes")
    page.goto(f"{site.ui}/concurrency-limits")
    expect(page.get_by_role("row").filter(has_text="causeway-ingest")).to_contain_text("2")


@pytest.mark.parametrize(
    "name", ["dashboard", "runs", "flows", "work-pools", "blocks", "variables", "events", "artifacts"]
)
def test_a_page_of_the_ui_needs_no_internet_and_has_no_error(site: Site, watched: Watched, name: str) -> None:
    watched.page.goto(f"{site.ui}/{name}")
    expect(watched.page.get_by_text("Deployments", exact=True).first).to_be_visible()
    watched.page.wait_for_load_state("networkidle")
    assert watched.problems == []


def _open_form(site: Site, page: Page, deployment: str) -> None:
    """Open a deployment's page, and its form by the menu of its button, as a user does."""
    page.goto(f"{site.ui}/deployments/deployment/{site.deployment(deployment)}")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    expect(page.get_by_text("Validate parameters")).to_be_visible()


def _field(page: Page, name: str) -> Locator:
    label = page.get_by_text(re.compile(rf"^{name}( \(Optional\))?$"))
    return page.locator(".schema-form-property").filter(has=label)


def _open_choice(page: Page) -> None:
    _field(page, "table").locator(".p-select-button__control").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option").first).to_be_visible()


def _start_from_form(site: Site, page: Page, table: str) -> None:
    """Fill the form in, submit it, and open the page of the run that it made."""
    _open_form(site, page, "ingest/embedded")
    _open_choice(page)
    page.get_by_role("option", name=table, exact=True).click()
    with page.expect_response("**/create_flow_run") as answered:
        page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("button", name="View run").first).to_be_visible()
    page.goto(site.run_page(answered.value.json()["id"]))


def _expect_state(page: Page, state: str) -> None:
    expect(page.locator(".page-heading .state-badge")).to_have_text(state, timeout=END)


def _tab(page: Page, name: str) -> None:
    page.locator(".p-tab").get_by_text(name, exact=True).click()


def _expect_one_more_load(site: Site, page: Page, earlier: int) -> None:
    """One load was added, it is committed and shown as completed, and the lake has the rows of the source."""
    loads = site.loads("airports")
    assert len(loads) == earlier + 1
    load = loads[-1]
    assert (load.status, load.rows, load.files) == ("committed", AIRPORTS, 1)
    assert (load.mode, load.source) == ("replace", "airports")
    assert site.airports_in_the_lake() == site.airports_in_the_source()
    page.goto(site.run_page(load.flow_run_id))
    _expect_state(page, "Completed")
    expect(page.get_by_text("ingest airports").first).to_be_visible()
