"""Finds out what an S3 store really does: some accept conditions and locks that they do not enforce."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from minio.commonconfig import ENABLED, GOVERNANCE, Filter
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from minio.replicationconfig import (
    DeleteMarkerReplication,
    Destination,
    ReplicationConfig,
    Rule,
)
from minio.retention import Retention
from minio.versioningconfig import VersioningConfig

from connectors.errors import AccessDeniedError, CapabilityError, FixableError
from connectors.objects import Capabilities
from connectors.objects.s3_errors import s3_errors

if TYPE_CHECKING:
    from connectors.objects.s3 import S3Objects

_RACERS = 8
_KEY = "probe"


def probe(store: S3Objects, bucket: str) -> Capabilities:
    """Return what the store was seen to do.

    Raises AccessDeniedError when the credentials may not create buckets, and what else keeps it from looking.
    """
    with s3_errors("probe", f"{store!r}"):
        with _own_bucket(store, bucket) as own:
            conditional_create = _races(store, own)
            conditional_replace = _refuses_old_etag(store, own)
            versioning = _keeps_versions(store, own)
            replication = _copies(store, own)
        locks = _locks(store, bucket)
    return Capabilities(conditional_create, conditional_replace, versioning, locks, replication)


@contextmanager
def _own_bucket(store: S3Objects, bucket: str, *, locks: bool = False) -> Iterator[str]:
    name = f"{bucket[:40].rstrip('-.')}-probe-{secrets.token_hex(6)}"
    with s3_errors("probe", f"bucket {name}"):
        store.client.make_bucket(name, object_lock=locks)
    try:
        yield name
    finally:
        with s3_errors("remove", f"bucket {name}"):
            _empty(store, name)
            store.client.remove_bucket(name)


def _empty(store: S3Objects, bucket: str) -> None:
    found = store.client.list_objects(bucket, recursive=True, include_version=True)
    every = [DeleteObject(str(one.object_name), one.version_id) for one in found]
    for failed in store.client.remove_objects(bucket, every, bypass_governance_mode=True):
        raise FixableError("s3", "remove", f"{bucket}/{failed.name}", f"{failed.code}: {failed.message}")


def _races(store: S3Objects, bucket: str) -> bool:
    """Of threads that create the same key, one wins, and what it wrote is what stays."""
    bodies = [f"racer {number}".encode() for number in range(_RACERS)]
    with ThreadPoolExecutor(_RACERS) as pool:
        won = list(pool.map(lambda body: _refused_is_false(lambda: store.create(bucket, _KEY, body)), bodies))
    late = _refused_is_false(lambda: store.create(bucket, _KEY, b"late"))
    if won.count(True) != 1 or late:
        return False
    return _content(store, bucket) == bodies[won.index(True)]


def _refuses_old_etag(store: S3Objects, bucket: str) -> bool:
    old = store.put(bucket, _KEY, b"old").etag
    new = store.put(bucket, _KEY, b"new").etag
    if _refused_is_false(lambda: store.replace(bucket, _KEY, b"stale", etag=old)):
        return False
    took = _refused_is_false(lambda: store.replace(bucket, _KEY, b"fresh", etag=new))
    return took and _content(store, bucket) == b"fresh"


def _refused_is_false(write: Callable[[], bool]) -> bool:
    """A store that does not know conditions at all may refuse such a write altogether."""
    try:
        return write()
    except (CapabilityError, FixableError):
        return False


def _keeps_versions(store: S3Objects, bucket: str) -> bool:
    try:
        store.client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
        first = _write(store, bucket, b"first")
        second = _write(store, bucket, b"second")
    except MinioException:
        return False
    return bool(first) and first != second and _content(store, bucket, first) == b"first"


def _locks(store: S3Objects, bucket: str) -> bool:
    """A version under governance cannot be deleted, except by asking to bypass it (so this cleans up)."""
    try:
        with _own_bucket(store, bucket, locks=True) as own:
            return _keeps_locked(store, own)
    except (CapabilityError, AccessDeniedError):
        return False


def _keeps_locked(store: S3Objects, bucket: str) -> bool:
    version = _write(store, bucket, b"locked")
    retention = Retention(GOVERNANCE, datetime.now(UTC) + timedelta(hours=1))
    try:
        store.client.set_object_retention(bucket, _KEY, retention, version)
    except MinioException:
        return False
    try:
        store.client.remove_object(bucket, _KEY, version)
    except S3Error:
        return _content(store, bucket, version) == b"locked"
    return False


def _copies(store: S3Objects, bucket: str) -> bool:
    """Whether a replication rule is taken and given back; one to the bucket itself may be refused as such."""
    rule = Rule(
        status=ENABLED, rule_filter=Filter(prefix=""), rule_id="probe", priority=1,
        destination=Destination(f"arn:aws:s3:::{bucket}"),
        delete_marker_replication=DeleteMarkerReplication(),  # type: ignore[no-untyped-call]
    )  # fmt: skip
    try:
        store.client.set_bucket_replication(bucket, ReplicationConfig("", [rule]))
        kept = store.client.get_bucket_replication(bucket)
        store.client.delete_bucket_replication(bucket)
    except S3Error as error:
        # Known and checked, though this rule does not please it: the store has the feature.
        return error.code in _REPLICATION_KNOWN
    except MinioException:
        return False
    return kept is not None and bool(kept.rules)


# Codes of MinIO and AWS that only a store with the feature gives.
_REPLICATION_KNOWN = frozenset({
    "XMinioReplicationRemoteTargetNotFoundError", "XMinioAdminRemoteTargetNotFoundError",
    "XMinioReplicationDestinationMissingLock", "XMinioReplicationRemoteConnectionError",
    "InvalidRequest",
})  # fmt: skip


def _write(store: S3Objects, bucket: str, data: bytes) -> str | None:
    written = store.client.put_object(bucket, _KEY, io.BytesIO(data), len(data))
    return written.version_id


def _content(store: S3Objects, bucket: str, version: str | None = None) -> bytes:
    response = store.client.get_object(bucket, _KEY, version_id=version)
    try:
        return response.read()
    finally:
        response.close()
        response.release_conn()
