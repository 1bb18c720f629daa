"""The estate that Causeway runs in: lineitem as three tables, which differ in what is expected of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from benchmarks.setting import TABLE, Setting, variable

CATALOG = "lake_catalog"
PLAIN, CHECKED, UNIQUE = "lineitem", "lineitem_checked", "lineitem_unique"

# DuckDB reads PostgreSQL's char(10) without the blanks that pad it.
_SHIP_MODES = ["AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK"]
_EXPECTATIONS: list[dict[str, Any]] = [
    {"expect": "table_row_count_to_be_between", "min_value": 1},
    {"expect": "column_values_to_not_be_null", "column": "l_orderkey"},
    {"expect": "column_values_to_not_be_null", "column": "l_partkey"},
    {"expect": "column_values_to_not_be_null", "column": "l_suppkey"},
    {"expect": "column_values_to_be_between", "column": "l_quantity", "min_value": 1, "max_value": 50},
    {"expect": "column_values_to_be_between", "column": "l_discount", "min_value": 0, "max_value": 0.1},
    {"expect": "column_values_to_be_between", "column": "l_tax", "min_value": 0, "max_value": 0.08},
    {"expect": "column_values_to_be_in_set", "column": "l_returnflag", "value_set": ["A", "N", "R"]},
    {"expect": "column_values_to_be_in_set", "column": "l_linestatus", "value_set": ["F", "O"]},
    {"expect": "column_values_to_be_in_set", "column": "l_shipmode", "value_set": _SHIP_MODES},
    {"expect": "column_values_to_match_regex", "column": "l_shipinstruct", "regex": "^[A-Z ]+$"},
]
_ONE_ROW_A_LINE = {"expect": "compound_columns_to_be_unique", "columns": ["l_orderkey", "l_linenumber"]}


def write_estate(setting: Setting, path: Path) -> None:
    """Write the estate; its secrets are the variables of `setting.environment()`."""
    server = f"postgresql://{setting.pg_user}@{setting.pg_host}:{setting.pg_port}"
    password = f"secret:{variable('pg_password')}"
    site = {
        "kind": "private",
        "region": "loopback",
        "holds": "restricted",
        "objects": {
            "url": f"s3+http://{setting.s3_host}",
            "access_key": f"secret:{variable('s3_access_key')}",
            "secret_key": f"secret:{variable('s3_secret_key')}",
        },
        "databases": {
            "business": {"url": f"{server}/{setting.pg_database}", "password": password},
            "catalog": {"url": f"{server}/{CATALOG}", "password": password},
        },
    }
    estate = {
        "name": "bench",
        "organisation": {"bench": {"title": "Benchmark"}},
        "sites": {"here": site},
        "lake": {
            "site": "here",
            "bucket": "bench-lake",
            "catalog": {"site": "here", "database": "catalog"},
        },
        "sources": {TABLE: {"kind": "database", "site": "here", "database": "business", "table": f"public.{TABLE}"}},
        "tables": {
            PLAIN: _table([]),
            CHECKED: _table(_EXPECTATIONS),
            UNIQUE: _table([*_EXPECTATIONS, _ONE_ROW_A_LINE]),
        },
    }
    path.write_text(yaml.safe_dump(estate, sort_keys=False), encoding="utf-8")


def _table(expectations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"source": TABLE, "mode": "append", "owner": "bench", "expectations": expectations}
