"""The lake's one seam to storage: a handful of verbs with stated durability. Here they are for a local directory.

The verb that everything rests on is `create`: a name appears with all its content or not at all, and among any number
of concurrent creators exactly one succeeds. In a directory that is link(2) of a fully written, synced file; in an
object store it is a conditional put.

**Delivery**: when `create` returns True, content and name survive power loss. When it returns False, somebody's file
of that name exists, whose name may not be durable yet: `sync` its folder before acting on it. After `kill -9` inside
`create`, the name is there whole or not at all; the temporary file may stay. Data files become durable with
`sync_files`. **Bounds**: `read` refuses objects over `OBJECT_BYTES_MAX`; `list` holds one folder's names in memory.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import LimitError, RetryError
from edge_agent.contract.limits import MIB
from lake import layout

__all__ = ["OBJECT_BYTES_MAX", "DirectoryStorage", "Storage"]

OBJECT_BYTES_MAX = 1024 * MIB


class Storage(Protocol):
    """What the lake asks of storage; paths are relative to the lake."""

    def create(self, path: str, content: bytes, point: str) -> bool:
        """Publish `content` durably as `path`; False if `path` exists. `point` names the crash points passed.

        RetryError: not known whether it was created.
        """
        ...

    def read(self, path: str) -> bytes | None:
        """The content, or None if there is no such object."""
        ...

    def list(self, folder: str) -> list[str]:
        """Names (not paths) in `folder`; none if it does not exist."""
        ...

    def delete(self, path: str) -> None:
        """Delete it, if it is there; not synced."""
        ...

    def sync(self, folder: str) -> None:
        """Make the names in `folder` durable."""
        ...

    def open_output(self, path: str) -> BinaryIO:
        """A new data file for writing; durable only after `sync_files`."""
        ...

    def sync_files(self, paths: Iterable[str]) -> None:
        """Make closed data files and their names durable."""
        ...

    def size(self, path: str) -> int | None:
        """Bytes of an object, or None if there is none."""
        ...

    def location(self, path: str) -> str:
        """What other libraries (deltalake, DuckDB) call `path`."""
        ...


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DirectoryStorage:
    """A lake in a local directory; several processes of one machine may use it at once."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(os.path.abspath(root))

    def make_folders(self) -> None:
        """Create the root and the fixed folders, durably."""
        for folder in ("", layout.TRANSACTIONS, layout.CHECKPOINTS, layout.STAGING, layout.STATES, layout.TABLES):
            self._make_folder(self._root / folder)

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        if folder != folder.parent:
            self._make_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir()
        _sync_path(folder.parent)

    def create(self, path: str, content: bytes, point: str) -> bool:
        target = self._root / path
        staged = self._root / layout.STAGING / layout.new_id()
        try:
            self._write_synced(staged, content)
            crash_point(f"{point}.before_link")
            try:
                os.link(staged, target)
            except FileExistsError:
                # A network file system may report this for a link it has just made: the two then are one file.
                return os.path.samefile(staged, target)
            crash_point(f"{point}.after_link")
            _sync_path(target.parent)
            crash_point(f"{point}.after_sync")
            return True
        except OSError as error:
            raise _retry(error, f"writing {path}") from error
        finally:
            with suppress(FileNotFoundError):
                staged.unlink()

    @staticmethod
    def _write_synced(path: Path, content: bytes) -> None:
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def read(self, path: str) -> bytes | None:
        try:
            with (self._root / path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > OBJECT_BYTES_MAX:
                    raise LimitError(f"size of {path} in bytes", size, OBJECT_BYTES_MAX, "this is no file of a lake")
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list(self, folder: str) -> list[str]:
        try:
            return os.listdir(self._root / folder)
        except FileNotFoundError:
            return []

    def delete(self, path: str) -> None:
        with suppress(FileNotFoundError):
            (self._root / path).unlink()

    def sync(self, folder: str) -> None:
        _sync_path(self._root / folder)

    def open_output(self, path: str) -> BinaryIO:
        target = self._root / path
        try:
            self._make_folder(target.parent)
            return target.open("xb")
        except OSError as error:
            raise _retry(error, f"writing {path}") from error

    def sync_files(self, paths: Iterable[str]) -> None:
        folders: set[Path] = set()
        try:
            for path in paths:
                _sync_path(self._root / path)
                folders.add((self._root / path).parent)
            for folder in sorted(folders):
                _sync_path(folder)
        except OSError as error:
            raise _retry(error, "syncing data files") from error

    def size(self, path: str) -> int | None:
        try:
            return (self._root / path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def location(self, path: str) -> str:
        return str(self._root / path)


def _retry(error: OSError, what: str) -> RetryError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RetryError(f"{what}: no space left; free some space on the lake's disk ({error})")
    return RetryError(f"{what} failed: {error}")
