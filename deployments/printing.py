"""Prints an answer of the lake as a table, CSV, JSON or Parquet."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from connectors.errors import FixableError


def write_answer(reader: pa.RecordBatchReader, form: str, output: Path | None, max_rows: int) -> None:
    """Write all rows (`table`: the first `max_rows`) to a file or standard output, batch by batch.

    Raises FixableError for Parquet without a file: it can't be written to a stream that can't seek.
    """
    if form == "parquet":
        _parquet(reader, output)
    elif form == "csv":
        _csv(reader, output)
    elif form == "json":
        _json(reader, output)
    else:
        _table(reader, output, max_rows)


def _parquet(reader: pa.RecordBatchReader, output: Path | None) -> None:
    if output is None:
        raise FixableError("sql", "write", "parquet", "there is no file to write to", "Add --output FILE.")
    with pq.ParquetWriter(output, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def _csv(reader: pa.RecordBatchReader, output: Path | None) -> None:
    flat = pa.schema([(field.name, _flat(field.type)) for field in reader.schema])
    sink = nullcontext(sys.stdout.buffer) if output is None else output.open("wb")
    with sink as file, pyarrow.csv.CSVWriter(file, flat) as writer:
        for batch in reader:
            writer.write_batch(_flattened(batch, flat))


def _flat(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_nested(kind) else kind


def _flattened(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        pa.array([None if value is None else _dumps(value) for value in column.to_pylist()], pa.string())
        if pa.types.is_nested(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _json(reader: pa.RecordBatchReader, output: Path | None) -> None:
    """Write a list with an object for each row, a row a line."""
    sink = nullcontext(sys.stdout) if output is None else output.open("w", encoding="utf-8")
    with sink as file:
        separator = "["
        for batch in reader:
            for row in batch.to_pylist():
                file.write(f"{separator}{_dumps(row)}")
                separator = ",\n "
        file.write("[]\n" if separator == "[" else "]\n")


def _dumps(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def print_rows(rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows of texts on standard output; the first row's keys are the titles."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name, justify="right" if name in ("rows", "MB") else "left", overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, markup=False).print(table)


def _table(reader: pa.RecordBatchReader, output: Path | None, max_rows: int) -> None:
    from rich.console import Console
    from rich.table import Table

    rows: list[dict[str, Any]] = []
    more = False
    for batch in reader:
        left = max_rows - len(rows)
        rows.extend(islice(batch.to_pylist(), left))
        if batch.num_rows > left:
            more = True
            break
    table = Table(box=None, header_style="bold", pad_edge=False)
    for field in reader.schema:
        right = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        numeric = right or pa.types.is_decimal(field.type)
        table.add_column(field.name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    sink = nullcontext(sys.stdout) if output is None else output.open("w", encoding="utf-8")
    with sink as file:
        wide = None if file.isatty() else 10_000
        console = Console(file=file, width=wide, highlight=False, markup=False)
        console.print(table)
        if more:
            print(f"… more rows; see --max-rows or --format (shown: {len(rows)})", file=sys.stderr)
