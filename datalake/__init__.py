"""The lake: tables of Parquet files on an object store, under DuckLake with its catalog in PostgreSQL.

`datalake.dask_frame`, `datalake.training_set`, `datalake.query.query` and `datalake.session.open_lake` are its doors.
"""

from datalake.frame import dask_frame
from datalake.training import TrainingSet, training_set

__all__ = ["TrainingSet", "dask_frame", "training_set"]
