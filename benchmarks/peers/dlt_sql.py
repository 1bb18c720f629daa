"""dlt's sql_database source to its filesystem destination: `python -m benchmarks.peers.dlt_sql BACKEND`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import dlt
from dlt.common.configuration.specs import AwsCredentials
from dlt.destinations import filesystem
from dlt.sources.sql_database import sql_table

from benchmarks.setting import TABLE, Setting, result_prefix

_ROWS_A_CHUNK = 100_000
# connectorx would hold the whole table in memory; as a stream it is also the faster one here.
_OPTIONS: dict[str, dict[str, Any]] = {"connectorx": {"return_type": "arrow_stream"}, "pyarrow": {}}


def main(backend: Literal["connectorx", "pyarrow"]) -> None:
    """Run the pipeline with its working folder in the current one."""
    setting = Setting.from_environment()
    credentials = AwsCredentials(
        aws_access_key_id=setting.s3_access_key,
        aws_secret_access_key=setting.s3_secret_key,
        endpoint_url=f"http://{setting.s3_host}",
        region_name="us-east-1",
    )
    pipeline = dlt.pipeline(
        pipeline_name="bench",
        pipelines_dir=str(Path.cwd()),
        destination=filesystem(bucket_url=result_prefix(), credentials=credentials),
        dataset_name="bench",
    )
    table = sql_table(
        credentials=setting.pg_url,
        schema="public",
        table=TABLE,
        backend=backend,
        chunk_size=_ROWS_A_CHUNK,
        backend_kwargs=_OPTIONS[backend],
        reflection_level="full_with_precision",
    )
    pipeline.run(table, loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__":
    main("pyarrow" if sys.argv[1] == "pyarrow" else "connectorx")
