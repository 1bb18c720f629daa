"""Resolves `secret:NAME` references of an estate; values are never part of the estate itself."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from connectors.errors import SecretError
from connectors.redaction import remember

PREFIX = "secret:"
FILE_NAME = "secrets.json"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class SecretRef:
    """The name of a secret and the folder of the estate that names it."""

    name: str
    folder: Path | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, text: object, folder: Path | None = None) -> SecretRef:
        """Read `secret:NAME`; raises ValueError for anything else, without repeating it."""
        if isinstance(text, SecretRef):
            return text
        if not isinstance(text, str) or not text.startswith(PREFIX):
            raise ValueError("must be a reference of the form secret:NAME, never the value itself")
        name = text.removeprefix(PREFIX)
        if not _NAME.fullmatch(name):
            raise ValueError("the name after 'secret:' has letters, digits, '_' and '-' only")
        return cls(name, folder)

    def __str__(self) -> str:
        return PREFIX + self.name

    def reveal(self) -> str:
        """Return the value: the environment variable, else the folder's file, else a Prefect block.

        The file is `secrets.json` beside the estate, an object of names and values that only its owner may
        read. The Prefect Secret block has the name in lower case with '-' for '_'. Raises SecretError.
        """
        value = os.environ.get(self.name) or self._from_file() or self._from_prefect()
        if not value:
            block = _block_name(self.name)
            raise SecretError(
                "secrets", "resolve", str(self), "it has no value anywhere",
                f"Set the environment variable {self.name}, or create the Prefect Secret block '{block}'.",
            )  # fmt: skip
        return remember(value)

    def _from_file(self) -> str | None:
        if self.folder is None:
            return None
        path = self.folder / FILE_NAME
        try:
            mode = path.stat().st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise SecretError(
                    "secrets", "read", str(path), f"its mode is {stat.filemode(mode)}: others can read it",
                    f"Run: chmod 600 {path}",
                )  # fmt: skip
            value = json.loads(path.read_text(encoding="utf-8")).get(self.name)
        except FileNotFoundError:
            return None
        except (ValueError, AttributeError, OSError) as error:
            # The parser's own message may quote the file, so only its kind is passed on.
            raise SecretError(
                "secrets", "read", str(path), f"not a readable JSON object ({type(error).__name__})"
            ) from None
        return value if isinstance(value, str) else None

    def _from_prefect(self) -> str | None:
        if not (os.environ.get("PREFECT_API_URL") or _inside_a_run()):
            return None  # without a server there are no blocks, and asking would start one
        from prefect.blocks.system import Secret

        try:
            loaded = Secret.load(_block_name(self.name), _sync=True)  # type: ignore[call-arg]
        except ValueError:  # Prefect's "no such block"
            return None
        assert isinstance(loaded, Secret)  # _sync rules the coroutine out
        value = loaded.get()
        return value if isinstance(value, str) else None


def _block_name(name: str) -> str:
    return name.lower().replace("_", "-")


def _inside_a_run() -> bool:
    import sys

    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext, TaskRunContext

    return FlowRunContext.get() is not None or TaskRunContext.get() is not None
