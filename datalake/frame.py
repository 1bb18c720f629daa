"""A table of the lake as a Dask DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.duck import quote_identifier, quote_literal
from connectors.errors import ConflictError, SchemaError
from connectors.estate import load_estate
from datalake.session import ALIAS, Lake, open_lake, require_table
from datalake.translation import lake_errors

if TYPE_CHECKING:
    import dask.dataframe
    import pandas

# A partition is read by one worker with this much, and spills nothing.
_MEMORY_BYTES = 1 << 30


def dask_frame(
    table: str,
    estate: str | Path,
    *,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    version: int | None = None,
) -> dask.dataframe.DataFrame:
    """Return a table at one snapshot, a partition for each of its data files.

    Workers read through DuckDB, each its own file, so that deleted rows stay away and columns, partitions
    and row groups that `columns` and `where` (a SQL condition) rule out are not read. Types are Arrow's
    (`ArrowDtype`): decimals and nulls stay what they are. Raises NotFoundError, SchemaError.
    """
    import dask.dataframe

    place = str(Path(estate).resolve())
    with open_lake(load_estate(place), version=version) as lake:
        require_table(lake, table)
        pinned = version if version is not None else lake.version()
        wanted = _checked(lake, table, columns)
        files = _needed_files(lake, table, where)
        meta = _read(lake, table, wanted, "false")
    frame: dask.dataframe.DataFrame = dask.dataframe.from_map(  # type: ignore[no-untyped-call]
        read_file,
        files or [""],
        estate=place,
        table=table,
        columns=wanted,
        where=where,
        version=pinned,
        meta=meta,
        label=f"lake-{table}",
    )
    return frame


def read_file(
    file: str, *, estate: str, table: str, columns: list[str], where: str | None, version: int
) -> pandas.DataFrame:
    """Return the rows of one data file of a table at a snapshot; what a Dask worker runs."""
    condition = f"filename = {quote_literal(file)}" + (f" AND ({where})" if where else "")
    with open_lake(load_estate(estate), version=version, memory_limit=_MEMORY_BYTES, threads=1) as lake:
        if file and file not in lake.files(table):
            raise ConflictError(
                "lake", "read", table, f"the file {file} was merged by maintenance since the frame was made",
                "Make the frame again; reading a part of it now would miss rows.",
            )  # fmt: skip
        return _read(lake, table, columns, condition)


def _read(lake: Lake, table: str, columns: list[str], condition: str) -> pandas.DataFrame:
    import pandas

    names = ", ".join(map(quote_identifier, columns))
    with lake_errors("read", table):
        found = lake.connection.execute(
            f"SELECT {names} FROM {ALIAS}.main.{quote_identifier(table)} WHERE {condition}"
        ).to_arrow_table()
    return found.to_pandas(types_mapper=pandas.ArrowDtype)


def _checked(lake: Lake, table: str, columns: Sequence[str] | None) -> list[str]:
    held = list(lake.columns(table))
    unknown = [name for name in columns or [] if name not in held]
    if unknown:
        raise SchemaError(
            "lake", "read", table, f"there is no column {', '.join(unknown)}",
            f"There are: {', '.join(held)}.",
        )  # fmt: skip
    return list(columns) if columns is not None else held


def _needed_files(lake: Lake, table: str, where: str | None) -> list[str]:
    """Return the files that may hold rows of the condition, as DuckLake's statistics and partitions tell."""
    if where is None:
        return lake.files(table)
    # Whether a file is needed is DuckDB's to say: it opens those that it can't rule out.
    with lake_errors("plan", table):
        found = lake.connection.execute(
            f"SELECT DISTINCT filename FROM {ALIAS}.main.{quote_identifier(table)} WHERE {where}"
        ).fetchall()
    return sorted(str(name) for (name,) in found)
