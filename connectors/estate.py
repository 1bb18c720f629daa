"""The estate: what an organisation runs where, declared once and read by every flow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from connectors.errors import NotFoundError
from connectors.secrets import SecretRef
from connectors.units import Duration, Size


class Noun(BaseModel):
    """Base of all nouns: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _secret(value: object, info: ValidationInfo) -> SecretRef:
    return SecretRef.parse(value, (info.context or {}).get("folder"))


def _without_password(value: object) -> object:
    if isinstance(value, str) and re.search(r"://[^\s/]*:\S*@", value):
        raise ValueError("holds a password; name it apart, as a reference of the form secret:NAME")
    return value


Secret = Annotated[
    SecretRef,
    BeforeValidator(_secret),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^secret:[A-Za-z][A-Za-z0-9_-]*$"}),
]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=63)]
Column = Annotated[str, Field(min_length=1, max_length=255)]
SqlName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=63)]
Url = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9+.-]*://([^\s:/@]+@)?[^\s@]+$"),
    BeforeValidator(_without_password),
]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Cron = Annotated[str, Field(pattern=r"^\S+( \S+){4}$", examples=["0 2 * * *"])]


_SECRET_HEADER = re.compile(r"(?i)authorization|cookie|token|secret|password|key$")


def _plain_headers(headers: dict[str, str]) -> dict[str, str]:
    secret = [name for name in headers if _SECRET_HEADER.search(name)]
    if secret:
        raise ValueError(f"{', '.join(secret)} would hold a secret; give token: secret:NAME instead")
    return headers


class DataClass(StrEnum):
    """How sensitive data is, from the least to the most."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"

    @property
    def rank(self) -> int:
        """Position in the order of sensitivity; 0 is public."""
        return list(DataClass).index(self)


# --- Sites and lines -----------------------------------------------------------------------------


class Endpoint(Noun):
    """Where a capability of a site is reached; the URL's scheme chooses the driver."""

    url: Url
    """Address with the driver's scheme, without any password."""
    username: str | None = None
    """Login name, where the URL has none."""
    password: Secret | None = None
    """Reference to the password or token."""
    ca_file: Path | None = None
    """CA certificates to trust instead of the system's."""


class ObjectStore(Noun):
    """An S3 object store: `s3+https://host:port`, or `s3+http://` without TLS."""

    url: Annotated[str, Field(pattern=r"^s3\+https?://[^\s/@]+/?$")]
    """Address; the scheme is s3+http or s3+https."""
    access_key: Secret
    """Reference to the access key."""
    secret_key: Secret
    """Reference to the secret key."""
    region: str = "us-east-1"
    """Region that requests are signed for."""
    ca_file: Path | None = None
    """CA certificates to trust instead of the system's."""


class Capacity(Noun):
    """What a site has, or may use."""

    instances: Annotated[int, Field(ge=0)] | None = None
    """Number of instances."""
    cpus: Annotated[float, Field(ge=0)] | None = None
    """Processor cores."""
    memory: Size | None = None
    """Memory."""
    storage: Size | None = None
    """Storage."""


class PriceCard(Noun):
    """What a site charges; an absent price is zero."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    """ISO 4217 code."""
    cpu_hour: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    """Price of one core for an hour."""
    memory_gib_hour: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    """Price of one GiB of memory for an hour."""
    storage_gib_month: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    """Price of one GiB stored for a month."""
    egress_gib: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    """Price of one GiB that leaves the site."""


class Site(Noun):
    """A place that runs instances or holds data."""

    kind: Literal["private", "public", "edge"]
    """Who owns it: private cloud, public cloud or edge."""
    region: str
    """The provider's or the company's name of its region."""
    holds: DataClass
    """Highest data class that it may hold."""
    capacity: Capacity | None = None
    """What it has."""
    quota: Capacity | None = None
    """What the provider lets us use of it."""
    prices: PriceCard | None = None
    """What it charges."""
    compute: Endpoint | None = None
    """Runs instances: process, docker, kubernetes, aws."""
    objects: ObjectStore | None = None
    """Holds objects."""
    databases: dict[Name, Endpoint] = {}
    """Databases by name: postgresql://user@host:port/database."""
    balancer: Endpoint | None = None
    """Spreads requests: envoy, haproxy."""
    dns: Endpoint | None = None
    """Answers names: embedded, rfc2136, powerdns, route53."""
    metrics: Endpoint | None = None
    """Answers questions about load: prometheus, balancer."""


class Reservation(Noun):
    """The share of a line that a class of traffic is sure to get."""

    business: Annotated[float, Field(ge=0, le=1)] = 0.0
    """For the applications' traffic."""
    management: Annotated[float, Field(ge=0, le=1)] = 0.0
    """For control, metrics and drills."""

    @model_validator(mode="after")
    def _at_most_the_whole_line(self) -> Self:
        if self.business + self.management > 1:
            raise ValueError("business and management together reserve more than the whole line")
        return self


class Line(Noun):
    """A connection between two sites."""

    between: tuple[Name, Name]
    """The two sites."""
    bandwidth_mbit: Annotated[float, Field(gt=0)]
    """Megabits a second, each way."""
    role: Literal["production", "hot", "cold"] = "production"
    """In use, ready at once, or to be switched on."""
    reserved: Reservation = Reservation()
    """Shares kept for classes of traffic."""

    @model_validator(mode="after")
    def _two_ends(self) -> Self:
        if self.between[0] == self.between[1]:
            raise ValueError("a line joins two different sites")
        return self


# --- Applications --------------------------------------------------------------------------------


class HealthCheck(Noun):
    """The request that an instance answers with 200 when it may take traffic."""

    path: Annotated[str, Field(pattern=r"^/")] = "/health"
    """Path of the request."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Port of the request."""
    interval: Duration = Field(default="1s", validate_default=True)
    """Time between two checks."""
    timeout: Duration = Field(default="2s", validate_default=True)
    """How long an answer may take."""


class Scaling(Noun):
    """How many instances a tier has."""

    min_instances: Annotated[int, Field(ge=0)] = 1
    """Never fewer."""
    max_instances: Annotated[int, Field(ge=1)] = 1
    """Never more, over all sites."""
    target_metric: Literal["requests_per_second", "active_requests", "latency_ms", "promql"] | None = None
    """The figure that is tracked for each ready instance."""
    target_value: Annotated[float, Field(gt=0)] | None = None
    """The value that the figure is kept at."""
    promql: str | None = None
    """The query, when the metric is promql."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_instances > self.max_instances:
            raise ValueError("min_instances is above max_instances")
        if (self.target_metric is None) != (self.target_value is None):
            raise ValueError("target_metric and target_value belong together")
        if (self.target_metric == "promql") != (self.promql is not None):
            raise ValueError("promql belongs to target_metric: promql, and only there")
        return self


class Tier(Noun):
    """One part of an application: instances of one image, or a database."""

    kind: Literal["instances", "database"] = "instances"
    """Stateless instances of an image, or a named database of each site."""
    image: Digest | None = None
    """Digest of the OCI image."""
    database: Name | None = None
    """Name of the database at each of its sites."""
    size: Capacity = Capacity()
    """What one instance needs."""
    data_class: DataClass = DataClass.INTERNAL
    """Highest class of the data that it handles."""
    sites: Annotated[list[Name], Field(min_length=1)]
    """Where it may run, the preferred first."""
    scaling: Scaling = Scaling()
    """How many instances."""
    health: HealthCheck | None = None
    """How it says that it is ready."""

    @model_validator(mode="after")
    def _kind_has_what_it_needs(self) -> Self:
        if self.kind == "instances" and (self.image is None or self.health is None):
            raise ValueError("a tier of kind 'instances' needs image and health")
        if self.kind == "database" and self.database is None:
            raise ValueError("a tier of kind 'database' needs database")
        return self


class RecoveryTargets(Noun):
    """How much may be lost, and how long it may take, in a disaster."""

    rto: Duration
    """Recovery time objective: from the fault to the first successful write of a client."""
    rpo: Duration
    """Recovery point objective: age of the newest lost write."""
    site: Name
    """Where the application is brought up."""
    drill_every: Duration = Field(default="30d", validate_default=True)
    """Longest time between two drills."""


class Application(Noun):
    """Something that users use."""

    owner: Name
    """Who answers for it: a name of the organisation's tree."""
    traffic_name: Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")] | None = None
    """DNS name that its clients use."""
    depends_on: list[Name] = []
    """Applications that must be up before it."""
    tiers: Annotated[dict[Name, Tier], Field(min_length=1)]
    """Its parts by name."""
    buckets: list[str] = []
    """Buckets that hold its objects."""
    recovery: RecoveryTargets | None = None
    """Recovery targets; absent means not protected."""


# --- Organisation --------------------------------------------------------------------------------


class Budget(Noun):
    """Money for a month."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    """ISO 4217 code."""
    monthly: Annotated[Decimal, Field(ge=0)]
    """Amount for a calendar month."""


class Owner(Noun):
    """A node of the organisation's tree."""

    title: str
    """Name for people."""
    contact: str | None = None
    """Whom to ask."""
    quota: Capacity | None = None
    """What it and everything below it may use."""
    budget: Budget | None = None
    """What it and everything below it may spend."""
    parts: dict[Name, Owner] = {}
    """Its departments, teams or projects by name."""


# --- Sources and tables --------------------------------------------------------------------------


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


Source = Annotated[
    DatabaseSource | ObjectsSource | FilesSource | HttpSource | DocumentsSource,
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
    partition_by: list[str] = []
    """Columns, or year(c), month(c), day(c), hour(c), bucket(n, c)."""
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
        return self


class Catalog(Noun):
    """The database that holds the lake's catalog."""

    site: Name
    """Its site."""
    database: Name
    """Its name there."""


class LakeSettings(Noun):
    """Where the lake is."""

    site: Name
    """Site of the object store that holds the Parquet files."""
    bucket: str
    """Bucket of that store."""
    prefix: str = ""
    """Start of every key."""
    catalog: Catalog
    """The catalog's database."""
    memory_limit: Size = Field(default="192 MiB", validate_default=True)
    """Memory that DuckDB may use for a load."""
    keep_quarantined: Duration = Field(default="30d", validate_default=True)
    """How long the files of batches that were set aside are kept; their rows in ops.quarantine stay."""


class Estate(Noun):
    """All of it."""

    name: Name
    """Name of the estate."""
    organisation: dict[Name, Owner]
    """The tree of owners."""
    sites: Annotated[dict[Name, Site], Field(min_length=1)]
    """Sites by name."""
    lines: dict[Name, Line] = {}
    """Lines by name."""
    applications: dict[Name, Application] = {}
    """Applications by name."""
    lake: LakeSettings
    """The lake."""
    sources: dict[Name, Source] = {}
    """Sources by name."""
    tables: dict[SqlName, Table] = {}
    """Tables by name."""

    def may_hold(self, site: str, data_class: DataClass) -> bool:
        """Whether data of this class may lie at this site; every flow that moves data asks here."""
        return self.site(site).holds.rank >= data_class.rank

    def site(self, name: str) -> Site:
        """Return a site; raises NotFoundError with the choices."""
        return _pick("site", self.sites, name)

    def table(self, name: str) -> Table:
        """Return a table; raises NotFoundError with the choices."""
        return _pick("table", self.tables, name)

    def source(self, name: str) -> Source:
        """Return a source; raises NotFoundError with the choices."""
        return _pick("source", self.sources, name)

    def database(self, site: str, name: str) -> Endpoint:
        """Return a database of a site; raises NotFoundError with the choices."""
        return _pick(f"database at {site}", self.site(site).databases, name)

    def objects(self, site: str) -> ObjectStore:
        """Return the object store of a site; raises NotFoundError when it has none."""
        store = self.site(site).objects
        if store is None:
            raise NotFoundError("estate", "find", f"objects at {site}", "the site has no object store")
        return store


T = TypeVar("T")


def _pick(what: str, choices: Mapping[str, T], name: str) -> T:
    if name not in choices:
        listed = ", ".join(sorted(choices)) or "none"
        raise NotFoundError("estate", "find", f"{what} '{name}'", "no such name", f"Choose one of: {listed}.")
    return choices[name]


def load_estate(path: str | Path) -> Estate:
    """Read and check an estate file.

    Raises EstateError that lists every mistake with file, line, key path, value and choices.
    """
    from connectors.estate_file import read_estate

    return read_estate(Path(path))


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of an estate file, for editors."""
    schema = Estate.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
