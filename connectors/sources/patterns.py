"""Matches paths against the patterns of an estate: `*` and `?` within a folder, `**` across folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

_WILD = re.compile(r"\*\*/|\*\*|\*|\?")
_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def compiled(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern; it is to match the whole path."""
    parts, last = [], 0
    for wild in _WILD.finditer(pattern):
        parts += [re.escape(pattern[last : wild.start()]), _MEANING[wild.group()]]
        last = wild.end()
    return re.compile("".join([*parts, re.escape(pattern[last:])]), re.DOTALL)


def fixed_prefix(pattern: str) -> str:
    """Return what every match begins with."""
    wild = _WILD.search(pattern)
    return pattern[: wild.start()] if wild else pattern


def matching_files(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the files that match, folder by folder; a relative pattern starts at `folder`."""
    whole = str(folder.resolve() / pattern)
    wanted, start = compiled(whole), fixed_prefix(whole)
    if start == whole:
        yield from [Path(whole)] if Path(whole).is_file() else []
        return
    for parent, folders, names in os.walk(start.rpartition("/")[0] or "/"):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if wanted.fullmatch(str(path)) and path.is_file():
                yield path
