"""The source of the benchmark: lineitem of TPC-H in a PostgreSQL table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg

from benchmarks.setting import Setting
from connectors.duck import connect, load_extension, quote_literal

# Types and nullability of the TPC-H specification, section 1.4.
_CREATE = """
CREATE TABLE lineitem (
    l_orderkey bigint NOT NULL,
    l_partkey integer NOT NULL,
    l_suppkey integer NOT NULL,
    l_linenumber integer NOT NULL,
    l_quantity numeric(15,2) NOT NULL,
    l_extendedprice numeric(15,2) NOT NULL,
    l_discount numeric(15,2) NOT NULL,
    l_tax numeric(15,2) NOT NULL,
    l_returnflag char(1) NOT NULL,
    l_linestatus char(1) NOT NULL,
    l_shipdate date NOT NULL,
    l_commitdate date NOT NULL,
    l_receiptdate date NOT NULL,
    l_shipinstruct char(25) NOT NULL,
    l_shipmode char(10) NOT NULL,
    l_comment varchar(44) NOT NULL
)
"""
_STEPS_PER_SCALE = 4  # so that a step makes 1.5 million rows, whatever the scale


@dataclass(frozen=True)
class Totals:
    """What tells a complete and correct copy of lineitem from another."""

    rows: int
    quantity: str
    """sum(l_quantity), as an exact decimal"""
    extended_price: str
    """sum(l_extendedprice), as an exact decimal"""


TOTALS_SQL = "SELECT count(*), sum(CAST(l_quantity AS DECIMAL(15,2))), sum(CAST(l_extendedprice AS DECIMAL(15,2)))"


def totals(row: tuple[Any, ...]) -> Totals:
    """Return the answer to TOTALS_SQL in a form that compares equal whoever has computed it."""
    count, quantity, price = row
    return Totals(int(count), f"{Decimal(quantity or 0):.2f}", f"{Decimal(price or 0):.2f}")


def prepare(setting: Setting, scale: float, marker: Path) -> Totals:
    """Make sure that the database holds lineitem at `scale`; `marker` says that it does."""
    if marker.exists():
        return Totals(**json.loads(marker.read_text()))
    with closing(_postgres(setting)) as postgres:
        postgres.execute("DROP TABLE IF EXISTS lineitem")
        postgres.execute(_CREATE)
        steps = max(1, math.ceil(scale * _STEPS_PER_SCALE))
        for step in range(steps):
            _load_step(setting, scale, steps, step)
            print(f"  lineitem at scale {scale:g}: step {step + 1} of {steps}", flush=True)
        postgres.execute("VACUUM ANALYZE lineitem")
        postgres.execute("CHECKPOINT")
        found = totals(postgres.execute(f"{TOTALS_SQL} FROM lineitem").fetchone() or ())
    marker.write_text(json.dumps(asdict(found)))
    return found


def recreate_database(setting: Setting, name: str) -> None:
    """Give the lake's catalog an empty database."""
    with closing(_postgres(setting)) as postgres:
        postgres.execute(f"DROP DATABASE IF EXISTS {name}")
        postgres.execute(f"CREATE DATABASE {name}")


def attach(connection: duckdb.DuckDBPyConnection, setting: Setting, *, read_only: bool) -> None:
    """Attach the database to DuckDB as `source`."""
    fields = {
        "HOST": setting.pg_host,
        "PORT": setting.pg_port,
        "DATABASE": setting.pg_database,
        "USER": setting.pg_user,
        "PASSWORD": setting.pg_password,
    }
    listed = ", ".join(f"{name} {quote_literal(value)}" for name, value in fields.items())
    connection.execute(f"CREATE SECRET source (TYPE postgres, {listed})")
    option = ", READ_ONLY" if read_only else ""
    connection.execute(f"ATTACH '' AS source (TYPE postgres, SECRET source{option})")


def _load_step(setting: Setting, scale: float, steps: int, step: int) -> None:
    with _generator() as generator:
        part = f", children={steps}, step={step}" if steps > 1 else ""
        generator.execute(f"CALL dbgen(sf={scale}{part})")
        attach(generator, setting, read_only=False)
        generator.execute("INSERT INTO source.public.lineitem SELECT * FROM memory.main.lineitem")


@contextmanager
def _generator() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that lives for one step: what it has generated goes with it."""
    connection = connect()
    try:
        for extension in ("tpch", "postgres_scanner"):
            load_extension(connection, extension)
        yield connection
    finally:
        connection.close()


def _postgres(setting: Setting) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(setting.pg_url, autocommit=True)
