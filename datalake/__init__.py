"""The lake: tables of Parquet files on an object store, under DuckLake with its catalog in PostgreSQL.

`datalake.dask_frame`, `datalake.query.query` and `datalake.session.open_lake` are its doors.
"""

from datalake.frame import dask_frame

__all__ = ["dask_frame"]
