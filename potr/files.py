# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or not there: written beside the target, flushed to the disk, then renamed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from potr.errors import PotrError

LEFT_FREE = 2 << 30  # bytes of a disk that are not a cache's to fill


def write_atomic(path: Path | str, data: bytes | Callable[[BinaryIO], object], *, overwrite: bool = False) -> None:
    """Write a file so that an interruption at any moment leaves the old state or the new one, never a part.

    Args:
        path: the file; missing parent folders are made.
        data: the content, or a function that writes it to an open binary file.
        overwrite: replace an existing file.

    Raises:
        PotrError: the file exists and ``overwrite`` is False, or the system refuses to write it.
    """
    path = Path(path)
    refuse_existing(path, overwrite)  # early, before the content is made
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                if isinstance(data, bytes):
                    file.write(data)
                else:
                    data(file)
                file.flush()
                os.fsync(file.fileno())
            refuse_existing(path, overwrite)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise PotrError(f"{path}: cannot write: {error.strerror or error}") from error


def has_room(path: Path, size: int) -> bool:
    """Whether a disk has room for a file that could be made again: 2 GiB are left to others.

    Raises:
        PotrError: the file's folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(path.parent).free - size >= LEFT_FREE
    except OSError as error:
        raise PotrError(f"{path}: cannot write: {error.strerror or error}") from error


def user_cache() -> Path:
    """The folder for what can be made or fetched again: potr in $XDG_CACHE_HOME, else in ~/.cache. It may not exist.

    Raises:
        RuntimeError: the user has no home folder.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "potr"


def refuse_existing(path: Path | str, overwrite: bool) -> None:
    """Raise PotrError if ``path`` exists and may not be replaced. For checking before minutes of work."""
    if not overwrite and os.path.lexists(path):
        raise PotrError(f"{path}: exists already; give another name or allow overwriting (overwrite=True, --overwrite)")


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut, where the system lets a folder be opened (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
