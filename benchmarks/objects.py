"""The object store as the benchmark itself reads and writes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
from minio import Minio

from benchmarks.setting import BUCKET, Setting
from connectors.duck import connect, load_extension, quote_literal


def make_bucket(setting: Setting) -> None:
    """Make the bucket of the peers' results unless it is there."""
    client = Minio(
        endpoint=setting.s3_host,
        access_key=setting.s3_access_key,
        secret_key=setting.s3_secret_key,
        secure=False,
    )
    if not client.bucket_exists(bucket_name=BUCKET):
        client.make_bucket(bucket_name=BUCKET)


@contextmanager
def open_objects(setting: Setting) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB that reaches the store as s3://."""
    connection = connect()
    try:
        load_extension(connection, "httpfs")
        fields = {
            "KEY_ID": setting.s3_access_key,
            "SECRET": setting.s3_secret_key,
            "ENDPOINT": setting.s3_host,
            "URL_STYLE": "path",
        }
        listed = ", ".join(f"{name} {quote_literal(value)}" for name, value in fields.items())
        connection.execute(f"CREATE SECRET objects (TYPE s3, {listed}, USE_SSL false)")
        yield connection
    finally:
        connection.close()
