"""An estate file that is wrong is refused with every mistake named; the examples are right."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.errors import EstateError, NotFoundError
from connectors.estate import DataClass, Estate, json_schema, load_estate
from tests.unit.estates import EXAMPLES, changed, loaded, plain, tier

_TEN_MISTAKES = """\
name: ten
organisation:
  firm: {title: Firm}
sites:
  idc:
    kind: privat
    region: north
    holds: internal
    colour: blue
    objects:
      url: s3+https://objects.example
      access_key: AKIAPLAINTEXT
      secret_key: secret:SECRET
    databases:
      catalog: {url: "postgresql://me@db.example/c"}
    databases:
      catalog: {url: "postgresql://me@db.example/c"}
lines:
  wire: {between: [idc, clowd], bandwidth_mbit: fast}
lake:
  site: idc
  bucket: lake
  catalog: {site: idc, database: catalogue}
  memory_limit: 10 parsecs
sources:
  rates: {kind: htp, url: "https://rates.example"}
tables:
  rates:
    source: rates
    owner: nobody
    data_class: restricted
"""


def complaint(folder: Path, data: Any) -> str:
    """Return what is said about a wrong estate."""
    with pytest.raises(EstateError) as caught:
        loaded(folder, data)
    return str(caught.value)


def test_ten_mistakes_in_one_file_are_all_named_with_line_key_value_and_choices(tmp_path: Path) -> None:
    text = complaint(tmp_path, _TEN_MISTAKES)
    wanted = [
        (6, "sites.idc.kind", "did you mean 'private'?", "'privat'", "private, public, edge"),
        (9, "sites.idc.colour", "unknown key", "", "balancer, capacity, compute"),
        (12, "sites.idc.objects.access_key", "must be a reference of the form secret:NAME", "", ""),
        (16, "sites.idc.databases", "is given twice, first in line 14", "", ""),
        (19, "lines.wire.between.1", "names no entry of sites", "'clowd'", "choose one of: idc"),
        (19, "lines.wire.bandwidth_mbit", "should be a valid number", "'fast'", ""),
        (23, "lake.catalog.database", "names no database of site idc", "'catalogue'", "choose one of: catalog"),
        (24, "lake.memory_limit", "byte unit", "'10 parsecs'", ""),
        (26, "sources.rates.kind", "did you mean 'http'?", "'htp'", "database, objects, files, http, documents"),
        (30, "tables.rates.owner", "names no owner", "'nobody'", "choose one of: firm"),
        (31, "tables.rates.data_class", "site idc may hold internal at most", "'restricted'", "public, internal"),
    ]
    lines = text.splitlines()
    assert lines[0].endswith(f"{len(wanted)} mistakes")
    assert len(lines) == 1 + len(wanted)
    for (number, path, *parts), line in zip(wanted, lines[1:], strict=True):
        assert line.startswith(f"  {tmp_path / 'estate.yaml'}:{number}: `{path}`: ")
        assert all(part in line for part in parts), line
    assert "AKIAPLAINTEXT" not in text


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("name", "Not A Name", "should match pattern"),
        ("sites.idc.kind", "hybrid", "choose one of: private, public, edge"),
        ("sites.idc.holds", "secret", "choose one of: public, internal, confidential, restricted"),
        ("sites.idc.quota", {"instances": -1}, "greater than or equal to 0"),
        ("sites.idc.databases.business.url", "no-url", "should match pattern"),
        ("sites.idc.objects.url", "https://objects.example", "s3"),
        ("lines.wire.between", ["idc", "idc"], "a line joins two different sites"),
        ("lines.wire.between", ["idc"], "`lines.wire.between.1`: is required"),
        ("lines.wire.reserved", {"business": 0.8, "management": 0.3}, "reserve more than the whole line"),
        ("applications.shop.owner", "stranger", "choose one of: firm, team"),
        ("applications.shop.depends_on", ["shp"], "choose one of: pay, shop"),
        ("applications.shop.depends_on", ["pay"], "`applications.shop.depends_on`: depends on itself"),
        ("applications.shop.depends_on", ["shop"], "depends on itself"),
        ("applications.shop.tiers.web.sites", ["moon"], "choose one of: cloud, idc"),
        ("applications.shop.tiers.web.data_class", "confidential", "site cloud may hold internal at most"),
        ("applications.shop.tiers.web.scaling", {"min_instances": 3, "max_instances": 2}, "above max_instances"),
        ("applications.shop.tiers.web.scaling", {"target_metric": "latency_ms"}, "belong together"),
        ("applications.shop.tiers.web.image", "latest", "sha256"),
        ("applications.shop.tiers.web", {"kind": "database", "sites": ["idc"]}, "needs database"),
        ("applications.shop.tiers.web", {**tier(), "health": None}, "needs image and health"),
        (
            "applications.shop.tiers.web",
            {"kind": "database", "database": "busines", "sites": ["idc"]},
            "names no database of site idc; the value is 'busines'; choose one of: business, catalog",
        ),
        ("applications.shop.recovery", {"rto": "soon", "rpo": "4h", "site": "idc"}, "is not a duration"),
        ("applications.shop.recovery", {"rto": "12h", "rpo": "4h", "site": "mars"}, "choose one of: cloud, idc"),
        ("sources.orders.site", "cloud", "names no database of site cloud"),
        ("sources.orders.table", None, "give either table or query"),
        ("sources.orders.query", "SELECT 1", "give either table or query"),
        ("sources.rates.kind", "ftp", "choose one of: changes, database, objects, files, http, documents"),
        ("sources.rates", {"url": "https://rates.example"}, "`sources.rates.kind`: is required"),
        ("tables.orders.source", "order", "names no entry of sources"),
        ("tables.orders.key", [], "mode merge needs key"),
        ("tables.orders.schedule", "daily", "should match pattern"),
        ("tables.orders.expectations.0.expect", "column_to_be_nice", "choose one of: column_values_to_not_be_null"),
        ("tables.orders.expectations.0.column", None, "column_values_to_be_unique needs column"),
        ("tables.orders.expectations.0.mostly", 1.5, "less than or equal to 1"),
        ("tables.orders.expectations.0.min_value", [1], "a valid integer or should be a valid number or"),
        ("lake.site", "clod", "names no entry of sites"),
        ("lake.keep_quarantined", "99999999999d", "longer than any duration"),
    ],
)
def test_a_single_mistake_is_named_with_its_line(tmp_path: Path, path: str, value: Any, said: str) -> None:
    text = complaint(tmp_path, changed(path, value))
    assert said in text
    assert re.search(rf"{re.escape(str(tmp_path))}/estate.yaml:\d+: `", text)


@pytest.mark.parametrize(
    "path",
    [
        "", "organisation.firm", "organisation.firm.parts.team", "sites.idc", "sites.idc.objects",
        "sites.idc.databases.business", "lines.wire", "applications.shop", "applications.shop.tiers.web",
        "applications.shop.tiers.web.health", "lake", "lake.catalog", "sources.orders", "sources.rates",
        "tables.orders", "tables.orders.expectations.0",
    ],
)  # fmt: skip
def test_an_unknown_key_is_a_mistake_at_every_level(tmp_path: Path, path: str) -> None:
    whole = f"{path}.surprise".lstrip(".")
    text = complaint(tmp_path, changed(whole, 1))
    assert "1 mistake\n" in text
    assert f"`{whole}`: unknown key; choose one of: " in text


def test_a_misspelt_key_gets_a_suggestion(tmp_path: Path) -> None:
    assert "did you mean 'expectations'?" in complaint(tmp_path, changed("tables.orders.expectation", []))


def test_a_recovery_site_must_be_allowed_to_hold_the_applications_data(tmp_path: Path) -> None:
    data = changed("applications.shop.tiers.web", {**tier(), "sites": ["idc"], "data_class": "restricted"})
    data["applications"]["shop"]["recovery"] = {"rto": "12h", "rpo": "4h", "site": "cloud"}
    assert "site cloud may hold internal at most" in complaint(tmp_path, data)


def test_every_application_of_a_circle_is_named(tmp_path: Path) -> None:
    data = plain()
    for name, other in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")):
        data["applications"][name] = {"owner": "team", "depends_on": [other], "tiers": {"web": tier()}}
    text = complaint(tmp_path, data)
    assert "3 mistakes" in text
    assert all(f"`applications.{name}.depends_on`: depends on itself" in text for name in "abc")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sites.idc.objects.access_key", "hunter2hunter2"),
        ("sites.idc.objects.secret_key", {"value": "hunter2hunter2"}),
        ("sites.idc.databases.business.password", ["hunter2hunter2"]),
        ("sites.idc.databases.business.password", "secret:hunter2 hunter2"),
        ("sites.idc.databases.business.url", "postgresql://me:hunter2@db.example/b"),
        ("sites.idc.databases.business.url", "postgresql://me:hunter2/a@b@db.example:5432/b"),
        ("sites.idc.databases", [{"password": "hunter2hunter2"}]),
        ("sites.idc.objects", "access_key=hunter2hunter2"),
        ("sites.idc.objects.session_token", "hunter2hunter2"),
        ("sources.rates.token", "hunter2hunter2"),
        ("sources.rates.headers", {"Authorization": "Bearer hunter2"}),
        ("sources.rates.headers", {"X-Api-Key": "hunter2hunter2"}),
    ],
)
def test_a_secret_in_plain_text_is_refused_and_never_shown(tmp_path: Path, path: str, value: Any) -> None:
    text = complaint(tmp_path, changed(path, value))
    assert "hunter2" not in text
    assert f"`{path}`: " in text


def test_an_owner_named_like_a_secret_is_shown_in_full(tmp_path: Path) -> None:
    assert "`sources.rates.token`: must be a reference of the form" in complaint(
        tmp_path, changed("sources.rates.token", "plain")
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nsites: [1, 2\nlake: y\n", "line 3"),
        ("name: x\n\tsites: y\n", "line 2"),
        ("- a\n- b\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("name: a\n---\nname: b\n", "line 2"),
        ("name: !!python/object/apply:os.getcwd []\n", "line 1"),
        ("name: &a [*a]\n", "an alias holds itself"),
        ("1: x\n", "Keys should be strings"),
    ],
)
def test_a_file_that_is_no_estate_at_all_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(tmp_path, text)


def test_a_missing_file_and_an_unreadable_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere\.yaml: there is no such file"):
        load_estate(tmp_path / "nowhere.yaml")
    with pytest.raises(EstateError, match="directory"):
        load_estate(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EstateError, match="decode"):
        load_estate(tmp_path / "binary.yaml")


def test_sizes_and_durations_are_read_with_their_units(tmp_path: Path) -> None:
    data = changed("lake.memory_limit", "1.5 GiB")
    data["applications"]["shop"]["recovery"] = {"rto": "1h 30m", "rpo": "15s", "site": "idc"}
    estate = loaded(tmp_path, data)
    assert estate.lake.memory_limit == 3 << 29
    recovery = estate.applications["shop"].recovery
    assert recovery is not None
    assert (recovery.rto, recovery.rpo) == (timedelta(minutes=90), timedelta(seconds=15))
    assert recovery.drill_every == timedelta(days=30)


def test_an_estate_that_is_dumped_and_loaded_again_is_the_same(tmp_path: Path) -> None:
    estate = load_estate(EXAMPLES / "production.yaml")
    dumped = json.loads(estate.model_dump_json(exclude_none=True))
    assert loaded(tmp_path, dumped) == estate


def test_names_that_are_asked_for_and_missing_come_with_the_choices(tmp_path: Path) -> None:
    estate = loaded(tmp_path, plain())
    with pytest.raises(NotFoundError, match="Choose one of: orders"):
        estate.table("order")
    with pytest.raises(NotFoundError, match="Choose one of: business, catalog"):
        estate.database("idc", "orders")
    with pytest.raises(NotFoundError, match="has no object store"):
        estate.objects("cloud")


@given(held=st.sampled_from(DataClass), wanted=st.sampled_from(DataClass))
def test_a_site_may_hold_its_own_class_and_those_below(held: DataClass, wanted: DataClass) -> None:
    order = ["public", "internal", "confidential", "restricted"]
    estate = Estate.model_validate(changed("sites.cloud.holds", held.value))
    assert estate.may_hold("cloud", wanted) == (order.index(wanted) <= order.index(held))


_JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 1.5, "", "idc", "x y", [], ["idc"], [[1]], {}, {"a": {}}, [{"idc": 1}], "1h"]
)


def _paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, below in pairs for path in [(*above, key), *_paths(below, (*above, key))]]


_PATHS = _paths(changed("applications.shop.recovery", {"rto": "1h", "rpo": "1h", "site": "idc"}))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changes=st.lists(st.tuples(st.sampled_from(_PATHS), _JUNK), min_size=1, max_size=3))
def test_junk_anywhere_is_an_estate_error_and_nothing_else(
    tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    data = changed("applications.shop.recovery", {"rto": "1h", "rpo": "1h", "site": "idc"})
    for path, value in changes:
        place: Any = data
        try:
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = copy.deepcopy(value)
        except (KeyError, TypeError, IndexError):
            continue  # an earlier change took the place away
    with contextlib.suppress(EstateError):
        loaded(tmp_path, data)


# --- The examples and the schema -----------------------------------------------------------------


def _example(name: str) -> str:
    return re.sub(r"\$\{\w+\}", "1234", (EXAMPLES / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["embedded.yaml", "production.yaml"])
def test_the_examples_load_and_fit_the_schema_that_editors_use(tmp_path: Path, name: str) -> None:
    text = _example(name)
    assert text.startswith("# yaml-language-server: $schema=estate.schema.json\n")
    loaded(tmp_path, text)
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load(text))


def test_the_schema_is_a_schema_and_refuses_what_the_model_refuses() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(plain())
    for path, value in [("surprise", 1), ("sites.idc.kind", "x"), ("sites.idc.objects.access_key", "plain")]:
        assert not validator.is_valid(changed(path, value)), path


def test_the_schema_file_is_current() -> None:
    kept = json.loads((EXAMPLES / "estate.schema.json").read_text(encoding="utf-8"))
    assert kept == json_schema(), "run: causeway schema > deployments/estates/estate.schema.json"


def test_the_production_example_has_every_noun() -> None:
    estate = load_estate(EXAMPLES / "production.yaml")
    assert {site.kind for site in estate.sites.values()} == {"private", "public", "edge"}
    assert {line.role for line in estate.lines.values()} == {"production", "hot", "cold"}
    assert {source.kind for source in estate.sources.values()} == {"database", "objects", "files", "http", "documents"}
    assert {table.mode for table in estate.tables.values()} == {"append", "replace", "merge"}
    assert {table.data_class for table in estate.tables.values()} == set(DataClass)
    assert any(app.recovery and app.recovery.rto == timedelta(hours=12) for app in estate.applications.values())


def test_every_key_of_the_schema_has_a_description() -> None:
    silent = [
        f"{name}.{key}"
        for name, noun in json_schema()["$defs"].items()
        for key, field in noun.get("properties", {}).items()
        if "description" not in field and "const" not in field
    ]
    assert silent == []
