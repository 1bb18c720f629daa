"""What every object store driver does, against real stores."""

from __future__ import annotations

import io
import pickle
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from connectors.errors import (
    AccessDeniedError,
    CausewayError,
    FixableError,
    NotFoundError,
    UnavailableError,
)
from connectors.estate import ObjectStore
from connectors.objects import Objects, objects
from connectors.objects.s3 import S3Objects
from connectors.secrets import SecretRef
from tests.servers import Running

pytestmark = pytest.mark.servers


def test_what_is_written_is_read_back_with_its_size_and_etag(stored: Objects, bucket: str) -> None:
    written = stored.put(bucket, "a b/ü&+%.txt", b"hello", media_type="text/plain")
    assert (written.bytes, written.key) == (5, "a b/ü&+%.txt")
    assert stored.info(bucket, "a b/ü&+%.txt") == written
    with stored.read(bucket, "a b/ü&+%.txt") as body:
        assert body.read() == b"hello"


def test_a_stream_of_unknown_length_is_written_in_parts(stored: Objects, bucket: str) -> None:
    data = secrets.token_bytes(1000) * 35_000  # 35 MB: three parts
    written = stored.put(bucket, "large", io.BytesIO(data))
    assert written.bytes == len(data)
    with stored.read(bucket, "large") as body:
        assert body.read() == data


def test_a_bucket_is_made_once_and_making_it_again_is_harmless(stored: Objects, bucket: str) -> None:
    stored.put(bucket, "kept", b"x")
    stored.ensure_bucket(bucket)
    assert stored.info(bucket, "kept") is not None
    assert bucket in stored.buckets()


def test_a_versioned_bucket_gives_every_write_a_version(stored: Objects) -> None:
    bucket = f"test-{secrets.token_hex(6)}"
    stored.ensure_bucket(bucket, versioned=True)
    first, second = stored.put(bucket, "k", b"1"), stored.put(bucket, "k", b"2")
    assert first.version
    assert first.version != second.version


def test_every_object_is_listed_once_across_pages(stored: Objects, bucket: str) -> None:
    keys = [f"{folder}{number:04}" for folder in ("a/", "a b/", "a.", "a/z/") for number in range(300)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: stored.create(bucket, key, b"x"), keys))
    listed = [one.key for one in stored.list(bucket)]
    assert sorted(listed) == sorted(keys)
    assert sorted(one.key for one in stored.list(bucket, "a/z/")) == [f"a/z/{n:04}" for n in range(300)]


def test_of_racing_creates_exactly_one_wins(stored: Objects, bucket: str) -> None:
    bodies = [str(number).encode() for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        won = list(pool.map(lambda body: stored.create(bucket, "epoch", body), bodies))
    assert won.count(True) == 1
    with stored.read(bucket, "epoch") as body:
        assert body.read() == bodies[won.index(True)]


def test_a_replacement_needs_the_etag_that_is_there(stored: Objects, bucket: str) -> None:
    old = stored.put(bucket, "k", b"old").etag
    assert stored.replace(bucket, "k", b"new", etag=old)
    assert not stored.replace(bucket, "k", b"stale", etag=old)
    assert not stored.replace(bucket, "absent", b"x", etag=old)
    with stored.read(bucket, "k") as body:
        assert body.read() == b"new"


def test_deleting_twice_is_no_error(stored: Objects, bucket: str) -> None:
    stored.put(bucket, "k", b"x")
    stored.delete(bucket, "k")
    stored.delete(bucket, "k")
    assert stored.info(bucket, "k") is None


def test_only_uploads_that_are_older_are_aborted(stored: Objects, bucket: str) -> None:
    assert isinstance(stored, S3Objects)
    for number in range(3):
        stored.client._create_multipart_upload(bucket, f"up/{number}", {})
    stored.client._create_multipart_upload(bucket, "other/1", {})
    now = datetime.now(UTC)
    assert stored.abort_uploads(bucket, "up/", before=now - timedelta(hours=1)) == 0
    assert stored.abort_uploads(bucket, "up/", before=now + timedelta(hours=1)) == 3
    assert stored.abort_uploads(bucket, "up/", before=now + timedelta(hours=1)) == 0


def test_a_missing_bucket_or_key_is_named_with_what_to_do(stored: Objects, bucket: str) -> None:
    absent = f"absent-{secrets.token_hex(4)}"
    calls: list[Callable[[], object]] = [
        lambda: list(stored.list(absent)),
        lambda: stored.info(absent, "k"),
        lambda: stored.read(absent, "k"),
        lambda: stored.put(absent, "k", b"x"),
        lambda: stored.create(absent, "k", b"x"),
        lambda: stored.replace(absent, "k", b"x", etag="0"),
    ]
    for call in calls:
        with pytest.raises(NotFoundError, match=f"{absent}.*Create the bucket"):
            call()
    with pytest.raises(NotFoundError, match="NoSuchKey"):
        stored.read(bucket, "absent")


def test_a_bad_bucket_name_is_refused(stored: Objects) -> None:
    with pytest.raises(FixableError, match="invalid bucket name"):
        stored.ensure_bucket("No_Bucket")


def test_a_wrong_secret_is_denied_and_never_shown(
    store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG_SECRET", "not-the-right-one")
    wrong = objects(store.model_copy(update={"secret_key": SecretRef("WRONG_SECRET")}))
    for call in (wrong.buckets, lambda: wrong.info(bucket, "k"), lambda: list(wrong.list(bucket))):
        with pytest.raises(AccessDeniedError) as caught:
            call()
        shown = f"{caught.value!r} {caught.value} {wrong!r} {store!r}"
        assert "not-the-right-one" not in shown
        assert "access_key and secret_key" in shown
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_store_that_is_not_there_is_unavailable(store: ObjectStore, bucket: str) -> None:
    gone = objects(store.model_copy(update={"url": "s3+http://127.0.0.1:9"}))
    with pytest.raises(UnavailableError, match="no answer"):
        gone.info(bucket, "k")


def test_tls_to_a_server_without_it_is_no_reason_to_try_again(store: ObjectStore) -> None:
    url = store.url.replace("s3+http://", "s3+https://")
    with pytest.raises(FixableError, match="TLS failed"):
        objects(store.model_copy(update={"url": url})).buckets()


def test_another_kind_of_server_is_told_from_a_store(store: ObjectStore, postgres: Running) -> None:
    address = postgres.url.partition("@")[2].partition("/")[0]
    with pytest.raises(CausewayError):
        objects(store.model_copy(update={"url": f"s3+http://{address}"})).buckets()


def test_the_probe_finds_what_the_store_does_and_leaves_nothing(stored: Objects, bucket: str) -> None:
    before = stored.buckets()
    found = stored.probe(bucket)
    assert found.conditional_create
    assert found.conditional_replace
    assert found.versioning
    assert found.locks
    assert found.lost == ("replication",)
    assert stored.buckets() == before
