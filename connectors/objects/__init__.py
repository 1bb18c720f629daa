"""Object stores: buckets and objects of a site."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import IO, BinaryIO, Protocol

from connectors.estate import ObjectStore
from connectors.registry import driver, scheme_of


@dataclass(frozen=True)
class ObjectInfo:
    """What a store says of one object."""

    bucket: str
    key: str
    bytes: int
    etag: str
    modified: datetime
    version: str | None = None


@dataclass(frozen=True)
class Capabilities:
    """What a store was seen to do, not what it says; `lost` names what it lacks."""

    conditional_create: bool
    """Of racing `create` calls exactly one wins, and the object stays as it was."""
    conditional_replace: bool
    """A replacement that names an old ETag is refused."""
    versioning: bool
    """Old versions can be read after an overwrite."""
    locks: bool
    """A locked version can't be deleted."""
    replication: bool
    """The store copies buckets by itself."""

    @property
    def lost(self) -> tuple[str, ...]:
        """Names of the capabilities that it lacks."""
        return tuple(name for name, present in vars(self).items() if not present)


class Objects(Protocol):
    """The object store of one site. Keys are whole keys, without a leading slash."""

    def ensure_bucket(self, bucket: str, *, versioned: bool = False) -> None:
        """Create the bucket unless it is there."""

    def buckets(self) -> list[str]:
        """Return the names of all buckets that may be listed."""

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the current objects in the order of their keys; NotFoundError without the bucket."""

    def info(self, bucket: str, key: str) -> ObjectInfo | None:
        """Return what is known of an object, or None when there is none."""

    def read(self, bucket: str, key: str) -> BinaryIO:
        """Open an object for streaming; the caller closes it. NotFoundError when absent."""

    def put(
        self, bucket: str, key: str, data: IO[bytes] | bytes, *, bytes: int = -1, media_type: str = ""
    ) -> ObjectInfo:
        """Write an object; a stream of unknown length (-1) is sent in parts of bounded memory."""

    def create(self, bucket: str, key: str, data: bytes) -> bool:
        """Write an object only if the key is free; False when it was taken."""

    def replace(self, bucket: str, key: str, data: bytes, *, etag: str) -> bool:
        """Write an object only over the version with this ETag; False when another was there."""

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object; deleting what is absent is no error."""

    def abort_uploads(self, bucket: str, prefix: str, *, before: datetime) -> int:
        """Abort multipart uploads that began before this time; return how many."""

    def probe(self, bucket: str) -> Capabilities:
        """Find out what the store really does, with objects and buckets of its own that it removes."""


def objects(store: ObjectStore) -> Objects:
    """Return the driver for an object store of an estate; opens no connection yet."""
    made: Objects = driver("objects", scheme_of(store.url))(store)
    return made
