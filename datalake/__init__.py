"""The lake: tables of Parquet files on an object store, under DuckLake with its catalog in PostgreSQL."""

from datalake.frame import dask_frame
from datalake.query import Answer, query
from datalake.session import Lake, open_lake

__all__ = ["Answer", "Lake", "dask_frame", "open_lake", "query"]
