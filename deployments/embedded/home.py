"""Where an installation keeps its files, and who may touch them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from connectors.errors import FixableError

_FOLDERS = ("logs", "run", "data")
_FILES = ("ports.json", "secrets.json", "estate.yaml", "env")
_LOCK = "lock"


class Home:
    """The folder of one installation; naming one touches nothing on disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser().resolve()
        self.ports_file, self.secrets_file, self.estate_file, self.env_file = (self.path / name for name in _FILES)

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"

    def log(self, service: str) -> Path:
        return self.path / "logs" / f"{service}.log"

    def record(self, service: str) -> Path:
        """The file that says which process serves, written before that process starts to serve."""
        return self.path / "run" / f"{service}.json"

    def ready_file(self, service: str) -> Path:
        """The file in which a service without a port writes its pid once it is ready."""
        return self.path / "run" / f"{service}.ready"

    def data(self, service: str) -> Path:
        return self.path / "data" / service

    def exists(self) -> bool:
        return (self.path / _LOCK).exists()

    def has_data(self) -> bool:
        folder = self.path / "data"
        return folder.is_dir() and any(folder.iterdir())

    def create(self) -> None:
        """Make the folders, for their owner only; refuses a folder that is somebody else's."""
        self._refuse_foreign()
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)
        os.close(os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600))
        for name in _FOLDERS:
            (self.path / name).mkdir(mode=0o700, exist_ok=True)

    def _refuse_foreign(self) -> None:
        if not self.path.exists():
            return
        owner = self.path.stat().st_uid
        if owner != os.geteuid():
            raise _refusal(self, f"it belongs to user id {owner}", "Run as that user")
        if not self.exists() and any(self.path.iterdir()):
            raise _refusal(self, "it holds files and is no installation", "Name an empty folder")

    @contextmanager
    def locked(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the installation alone; `waiting` is called once if somebody else holds it."""
        with (self.path / _LOCK).open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def delete(self) -> None:
        """Delete what an installation made, and the folder itself if nothing else is in it."""
        self._refuse_foreign()
        for name in _FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in (*_FILES, _LOCK):
            (self.path / name).unlink(missing_ok=True)
        if self.path.exists() and not any(self.path.iterdir()):
            self.path.rmdir()


def write_private(path: Path, text: str) -> None:
    """Replace `path` in one step by `text`, readable by its owner only and safely on disk."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _refusal(home: Home, cause: str, next_step: str) -> FixableError:
    advice = f"{next_step}, or choose another folder with CAUSEWAY_HOME."
    return FixableError("embedded estate", "use", str(home.path), cause, advice)
