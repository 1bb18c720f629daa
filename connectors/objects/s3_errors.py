"""Turns what an S3 store or the way to it reports into Causeway's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from connectors.errors import (
    AccessDeniedError,
    CapabilityError,
    CausewayError,
    ConflictError,
    FixableError,
    NotFoundError,
    StorageFullError,
    ThrottledError,
    UnavailableError,
)

_PROVIDER = "s3"
_NO_ROOM = ("no writable volumes", "no free volumes", "no space left", "storage full", "disk full")

_ByCode = dict[str, tuple[type[CausewayError], str]]
_DENIED = "Check access_key and secret_key of this store in the estate, and what they may do."
_BY_CODE: _ByCode = {
    "NoSuchBucket": (NotFoundError, "Create the bucket, or correct its name in the estate."),
    "NoSuchKey": (NotFoundError, "List the bucket to see what is there."),
    "NoSuchVersion": (NotFoundError, "List the object's versions to see what is there."),
    "InvalidBucketName": (
        FixableError, "A bucket's name has 3 to 63 lower-case letters, digits, '-' and '.'.",
    ),
    "SignatureDoesNotMatch": (AccessDeniedError, _DENIED),
    "InvalidAccessKeyId": (AccessDeniedError, _DENIED),
    "AccessDenied": (AccessDeniedError, _DENIED),
    "ExpiredToken": (AccessDeniedError, _DENIED),
    "RequestTimeTooSkewed": (FixableError, "Set this machine's clock."),
    "AuthorizationHeaderMalformed": (FixableError, "Correct the store's region in the estate."),
    "BucketAlreadyExists": (FixableError, "Somebody else owns the name: choose another."),
    "OperationAborted": (ConflictError, ""),
    "ConditionalRequestConflict": (ConflictError, ""),
    "PreconditionFailed": (ConflictError, ""),
    "SlowDown": (ThrottledError, ""),
    "SlowDownRead": (ThrottledError, ""),
    "SlowDownWrite": (ThrottledError, ""),
    "TooManyRequests": (ThrottledError, ""),
    "RequestLimitExceeded": (ThrottledError, ""),
    "ServiceUnavailable": (UnavailableError, ""),
    # SeaweedFS says no more than this when it has no room left.
    "InternalError": (UnavailableError, "If it lasts, look at the store's log and its free space."),
    "RequestTimeout": (UnavailableError, ""),
    "XMinioStorageFull": (StorageFullError, "Free or add storage."),
    "InsufficientStorage": (StorageFullError, "Free or add storage."),
    "QuotaExceeded": (StorageFullError, "Free storage, or raise the bucket's quota."),
    "XMinioAdminBucketQuotaExceeded": (
        StorageFullError, "Free storage, or raise the bucket's quota.",
    ),
    "NotImplemented": (CapabilityError, "Use a store that has this."),
    "MethodNotAllowed": (CapabilityError, "Use a store that has this."),
}  # fmt: skip


@contextmanager
def s3_errors(operation: str, resource: str) -> Iterator[None]:
    """Raise what happens inside as one of Causeway's errors."""
    try:
        yield
    except (MinioException, HTTPError, HTTPException, ValueError) as error:
        raise translated(error, operation, resource) from error


def translated(error: Exception, operation: str, resource: str) -> CausewayError:
    """Return the error of Causeway that says what to do about `error`."""
    kind, cause, next_step = _judge(error)
    return kind(_PROVIDER, operation, resource, cause, next_step)


def _judge(error: Exception) -> tuple[type[CausewayError], str, str]:
    if isinstance(error, S3Error):
        return _judge_code(error)
    if isinstance(error, (ServerError, InvalidResponseError)):
        return _judge_status(error)
    if isinstance(error, ValueError):  # the SDK checks names before it calls
        return FixableError, str(error), "Correct the bucket or the key."
    reason = error.reason if isinstance(error, MaxRetryError) else error
    if isinstance(reason, SSLError):
        return (
            FixableError, f"TLS failed: {reason}",
            "Check the URL's scheme, the server's certificate and the store's ca_file.",
        )  # fmt: skip
    return UnavailableError, f"no answer ({_shortly(reason)})", "Check that the store is running."


def _judge_code(error: S3Error) -> tuple[type[CausewayError], str, str]:
    cause = f"{error.code}: {error.message}"
    if any(sign in cause.lower() for sign in _NO_ROOM):
        return StorageFullError, cause, "Free or add storage."
    if error.code in _BY_CODE:
        kind, next_step = _BY_CODE[error.code]
        return kind, cause, next_step
    return _by_status(error.response.status), cause, ""


def _judge_status(error: ServerError | InvalidResponseError) -> tuple[type[CausewayError], str, str]:
    """Judge an answer that is not S3's: a proxy's, or another kind of server's."""
    # The SDK keeps the status of an InvalidResponseError in a private field only.
    status: int = error.status_code if isinstance(error, ServerError) else error._code
    text = str(error).lower()
    if status == 507 or any(sign in text for sign in _NO_ROOM):
        return StorageFullError, f"HTTP status {status}: no room", "Free or add storage."
    next_step = "" if status >= 500 else "Check that the URL is an S3 store's."
    return _by_status(status), f"HTTP status {status}, not an S3 answer", next_step


def _by_status(status: int) -> type[CausewayError]:
    by_status = {401: AccessDeniedError, 403: AccessDeniedError, 404: NotFoundError, 429: ThrottledError}
    default = UnavailableError if status >= 500 else FixableError
    return by_status.get(status, default)


def _shortly(error: BaseException | None) -> str:
    text = str(error)
    return text.rpartition(": ")[2] if "HTTPConnection" in text or "object at 0x" in text else text
