"""An S3 object store, through the `minio` SDK."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO, cast

import certifi
import urllib3
from minio import Minio
from minio.commonconfig import ENABLED
from minio.datatypes import Upload
from minio.error import S3Error
from minio.versioningconfig import VersioningConfig
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from connectors.estate import ObjectStore
from connectors.objects import Capabilities, ObjectInfo
from connectors.objects.s3_errors import s3_errors, translated
from connectors.objects.s3_probe import probe

_PART_BYTES = 16 * 2**20
_TIMEOUT = urllib3.Timeout(connect=5, read=60)
# Only what cannot have reached the store is sent again here: a pooled connection that was already closed.
# All other retrying is the task's.
_RETRIES = urllib3.Retry(total=1, connect=1, read=0, redirect=0, status=0, other=0, backoff_factor=0.2)
_READ_BYTES = 256 * 2**10


class S3Objects:
    """The buckets of one S3 store; safe to share between threads."""

    def __init__(self, store: ObjectStore) -> None:
        scheme, _, self._host = store.url.rstrip("/").partition("://")
        ca_file = str(store.ca_file) if store.ca_file else certifi.where()
        self.client = Minio(
            self._host,
            access_key=store.access_key.reveal(),
            secret_key=store.secret_key.reveal(),
            region=store.region,
            secure=scheme == "s3+https",
            http_client=urllib3.PoolManager(
                maxsize=32, timeout=_TIMEOUT, retries=_RETRIES, cert_reqs="CERT_REQUIRED", ca_certs=ca_file
            ),
        )

    def __repr__(self) -> str:
        return f"S3Objects({self._host})"

    def ensure_bucket(self, bucket: str, *, versioned: bool = False) -> None:
        """Create the bucket unless it is there."""
        with s3_errors("create bucket", self._at(bucket)):
            try:
                self.client.make_bucket(bucket)
            except S3Error as error:
                if error.code != "BucketAlreadyOwnedByYou":
                    raise
            if versioned:
                self.client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))

    def buckets(self) -> list[str]:
        """Return the names of all buckets that may be listed."""
        with s3_errors("list buckets of", self._host):
            return [str(bucket.name) for bucket in self.client.list_buckets()]

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the current objects in the store's order; NotFoundError without the bucket."""
        with s3_errors("list", self._at(bucket, prefix)):
            for found in self.client.list_objects(bucket, prefix=prefix, recursive=True):
                if not found.is_dir:
                    yield ObjectInfo(
                        bucket, str(found.object_name), found.size or 0, str(found.etag).strip('"'),
                        cast(datetime, found.last_modified),
                    )  # fmt: skip

    def info(self, bucket: str, key: str) -> ObjectInfo | None:
        """Return what is known of an object, or None when there is none; NotFoundError without the bucket."""
        with s3_errors("look at", self._at(bucket, key)):
            try:
                found = self.client.stat_object(bucket, key)
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise
                self._require_bucket(bucket)
                return None
            return ObjectInfo(
                bucket, key, found.size or 0, str(found.etag), cast(datetime, found.last_modified),
                found.version_id,
            )  # fmt: skip

    def read(self, bucket: str, key: str) -> BinaryIO:
        """Open an object for streaming; the caller closes it. NotFoundError when absent."""
        resource = self._at(bucket, key)
        with s3_errors("read", resource):
            response = self.client.get_object(bucket, key)
        return io.BufferedReader(_Body(response, resource), _READ_BYTES)

    def put(
        self, bucket: str, key: str, data: BinaryIO | bytes, *, bytes: int = -1, media_type: str = ""
    ) -> ObjectInfo:
        """Write an object; a stream of unknown length is sent in parts of 16 MiB, so up to 156 GiB."""
        stream: BinaryIO
        if hasattr(data, "read"):
            stream, length = cast(BinaryIO, data), bytes
        else:
            stream, length = io.BytesIO(data), len(data)
        with s3_errors("write", self._at(bucket, key)):
            # One part at a time: parts that wait for a free thread would be held in memory.
            self.client.put_object(
                bucket, key, stream, length, media_type or "application/octet-stream",
                part_size=_PART_BYTES, num_parallel_uploads=1,
            )  # fmt: skip
            written = self.client.stat_object(bucket, key)
        return ObjectInfo(
            bucket, key, written.size or 0, str(written.etag), cast(datetime, written.last_modified),
            written.version_id,
        )  # fmt: skip

    def create(self, bucket: str, key: str, data: bytes) -> bool:
        """Write an object only if the key is free; False when it was taken."""
        return self._put_if(bucket, key, data, {"If-None-Match": "*"})

    def replace(self, bucket: str, key: str, data: bytes, *, etag: str) -> bool:
        """Write an object only over the version with this ETag; False when another was there."""
        return self._put_if(bucket, key, data, {"If-Match": f'"{etag}"'})

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object; deleting what is absent is no error."""
        with s3_errors("delete", self._at(bucket, key)):
            self.client.remove_object(bucket, key)

    def abort_uploads(self, bucket: str, prefix: str, *, before: datetime) -> int:
        """Abort multipart uploads that began before this time; return how many."""
        aborted = 0
        with s3_errors("abort uploads in", self._at(bucket, prefix)):
            for upload in self._uploads(bucket, prefix):
                begun = upload.initiated_time
                if begun is not None and begun < before:
                    self.client._abort_multipart_upload(bucket, str(upload.object_name), str(upload.upload_id))
                    aborted += 1
        return aborted

    def probe(self, bucket: str) -> Capabilities:
        """Find out what the store really does, with buckets of its own that it removes.

        `bucket` only names them: theirs begin with its name, so that they fall under the same policies.
        """
        return probe(self, bucket)

    def _put_if(self, bucket: str, key: str, data: bytes, condition: dict[str, str]) -> bool:
        """Write under a condition; the SDK takes such headers only in its private `_put_object`."""
        with s3_errors("write", self._at(bucket, key)):
            try:
                self.client._put_object(bucket, key, data, {**condition})
            except S3Error as error:
                # AWS answers 404 to If-Match on an absent key, others 412.
                if error.code not in ("PreconditionFailed", "NoSuchKey"):
                    raise
                self._require_bucket(bucket)
                return False
        return True

    def _uploads(self, bucket: str, prefix: str) -> Iterator[Upload]:
        """Yield the unfinished uploads, page by page; the markers of SDK and SeaweedFS are not usable."""
        key: str | None = None
        upload_id: str | None = None
        while True:
            page = self.client._list_multipart_uploads(
                bucket, prefix=prefix, key_marker=key, upload_id_marker=upload_id
            )
            yield from page.uploads
            last = page.uploads[-1] if page.uploads else None
            if last is None or not page.is_truncated or last.upload_id == upload_id:
                return
            key, upload_id = last.object_name, last.upload_id

    def _require_bucket(self, bucket: str) -> None:
        """Raise the SDK's NoSuchBucket: a HEAD, and a failed condition, do not tell it from a missing key."""
        if not self.client.bucket_exists(bucket):
            self.client.get_bucket_versioning(bucket)

    def _at(self, bucket: str, key: str = "") -> str:
        return f"s3://{bucket}/{key} at {self._host}"


class _Body(io.RawIOBase):
    """The bytes of an object; a connection that breaks is an UnavailableError, never an early end."""

    def __init__(self, response: BaseHTTPResponse, resource: str) -> None:
        self._response, self._resource = response, resource

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            data = self._response.read(len(buffer))
        except HTTPError as error:
            raise translated(error, "read", self._resource) from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._response.close()
            self._response.release_conn()
        super().close()
