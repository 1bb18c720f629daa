"""Builds the SELECT of a source: its columns as declared, and the slice of one load."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from connectors.duck import quote_identifier, quote_literal
from connectors.errors import BadDataError, FixableError, NotFoundError
from connectors.sources import Slice


def unique_name(kind: str) -> str:
    """Return a name for a secret, a database or a relation that no other scan of the connection has."""
    return f"causeway_{kind}_{secrets.token_hex(6)}"


def slice_condition(part: Slice, kinds: Mapping[str, str], *, cast: str, where: str) -> str:
    """Return the SQL condition of `part`, or `true`; `cast` is a pattern such as `CAST({} AS {})`.

    `kinds` are the types by column. Raises NotFoundError when the source has no such column, FixableError for
    bounds without a cursor.
    """
    if part.start is None and part.end is None:
        return "true"
    if part.cursor is None:
        raise FixableError(
            "source", "cut", where, "a slice has bounds but no cursor",
            "Declare the table's cursor in the estate.",
        )  # fmt: skip
    if part.cursor not in kinds:
        raise NotFoundError(
            "source", "cut", where, f"there is no column '{part.cursor}' to be the cursor",
            f"Choose one of: {', '.join(kinds)}.",
        )  # fmt: skip
    name, kind = quote_identifier(part.cursor), kinds[part.cursor]
    bounds = [(">=", part.start), ("<", part.end)]
    condition = " AND ".join(
        f"{name} {sign} {cast.format(quote_literal(bound), kind)}" for sign, bound in bounds if bound is not None
    )
    return f"({condition} OR {name} IS NULL)" if part.with_nulls else condition


def require_columns(declared: Sequence[str], present: Sequence[str], where: str) -> None:
    """Raise BadDataError that names both unless every declared column is present."""
    missing = [name for name in declared if name not in present]
    if missing:
        raise BadDataError(
            "source", "read", where,
            f"the declared column{'s' if len(missing) > 1 else ''} {_listed(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} not among {_listed(present)}",
            "Correct the source, or the table's columns in the estate.",
        )  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
