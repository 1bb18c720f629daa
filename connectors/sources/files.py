"""CSV, JSON Lines and Parquet files, on this machine or in a bucket, read by DuckDB."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from connectors.duck import connect, load_extension, quote_identifier, quote_literal, s3_secret
from connectors.errors import BadDataError, CapabilityError, NotFoundError
from connectors.estate import Estate, FileFormat, FilesSource, ObjectsSource, ObjectStore
from connectors.objects import objects
from connectors.sources import Slice
from connectors.sources.compressed import File, unpacked
from connectors.sources.csv_header import require_same_header
from connectors.sources.file_errors import FileErrors
from connectors.sources.patterns import compiled, fixed_prefix, matching_files
from connectors.sources.selecting import require_columns, slice_condition, unique_name

_ENCODINGS = {"utf-8": "utf-8", "utf8": "utf-8", "utf-16": "utf-16", "utf16": "utf-16",
              "latin-1": "latin-1", "latin1": "latin-1", "iso-8859-1": "latin-1"}  # fmt: skip


class _Files:
    """What local files and objects have in common; all files of a source have the same columns.

    Columns are matched by name. A file that lacks a column of the first one, or has one more, is refused:
    neither NULLs nor silence may stand for data. JSON Lines may leave keys out (NULL), not bring new ones.
    """

    def __init__(self, declared: FileFormat, types: Mapping[str, str], where: str) -> None:
        self._format, self._types, self._where = declared, types, where
        self._read: dict[str, File] = {}
        self._errors = FileErrors(where, self._largest_row_group, self._csv_complaint, self._title)

    def describe(self) -> str:
        """Say where the rows come from."""
        return self._where

    def estimate(self) -> int | None:
        """Return the number of rows that Parquet's footers tell, None for text."""
        if self._format.format != "parquet":
            return None
        files = self._checked_files()
        with self._footers() as connection:
            found = connection.execute(
                f"SELECT sum(num_rows)::bigint FROM parquet_file_metadata({_listed(files)})"
            ).fetchone()
        return int(found[0]) if found else None

    @contextmanager
    def scan(self, connection: duckdb.DuckDBPyConnection, part: Slice) -> Iterator[str]:
        """Give the SELECT; raises NotFoundError without files, BadDataError for files that differ."""
        with self._access(connection), self._plain_files(connection) as files:
            try:
                yield self._select(connection, files, part)
            except duckdb.Error as error:
                raise self.translate(error) from error

    def translate(self, error: Exception) -> Exception:
        """Return the error with file, line, column and value, or as it is when it is not of the files."""
        return self._errors.translate(error)

    def _files(self) -> Iterator[File]:
        raise NotImplementedError

    @contextmanager
    def _access(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Let the connection read the files while the context is open."""
        yield

    def _checked_files(self) -> list[File]:
        files = list(self._files())
        if not files:
            raise NotFoundError(
                "files", "read", self._where, "no file matches",
                "Correct the source's path in the estate, or put the files there.",
            )  # fmt: skip
        for file in files:
            self._require_bytes(file)
        return files

    @contextmanager
    def _plain_files(self, connection: duckdb.DuckDBPyConnection) -> Iterator[list[File]]:
        """Give the files as DuckDB may read them: none is compressed, and CSV files have the same header."""
        found = connection.execute("SELECT current_setting('temp_directory')").fetchone()
        spill = str(found[0]) if found and found[0] else None
        if spill:
            Path(spill).mkdir(parents=True, exist_ok=True)
        with unpacked(self._checked_files(), self._format.compression, spill, self._where) as files:
            for file in files:
                self._require_bytes(file)
            if self._format.format == "csv":
                self._require_headers(files)
            self._read = {file.url: file for file in files}
            yield files

    def _require_bytes(self, file: File) -> None:
        if not file.bytes:
            raise BadDataError(
                "files", "read", f"{self._where}: {file.title}", "the file is empty (0 bytes)",
                "Deliver it again, or remove it.",
            )  # fmt: skip

    def _title(self, text: str) -> str:
        """Return a text with the names for people in it of the files that were read."""
        for url, file in self._read.items():
            text = text.replace(url, file.title) if file.shown else text
        return text

    def _require_headers(self, files: Sequence[File]) -> None:
        readers = [(file.title, file.open) for file in files]
        header = require_same_header(readers, self._encoding(), self._format.delimiter, self._where)
        require_columns(list(self._types), header, f"{self._where}: {files[0].title}")

    def _encoding(self) -> str:
        name = self._format.encoding.lower().replace("_", "-")
        if name not in _ENCODINGS:
            raise CapabilityError(
                "duckdb", "read", self._where, f"it cannot read the encoding '{self._format.encoding}'",
                "Choose one of: utf-8, utf-16, latin-1, or convert the files.",
            )  # fmt: skip
        return _ENCODINGS[name]

    def _select(self, connection: duckdb.DuckDBPyConnection, files: Sequence[File], part: Slice) -> str:
        reader = self._reader(connection, files)
        kinds = _described(connection, reader)
        require_columns(list(self._types), list(kinds), self._where)
        if self._format.format == "parquet":
            self._require_same_schema(connection, files)
        kinds |= self._types
        columns = ", ".join(
            f"CAST({quote_identifier(name)} AS {self._types[name]}) AS {quote_identifier(name)}"
            if name in self._types else quote_identifier(name)
            for name in kinds
        )  # fmt: skip
        cut = slice_condition(part, kinds, cast="CAST({} AS {})", where=self._where)
        # The condition stands outside, so that it speaks of the declared type of the cursor.
        return f"SELECT * FROM (SELECT {columns} FROM {reader}) WHERE {cut}"

    def _reader(self, connection: duckdb.DuckDBPyConnection, files: Sequence[File]) -> str:
        listed = _listed(files)
        if self._format.format == "parquet":
            return f"read_parquet({listed})"
        if self._format.format == "jsonl":
            return self._json_reader(connection, listed)
        return self._csv_reader(listed, f", types = {_struct(self._types)}" if self._types else "")

    def _csv_reader(self, listed: str, more: str) -> str:
        nulls = ", ".join(map(quote_literal, self._format.null_values))
        return (
            f"read_csv({listed}, header = true, delim = {quote_literal(self._format.delimiter)}, "
            # Without a skip of 0 DuckDB passes over the lines before a wider one, header and rows, in silence.
            f"quote = '\"', escape = '\"', strict_mode = true, comment = '', skip = 0, nullstr = [{nulls}], "
            f"encoding = {quote_literal(self._encoding())}, compression = 'none'{more})"
        )

    def _json_reader(self, connection: duckdb.DuckDBPyConnection, listed: str) -> str:
        """Return a reader that drops no key.

        Left to itself DuckDB stops at a key that its sample did not show. Told the columns it ignores others,
        so where types are declared all keys are looked up first, which reads the files twice.
        """
        options = (
            "format = 'newline_delimited', records = true, maximum_object_size = 16777216, compression = 'uncompressed'"
        )
        if not self._types:
            return f"read_json({listed}, {options})"
        every = _described(connection, f"read_json({listed}, {options}, sample_size = -1)")
        require_columns(list(self._types), list(every), self._where)
        return f"read_json({listed}, {options}, columns = {_struct({**every, **self._types})})"

    def _require_same_schema(self, connection: duckdb.DuckDBPyConnection, files: Sequence[File]) -> None:
        found = connection.execute(
            "SELECT file_name, list(name ORDER BY name) AS names "
            f"FROM parquet_schema({_listed(files)}) WHERE num_children IS NULL GROUP BY file_name"
        ).fetchall()
        columns = {str(file): set(names) for file, names in found}
        first = columns.get(files[0].url, set())
        for file, names in columns.items():
            if names != first:
                raise BadDataError(
                    "files", "read", f"{self._where}: {file}",
                    f"its columns ({', '.join(sorted(names))}) are not those of {files[0].url} "
                    f"({', '.join(sorted(first))})",
                    "Put files of different columns into sources of their own.",
                )  # fmt: skip

    def _largest_row_group(self) -> tuple[str, int] | None:
        """Return the file with the largest row group and that group's bytes, when these are Parquet files."""
        if self._format.format != "parquet":
            return None
        with self._footers() as connection:
            found = connection.execute(
                "SELECT file_name, sum(total_compressed_size)::bigint AS size "
                f"FROM parquet_metadata({_listed(list(self._files()))}) "
                "GROUP BY file_name, row_group_id ORDER BY size DESC LIMIT 1"
            ).fetchone()
        return (str(found[0]), int(found[1])) if found else None

    def _csv_complaint(self, url: str) -> str:
        """Return what DuckDB says of a CSV file when it only splits lines, or "" when it can.

        Looking for types it does not tell the line that made it give up.
        """
        for file in self._read.values():
            if file.url != url:
                continue
            names = self._header_of(file)
            reader = self._csv_reader(_listed([file]), f", auto_detect = false, columns = {_struct(names)}")
            connection = connect(threads=1)
            try:
                with self._access(connection):
                    connection.execute(f"SELECT count(*) FROM {reader}").fetchall()
            except duckdb.Error as error:
                return str(error)
            finally:
                connection.close()
        return ""

    def _header_of(self, file: File) -> dict[str, str]:
        readers = [(file.title, file.open)]
        names = require_same_header(readers, self._encoding(), self._format.delimiter, self._where)
        return dict.fromkeys(names, "VARCHAR")

    @contextmanager
    def _footers(self) -> Iterator[duckdb.DuckDBPyConnection]:
        connection = connect(threads=1)
        try:
            with self._access(connection):
                yield connection
        except duckdb.Error as error:
            raise self.translate(error) from error
        finally:
            connection.close()


class LocalFiles(_Files):
    """Files of the machine that runs the flow."""

    def __init__(
        self,
        estate: Estate,
        name: str,
        declared: FilesSource,
        types: Mapping[str, str],
        folder: Path,
    ) -> None:
        super().__init__(declared, types, f"source '{name}' ({declared.path})")
        self._folder, self._pattern = folder, str(declared.path)

    def _files(self) -> Iterator[File]:
        for path in matching_files(self._folder, self._pattern):
            yield File(str(path), path.stat().st_size, lambda path=path: path.open("rb"))  # type: ignore[misc]


class ObjectFiles(_Files):
    """Objects of a bucket; DuckDB's secret for them lives inside `scan` only."""

    def __init__(
        self,
        estate: Estate,
        name: str,
        declared: ObjectsSource,
        types: Mapping[str, str],
        folder: Path,
    ) -> None:
        where = f"source '{name}' (s3://{declared.bucket}/{declared.path} at {declared.site})"
        super().__init__(declared, types, where)
        self._declared = declared
        self._store: ObjectStore = estate.objects(declared.site)

    def _files(self) -> Iterator[File]:
        wanted, bucket = compiled(self._declared.path), self._declared.bucket
        store = objects(self._store)
        for found in store.list(bucket, fixed_prefix(self._declared.path)):
            key = found.key
            if not wanted.fullmatch(key):
                continue
            if "?" in key:  # DuckDB takes what follows for parameters
                raise BadDataError(
                    "files", "read", f"{self._where}: {key}", "DuckDB cannot read a key with '?'",
                    "Rename the object.",
                )  # fmt: skip
            yield File(
                # The lake's own secret is for s3://, also when its bucket at another site has this name.
                f"s3a://{bucket}/{key}", found.bytes,
                lambda key=key: store.read(bucket, key),  # type: ignore[misc]
            )  # fmt: skip

    @contextmanager
    def _access(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        load_extension(connection, "httpfs")
        if self._store.ca_file:
            connection.execute(f"SET ca_cert_file = {quote_literal(str(self._store.ca_file))}")
        secret, scope = unique_name("secret"), f"s3a://{self._declared.bucket}/"
        connection.execute(f"CREATE SECRET {secret} ({s3_secret(self._store, scope)})")
        try:
            yield
        finally:
            with suppress(duckdb.TransactionException):  # a transaction that failed takes no statement
                connection.execute(f"DROP SECRET IF EXISTS {secret}")


def _described(connection: duckdb.DuckDBPyConnection, reader: str) -> dict[str, str]:
    rows = connection.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()
    return {str(row[0]): str(row[1]) for row in rows}


def _listed(files: Sequence[File]) -> str:
    """Return the files as a SQL list; what DuckDB would take for a pattern is escaped."""
    escaped = (re.sub(r"([*?\[])", r"[\1]", file.url) for file in files)
    return f"[{', '.join(map(quote_literal, escaped))}]"


def _struct(types: Mapping[str, str]) -> str:
    fields = (f"{quote_literal(name)}: {quote_literal(kind)}" for name, kind in types.items())
    return "{" + ", ".join(fields) + "}"
