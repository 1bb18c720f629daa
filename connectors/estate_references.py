"""Finds names in an estate that point at nothing, and data classes at sites that may not hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.estate import DataClass

KeyPath = tuple[str | int, ...]

# Where a name stands, and the mapping whose keys it must be one of. '*' is any key or index.
_REFERENCES = [
    ("lines.*.between.*", "sites"),
    ("applications.*.depends_on.*", "applications"),
    ("applications.*.tiers.*.sites.*", "sites"),
    ("applications.*.recovery.site", "sites"),
    ("lake.site", "sites"),
    ("lake.catalog.site", "sites"),
    ("sources.*.site", "sites"),
    ("tables.*.source", "sources"),
]
_OWNERS = ["applications.*.owner", "tables.*.owner"]
_ORDER = [one.value for one in DataClass]


@dataclass(frozen=True)
class Problem:
    """A mistake: where it stands, what is wrong, the value and what would be right."""

    path: KeyPath
    message: str
    value: Any = None
    choices: tuple[str, ...] = ()


def dangling_references(data: dict[str, Any]) -> Iterator[Problem]:
    """Yield the problems that no single key shows; `data` may be wrong in any other way too."""
    for pattern, target in _REFERENCES:
        choices = _names(data.get(target))
        for path, value in _find(data, pattern):
            if isinstance(value, str) and value not in choices:
                yield Problem(path, f"names no entry of {target}", value, tuple(sorted(choices)))
    owners = set(_owner_names(data.get("organisation")))
    for pattern in _OWNERS:
        for path, value in _find(data, pattern):
            if isinstance(value, str) and value not in owners:
                yield Problem(path, "names no owner of organisation", value, tuple(sorted(owners)))
    yield from _databases(data)
    yield from _changes(data)
    yield from _held_classes(data)
    yield from _dependency_circles(data)


def _find(data: Any, pattern: str) -> Iterator[tuple[KeyPath, Any]]:
    found: list[tuple[KeyPath, Any]] = [((), data)]
    for part in pattern.split("."):
        found = [
            ((*path, key), below) for path, value in found for key, below in _children(value) if part in ("*", key)
        ]
    yield from found


def _children(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _names(value: Any) -> set[str]:
    return {str(key) for key in value} if isinstance(value, dict) else set()


def _owner_names(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for name, owner in tree.items():
            yield str(name)
            yield from _owner_names(owner.get("parts") if isinstance(owner, dict) else None)


def _get(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _databases(data: dict[str, Any]) -> Iterator[Problem]:
    """A database that is named must be one of its site's."""
    uses = [((*path, "database"), use, _get(use, "site")) for path, use in _find(data, "sources.*")]
    catalog = _get(data, "lake", "catalog")
    uses.append((("lake", "catalog", "database"), catalog, _get(catalog, "site")))
    for path, tier in _find(data, "applications.*.tiers.*"):
        uses += [((*path, "database"), tier, site) for site in _list(_get(tier, "sites"))]
    for path, use, site in uses:
        name = _get(use, "database")
        choices = _names(_get(data, "sites", str(site), "databases"))
        if isinstance(name, str) and str(site) in _names(data.get("sites")) and name not in choices:
            yield Problem(path, f"names no database of site {site}", name, tuple(sorted(choices)))


def _changes(data: dict[str, Any]) -> Iterator[Problem]:
    """A source of changes and the tables that follow it name each other."""
    tables = data.get("tables")
    for name, source in _children(data.get("sources")):
        if _get(source, "kind") != "changes":
            continue
        followed = _names(_get(source, "tables"))
        for table in followed:
            if _get(tables, table, "source") != name:
                where: KeyPath = ("sources", name, "tables", table)
                yield Problem(where, f"names no table whose source is {name}", table, tuple(sorted(_names(tables))))
        for path, declared in _find(data, "tables.*"):
            if _get(declared, "source") != name:
                continue
            table = str(path[1])
            if table not in followed:
                yield Problem(("tables", table, "source"), f"is not among the tables of source {name}", table)
            if _get(declared, "mode") != "merge":
                yield Problem(("tables", table, "mode"), "a table that follows changes is merged", None, ("merge",))
            for key in ("increment", "expectations", "schedule"):
                if _get(declared, key):
                    yield Problem(("tables", table, key), "is not for a table that follows changes", None)


def _held_classes(data: dict[str, Any]) -> Iterator[Problem]:
    """A site must be allowed to hold what is put there."""
    for path, tier in _find(data, "applications.*.tiers.*"):
        recovery = _get(data, "applications", str(path[1]), "recovery", "site")
        for site in dict.fromkeys(str(one) for one in [*_list(_get(tier, "sites")), recovery]):
            yield from _too_sensitive(data, (*path, "data_class"), tier, site, "internal")
    lake_site = _get(data, "lake", "site")
    for path, table in _find(data, "tables.*"):
        yield from _too_sensitive(data, (*path, "data_class"), table, str(lake_site), "internal")


def _too_sensitive(data: dict[str, Any], path: KeyPath, noun: Any, site: str, default: str) -> Iterator[Problem]:
    wanted = _get(noun, "data_class") or default
    held = _get(data, "sites", site, "holds")
    if wanted in _ORDER and held in _ORDER and _ORDER.index(wanted) > _ORDER.index(held):
        allowed = tuple(_ORDER[: _ORDER.index(held) + 1])
        yield Problem(path, f"site {site} may hold {held} at most", wanted, allowed)


def _dependency_circles(data: dict[str, Any]) -> Iterator[Problem]:
    """Applications that wait for each other could never be booted."""
    applications = data.get("applications")
    for name in _names(applications):
        seen, ahead = set(), [name]
        while ahead:
            for other in _list(_get(applications, ahead.pop(), "depends_on")):
                if other == name:
                    yield Problem(("applications", name, "depends_on"), "depends on itself", name)
                    ahead.clear()
                    break
                if isinstance(other, str) and other not in seen:
                    seen.add(other)
                    ahead.append(other)
