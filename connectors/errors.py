"""The errors of every connector, grouped by what to do next: retry, fix, skip.

A message names the provider, the operation, the resource, the cause and the next step. All arguments are
positional so that an error survives pickling, and every text is redacted before it is kept.
"""

from __future__ import annotations

from connectors.redaction import redact


class CausewayError(Exception):
    """Base of all errors; catch one of the three groups below it instead."""

    def __init__(self, provider: str, operation: str, resource: str, cause: str, next_step: str = "") -> None:
        parts = tuple(redact(part) for part in (provider, operation, resource, cause, next_step))
        super().__init__(*parts)
        self.provider, self.operation, self.resource, self.cause, self.next_step = parts

    def __str__(self) -> str:
        text = f"{self.provider}: {self.operation} {self.resource}: {self.cause}"
        return f"{text.rstrip('.')}. {self.next_step}" if self.next_step else text


class RetryableError(CausewayError):
    """Group 1, retry: the same call may succeed later without anybody's help."""


class UnavailableError(RetryableError):
    """The system does not answer, or answers that it is not ready."""


class ThrottledError(RetryableError):
    """The system asks for fewer calls; back off with jitter."""


class ConflictError(RetryableError):
    """Somebody else's write came first; look again before writing."""


class FixableError(CausewayError):
    """Group 2, fix: no retry helps; a person or another plan has to change something."""


class EstateError(FixableError):
    """The estate file is wrong; the cause lists every problem that was found."""


class SecretError(FixableError):
    """A secret reference cannot be resolved."""


class AccessDeniedError(FixableError):
    """Wrong credentials, or right ones without the right to do this."""


class NotFoundError(FixableError):
    """The named bucket, database, table, file or endpoint does not exist."""


class BadDataError(FixableError):
    """The source's data cannot be read as declared; the message says where."""


class SchemaError(FixableError):
    """The batch's schema does not fit the table's; the cause names both."""


class PolicyError(FixableError):
    """The estate forbids this, for example a data class at a site that may not hold it."""


class CapabilityError(FixableError):
    """The system lacks, or does not enforce, a capability that this needs."""


class StorageFullError(FixableError):
    """No room left where data has to be written."""


class ServiceError(FixableError):
    """A local server did not start, or did not become ready."""


class SkippableError(CausewayError):
    """Group 3, skip: nothing is broken; this piece of work is not to be done now."""


class QuarantinedError(SkippableError):
    """A batch failed its expectations and was set aside with the reasons."""
