"""A small estate that is right, for tests that make it wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from connectors.estate import Estate, load_estate

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "deployments" / "estates"


def plain() -> dict[str, Any]:
    """Return the plain data of an estate with one of nearly everything."""
    return {
        "name": "small",
        "organisation": {"firm": {"title": "Firm", "parts": {"team": {"title": "Team"}}}},
        "sites": {
            "idc": {
                "kind": "private",
                "region": "north",
                "holds": "restricted",
                "objects": {
                    "url": "s3+https://objects.idc.example:9000",
                    "access_key": "secret:ACCESS",
                    "secret_key": "secret:SECRET",
                },
                "databases": {
                    "business": {"url": "postgresql://me@db.idc.example:5432/b", "password": "secret:DB"},
                    "catalog": {"url": "postgresql://me@db.idc.example:5432/c", "password": "secret:DB"},
                },
            },
            "cloud": {"kind": "public", "region": "east", "holds": "internal"},
        },
        "lines": {"wire": {"between": ["idc", "cloud"], "bandwidth_mbit": 100}},
        "applications": {
            "shop": {"owner": "team", "tiers": {"web": tier()}},
            "pay": {"owner": "firm", "depends_on": ["shop"], "tiers": {"api": tier()}},
        },
        "lake": {"site": "idc", "bucket": "lake", "catalog": {"site": "idc", "database": "catalog"}},
        "sources": {
            "orders": {"kind": "database", "site": "idc", "database": "business", "table": "public.orders"},
            "rates": {"kind": "http", "url": "https://rates.example/daily"},
        },
        "tables": {
            "orders": {
                "source": "orders",
                "mode": "merge",
                "key": ["id"],
                "cursor": "at",
                "owner": "team",
                "expectations": [{"expect": "column_values_to_be_unique", "column": "id"}],
            }
        },
    }


def tier() -> dict[str, Any]:
    """Return a tier of instances."""
    return {"image": f"sha256:{'0' * 64}", "sites": ["idc", "cloud"], "health": {"port": 80}}


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the estate with `value` at a dotted key path."""
    data = plain()
    *above, last = path.split(".")
    place: Any = data
    for key in above:
        place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
    place[int(last) if isinstance(place, list) else last] = value
    return data


def written(folder: Path, data: Any) -> Path:
    """Write an estate file and return its path."""
    path = folder / "estate.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def loaded(folder: Path, data: Any) -> Estate:
    """Write an estate file and load it."""
    return load_estate(written(folder, data))
