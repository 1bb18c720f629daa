"""Keeps secrets out of texts: errors, logs, artifacts and representations."""

from __future__ import annotations

import re

_KEYWORD = re.compile(
    r"(?i)\b(password|passwd|pwd|secret|secret_key|secret_access_key|token|authorization)"
    r"(\s*[=:]\s*)('[^']*'|\"[^\"]*\"|[^\s,;)&]+)"
)
_USERINFO = re.compile(r"(?i)([a-z][a-z0-9+.-]*://[^\s:/@]*):([^\s@/]+)@")
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
    keyword, separator, _ = match.groups()
    if separator == ":" and keyword.lower() == "secret":
        return match.group(0)
    return f"{keyword}{separator}***"
