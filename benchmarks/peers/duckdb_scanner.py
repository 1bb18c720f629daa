"""Bare DuckDB: its postgres extension to one Parquet file on S3."""

from __future__ import annotations

from benchmarks.objects import open_objects
from benchmarks.setting import TABLE, Setting, result_prefix
from benchmarks.source import attach
from connectors.duck import load_extension


def main() -> None:
    """Copy the table with DuckDB's defaults, but for the order of rows, which its guide says to give up."""
    setting = Setting.from_environment()
    with open_objects(setting) as connection:
        load_extension(connection, "postgres_scanner")
        connection.execute("SET preserve_insertion_order = false")
        attach(connection, setting, read_only=True)
        target = f"{result_prefix()}/{TABLE}.parquet"
        connection.execute(f"COPY (SELECT * FROM source.public.{TABLE}) TO '{target}' (FORMAT parquet)")


if __name__ == "__main__":
    main()
