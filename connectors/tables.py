"""The estate's nouns of data: sources, expectations and tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from connectors.nouns import Column, Cron, DataClass, Name, Noun, Secret, SqlName
from connectors.units import Duration, Size

_SECRET_HEADER = re.compile(r"(?i)authorization|cookie|token|secret|password|key$")


def _plain_headers(headers: dict[str, str]) -> dict[str, str]:
    secret = [name for name in headers if _SECRET_HEADER.search(name)]
    if secret:
        raise ValueError(f"{', '.join(secret)} would hold a secret; give token: secret:NAME instead")
    return headers


class FileFormat(Noun):
    """How the bytes of a file become rows."""

    format: Literal["csv", "jsonl", "parquet"]
    """CSV with a header (RFC 4180), JSON Lines, or Parquet."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """Column separator of CSV."""
    encoding: str = "utf-8"
    """Character encoding of CSV."""
    null_values: list[str] = [""]
    """Texts that mean NULL in CSV."""
    compression: Literal["auto", "none", "gzip", "zstd", "zip"] = "auto"
    """How files are packed; auto goes by the end of the name: .gz, .zst, .zip."""


class DatabaseSource(Noun):
    """A table or a query of a database."""

    kind: Literal["database"]
    site: Name
    """Site of the database."""
    database: Name
    """Its name there."""
    table: str | None = None
    """Table, as schema.name."""
    query: str | None = None
    """A SELECT, instead of a table."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either table or query")
        return self


class ObjectsSource(FileFormat):
    """Objects of a bucket that match a pattern."""

    kind: Literal["objects"]
    site: Name
    """Site of the object store."""
    bucket: str
    """Bucket."""
    path: str
    """Pattern of the keys, with * and **."""


class FilesSource(FileFormat):
    """Files of the machine that runs the flow."""

    kind: Literal["files"]
    path: Path
    """Pattern with * and **; a relative one starts at the estate's folder."""


class HttpSource(Noun):
    """A paginated JSON API read with GET."""

    kind: Literal["http"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]
    """Address of the first page, without credentials."""
    items: str = ""
    """Key path of the list in a page, dots between keys; empty when the page is the list."""
    pagination: Literal["none", "page", "offset", "next"] = "none"
    """Page number, row offset, a URL or token in the page, or a single page."""
    page_parameter: str = "page"
    """Query parameter of the page number, the offset or the token."""
    size_parameter: str | None = None
    """Query parameter of the page size."""
    page_size: Annotated[int, Field(ge=1)] = 1000
    """Rows asked for with each request."""
    first_page: Annotated[int, Field(ge=0)] = 1
    """Number of the first page."""
    next_path: str = "next"
    """Key path of the next URL or token."""
    headers: Annotated[dict[str, str], AfterValidator(_plain_headers)] = {}
    """Headers to send; no secrets."""
    token: Secret | None = None
    """Reference to a bearer token."""
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    """Never ask faster."""


class DocumentsSource(Noun):
    """Binary files of a folder or a bucket, kept as content-addressed objects."""

    kind: Literal["documents"]
    path: str
    """Pattern with * and **; in a folder, a relative one starts at the estate's folder."""
    site: Name | None = None
    """Site of the object store; absent for a local folder."""
    bucket: str | None = None
    """Bucket at that site."""
    tags: dict[str, str] = {}
    """Tags that each document gets."""

    @model_validator(mode="after")
    def _bucket_with_site(self) -> Self:
        if (self.site is None) != (self.bucket is None):
            raise ValueError("site and bucket belong together")
        return self


class ChangesSource(Noun):
    """Every change of some tables of a PostgreSQL database, by logical replication."""

    kind: Literal["changes"]
    site: Name
    """Site of the database."""
    database: Name
    """Its name there."""
    tables: Annotated[dict[SqlName, str], Field(min_length=1)]
    """Tables of the lake, and which table of the database (schema.name) each follows."""
    slot: Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=63)] | None = None
    """Name of the replication slot and the publication; by default causeway_ and the source's name."""
    held_back_warning: Size = Field(default="1 GiB", validate_default=True)
    """Warn when the database keeps more log than this for us."""
    schedule: Cron | None = None
    """When replicate runs, as five cron fields."""


Source = Annotated[
    ChangesSource | DatabaseSource | ObjectsSource | FilesSource | HttpSource | DocumentsSource,
    Field(discriminator="kind"),
]

ExpectationType = Literal[
    "column_values_to_not_be_null",
    "column_values_to_be_null",
    "column_values_to_be_unique",
    "column_values_to_be_between",
    "column_values_to_be_in_set",
    "column_values_to_not_be_in_set",
    "column_values_to_match_regex",
    "column_values_to_not_match_regex",
    "column_value_lengths_to_be_between",
    "column_pair_values_a_to_be_greater_than_b",
    "compound_columns_to_be_unique",
    "table_row_count_to_be_between",
    "unexpected_rows",
]

_NEEDS: dict[str, tuple[str, ...]] = {
    "column_values_to_be_in_set": ("column", "value_set"),
    "column_values_to_not_be_in_set": ("column", "value_set"),
    "column_values_to_match_regex": ("column", "regex"),
    "column_values_to_not_match_regex": ("column", "regex"),
    "column_pair_values_a_to_be_greater_than_b": ("column_a", "column_b"),
    "compound_columns_to_be_unique": ("columns",),
    "table_row_count_to_be_between": (),
    "unexpected_rows": ("condition",),
}
_RANGES = (
    "column_values_to_be_between",
    "column_value_lengths_to_be_between",
    "table_row_count_to_be_between",
)


class Expectation(Noun):
    """What must hold for a batch: an expectation of Great Expectations by its name."""

    expect: ExpectationType
    """Great Expectations' name without the leading 'expect_'."""
    column: Column | None = None
    """Column that it speaks of."""
    columns: tuple[Column, ...] = ()
    """Columns of a compound expectation."""
    column_a: Column | None = None
    """The greater column of a pair."""
    column_b: Column | None = None
    """The smaller column of a pair."""
    or_equal: bool = False
    """Whether a pair may be equal."""
    min_value: int | float | str | None = None
    """Smallest value allowed."""
    max_value: int | float | str | None = None
    """Greatest value allowed."""
    value_set: tuple[bool | int | float | str, ...] = ()
    """Values allowed or forbidden."""
    regex: str | None = None
    """Regular expression (RE2) that a value contains or not."""
    condition: str | None = None
    """SQL condition of the rows that are not expected."""
    mostly: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of rows that must fit."""
    level: Literal["warn", "quarantine"] = "quarantine"
    """What a failure does: it is only recorded, or the batch is set aside."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        needed = _NEEDS.get(self.expect, ("column",))
        missing = [name for name in needed if getattr(self, name) in (None, ())]
        if missing:
            raise ValueError(f"{self.expect} needs {', '.join(missing)}")
        if self.expect in _RANGES and self.min_value is None and self.max_value is None:
            raise ValueError(f"{self.expect} needs min_value, max_value or both")
        return self

    @property
    def title(self) -> str:
        """One line for people that tells this expectation from its neighbours."""
        about = self.column or ", ".join(self.columns) or self.condition or ""
        if self.column_a:
            about = f"{self.column_a}, {self.column_b}"
        bounds = [
            f"{name}={value}"
            for name in ("min_value", "max_value", "regex", "value_set")
            if (value := getattr(self, name)) not in (None, ())
        ]
        return " ".join([self.expect, f"({about})" if about else "", *bounds]).replace("  ", " ")


class Increment(Noun):
    """What each load takes of a source that only says by its cursor what is new."""

    overlap: Duration | Annotated[float, Field(ge=0)] = 0.0
    """How far before the greatest cursor value seen a load begins again, for rows that come late: 2h, or a number."""


class Table(Noun):
    """A table of the lake, and where its rows come from."""

    source: Name
    """Name of the source."""
    mode: Literal["append", "replace", "merge"] = "append"
    """Add the batch, put it in the place of what is there, or update by key."""
    key: list[Column] = []
    """Columns that tell rows apart; merge needs them."""
    cursor: Column | None = None
    """Column by which increments and backfills cut the source."""
    increment: Increment | None = None
    """Loads take what is new by the cursor, instead of everything."""
    deleted_when: str | None = None
    """SQL condition of the rows of a batch that say that their key was deleted (tombstones); for merge."""
    delete_absent: bool = False
    """Whether a merge deletes the keys that the source no longer has; it reads all keys of the source."""
    delete_at_most: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the table's rows that one load may delete as absent; more is refused."""
    partition_by: list[str] = []
    """Columns, or year(c), month(c), day(c), hour(c), bucket(n, c)."""
    sort_by: list[Column] = []
    """Columns that queries filter on; rows are sorted by them as files are written."""
    columns: dict[Column, str] = {}
    """DuckDB types of columns, where the source does not say them well."""
    expectations: list[Expectation] = []
    """What must hold for each batch."""
    data_class: DataClass = DataClass.INTERNAL
    """Class of its most sensitive column."""
    owner: Name
    """Who answers for it: a name of the organisation's tree."""
    schedule: Cron | None = None
    """When ingest runs, as five cron fields."""
    fresh_within: Duration | None = None
    """Promise: the last load is never older."""
    description: str = ""
    """What a row is."""

    @model_validator(mode="after")
    def _merge_has_a_key(self) -> Self:
        if self.mode == "merge" and not self.key:
            raise ValueError("mode merge needs key")
        if self.mode != "merge" and (self.deleted_when or self.delete_absent):
            raise ValueError("deleted_when and delete_absent belong to mode merge")
        return self

    @model_validator(mode="after")
    def _increment_has_what_it_needs(self) -> Self:
        if self.increment and self.cursor is None:
            raise ValueError("increment needs cursor")
        if self.increment and self.mode == "append" and not self.key:
            raise ValueError("increment in mode append needs key, by which rows that are read again are left out")
        return self
