"""The credentials of one installation: generated once, never changed."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping

from connectors.errors import SecretError
from connectors.redaction import remember
from deployments.embedded.home import Home, write_private

NAMES = (
    "IDC_OBJECTS_ACCESS_KEY",
    "IDC_OBJECTS_SECRET_KEY",
    "CLOUD_OBJECTS_ACCESS_KEY",
    "CLOUD_OBJECTS_SECRET_KEY",
    "BUSINESS_PASSWORD",
    "LAKE_CATALOG_PASSWORD",
    "POSTGRES_PASSWORD",
)


def load_secrets(home: Home) -> Mapping[str, str]:
    """Return every credential; later texts of this process are redacted of them.

    Raises SecretError when the file is absent, broken or incomplete.
    """
    try:
        found = json.loads(home.secrets_file.read_text(encoding="utf-8"))
        values = {name: str(found[name]) for name in NAMES}
    except FileNotFoundError:
        raise _unusable(home, "it does not exist") from None
    except (ValueError, KeyError, TypeError) as error:
        # The parser's own message may quote the file.
        raise _unusable(home, f"it is incomplete ({type(error).__name__})") from None
    for value in values.values():
        remember(value)
    return values


def ensure_secrets(home: Home) -> Mapping[str, str]:
    """Return the credentials, generated first if this installation has neither them nor data."""
    if not home.secrets_file.exists() and not home.has_data():
        values = {name: _generate(name) for name in NAMES}
        write_private(home.secrets_file, json.dumps(values, indent=2) + "\n")
    return load_secrets(home)


def _generate(name: str) -> str:
    return secrets.token_hex(10).upper() if name.endswith("ACCESS_KEY") else secrets.token_hex(24)


def _unusable(home: Home, cause: str) -> SecretError:
    return SecretError(
        "embedded estate", "read", str(home.secrets_file), cause,
        "Restore the file, or delete the installation and its data with `causeway down --delete-data`.",
    )  # fmt: skip
