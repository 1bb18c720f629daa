"""The estate: what an organisation runs where, declared once and read by every flow."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from connectors.errors import NotFoundError
from connectors.nouns import Cron, DataClass, Digest, Name, Noun, Secret, SqlName, Url
from connectors.tables import (
    ChangesSource,
    DatabaseSource,
    DocumentsSource,
    Expectation,
    FileFormat,
    FilesSource,
    HttpSource,
    ObjectsSource,
    Source,
    Table,
)
from connectors.units import Duration, Size

__all__ = [
    "Application", "Budget", "Capacity", "Catalog", "ChangesSource", "DataClass", "DatabaseSource", "DocumentsSource",
    "Endpoint", "Estate", "Expectation", "FileFormat", "FilesSource", "HealthCheck", "HttpSource", "LakeSettings",
    "Line", "Maintenance", "ObjectStore", "ObjectsSource", "Owner", "PriceCard", "RecoveryTargets", "Reservation",
    "Scaling", "Site", "Source", "Table", "Tier", "json_schema", "load_estate",
]  # fmt: skip

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


# --- The lake, and all of it --------------------------------------------------------------------


class Catalog(Noun):
    """The database that holds the lake's catalog."""

    site: Name
    """Its site."""
    database: Name
    """Its name there."""


class Maintenance(Noun):
    """How the lake is kept small and fast."""

    schedule: Cron | None = None
    """When maintain runs, as five cron fields."""
    keep_snapshots: Duration = Field(default="7d", validate_default=True)
    """How far back time travel goes; snapshots that are held stay longer."""
    grace: Duration = Field(default="1d", validate_default=True)
    """How long files that nothing names any more are kept: longer than any query or load takes."""
    file_size: Size = Field(default="256 MiB", validate_default=True)
    """Size that compaction aims at; files below half of it are merged."""
    rewrite_deleted: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of deleted rows from which on a file is written again without them."""


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
    watch: Cron | None = "*/15 * * * *"
    """When freshness and what databases hold back are looked at, as five cron fields."""
    maintenance: Maintenance = Field(default_factory=Maintenance)
    """When it is maintained, and by which policy."""


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
