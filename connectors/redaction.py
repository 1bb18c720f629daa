"""Keeps secrets out of texts: errors, logs, artifacts and representations."""

from __future__ import annotations

import re

_KEYWORD = re.compile(
    # Also as the end of a longer name (PGPASSWORD, aws_secret_access_key) and in quotes (JSON, reprs).
    r"(?i)(password|passwd|pwd|secret|secret_key|access_key|token|api[-_]?key|authorization)"
    r"([\"']?\s*[=:]\s*)((?:(?:bearer|basic)\s+)?(?:'[^']*'|\"[^\"]*\"|[^\s,;)&]+))"
)
# To the last @, since people forget to escape one in a password; a number before a path is a port.
_USERINFO = re.compile(r"(?i)([a-z][a-z0-9+.-]*://[^\s:/]*):(?!\d{1,5}(?:[/?#,:;)'\"\s]|$))(\S+)@")
_SHORTEST = 6

_revealed: set[str] = set()


def remember(secret: str) -> str:
    """Return `secret`, which from now on is replaced wherever `redact` meets it in this process.

    Values under 6 characters are not remembered: replacing them would make texts unreadable.
    """
    if len(secret) >= _SHORTEST:
        _revealed.add(secret)
    return secret


def redact(text: str) -> str:
    """Return `text` without remembered secrets, without `password=…` values and without URL passwords.

    `secret:NAME` references stay: they are names, not values.
    """
    for secret in sorted(_revealed, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _USERINFO.sub(r"\1:***@", text)
    return _KEYWORD.sub(_mask, text)


def _mask(match: re.Match[str]) -> str:
    keyword, separator, value = match.groups()
    is_name = separator == ":" and keyword.lower() == "secret" and _begins_word(match)
    if is_name or value.startswith("secret:"):
        return match.group(0)
    return f"{keyword}{separator}***"


def _begins_word(match: re.Match[str]) -> bool:
    before = match.string[: match.start()][-1:]
    return not (before.isalnum() or before in ("_", "-"))
