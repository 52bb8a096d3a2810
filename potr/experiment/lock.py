# SPDX-License-Identifier: Apache-2.0
"""One process at a time works on a run. The system frees the lock of a process that dies, however it dies."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from potr.errors import PotrError

log = logging.getLogger(__name__)

LOCKS = ".locks"  # under outputs, so that a run's folder holds its results only, and is not there before it has any
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


class Busy(PotrError):
    """Another process works on this run."""


def lock_file(folder: Path) -> Path:
    """The file that stands for a run's folder; it stays, since removing it would let two processes lock two files."""
    dataset = folder.parent
    return dataset.parent / LOCKS / dataset.name / folder.name


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Have a run's folder for oneself.

    Where the system or the file system knows no locks (some network file systems), a warning is all.

    Raises:
        Busy: another process has it, and ``wait`` is False.
        PotrError: the file cannot be written.
    """
    path = lock_file(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise PotrError(f"{path}: cannot write: {error.strerror}") from None
    try:
        _lock(descriptor, folder, wait)
        holder = f"process {os.getpid()} on {socket.gethostname()}\n".encode()
        os.pwrite(descriptor, holder, 0)
        os.ftruncate(descriptor, len(holder))
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, wait: bool) -> None:
    if sys.platform == "win32":
        return  # no flock there
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
        if not wait:
            raise Busy(f"{folder}: {holder} works on it") from None
        log.info("%s: %s works on it; waiting", folder, holder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise PotrError(f"{folder}: cannot lock: {error.strerror}") from None
        log.warning("%s: no locks here (%s); do not start the same run twice at a time", folder, error.strerror)
