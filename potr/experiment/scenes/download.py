# SPDX-License-Identifier: Apache-2.0
"""Large files over HTTP: resumed where they stopped, checked, and never started without the room for them.

The only module that knows pooch, which checks and keeps the file; its own downloaders start from the first byte again
after every interruption, so it is given one that does not.
"""

from __future__ import annotations

import errno
import http.client
import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch

from potr.errors import PotrError
from potr.experiment.scenes.suites import Archive
from potr.experiment.scenes.web import (
    RETRIES,
    TIMEOUT,
    WAIT,
    RangeNotSatisfiable,
    Stopped,
    open_url,
    read_chunk,
    version_of,
)
from potr.files import write_atomic
from potr.progress import Progress, silent

log = logging.getLogger(__name__)

MEGA = 1_000_000
_RESERVE = 100 * MEGA  # bytes that stay free


@dataclass(frozen=True)
class ResumingDownloader:
    """What pooch calls to fetch a file: HTTP with Range requests, retried, into ``part``, which outlives the process.

    Attributes:
        part: the file so far; beside it PART.json says which version of the file on the server it is a part of.
        expected: bytes; the server's own figure decides, a difference is logged.
        retries: attempts in a row that bring no byte before giving up.
        wait: seconds before the second attempt; doubles up to a minute.
        timeout: seconds without a byte that count as a broken connection.
    """

    part: Path
    expected: int | None = None
    retries: int = RETRIES
    wait: float = WAIT
    timeout: float = TIMEOUT
    progress: Progress = silent

    def __call__(self, url: str, output_file: str, _: Any = None) -> None:
        """Fetch ``url`` into ``part``, and give it the name ``output_file`` too.

        Raises:
            PotrError: refused by the server, no room on the disk, or ``retries`` attempts brought nothing.
        """
        most, fruitless = _size(self.part), 0
        while True:
            try:
                self._attempt(url)
                break
            except Stopped as stopped:
                size = _size(self.part)
                most, fruitless = max(most, size), 0 if size > most else fruitless + 1
                if fruitless > self.retries:
                    rest = f"{size:,} bytes are in {self.part}, the same command goes on from there"
                    raise PotrError(f"{url}: {stopped}; {rest}") from None
                log.warning("%s: %s after %s bytes, trying again", url, stopped, f"{size:,}")
                time.sleep(min(self.wait * 2**fruitless, 60.0))
        _name_too(self.part, Path(output_file))

    @property
    def _version_file(self) -> Path:
        return self.part.with_name(self.part.name + ".json")

    def forget(self) -> None:
        """Remove the part, once the whole is there or is worthless."""
        self.part.unlink(missing_ok=True)
        self._version_file.unlink(missing_ok=True)

    def _attempt(self, url: str) -> None:
        """Fetch what is missing; Stopped where it is not all."""
        version = self._version()
        have = _size(self.part) if version is not None else 0  # else of an unknown version of the file
        asked = {"Range": f"bytes={have}-", "If-Range": version} if have and version is not None else {}
        try:
            response = open_url(url, asked, timeout=self.timeout)
        except RangeNotSatisfiable as answer:
            if answer.content_range == f"bytes */{have}":
                return  # all of it was there
            self._version_file.unlink(missing_ok=True)
            raise Stopped("the file on the server has changed") from None
        with response:
            self._receive(response, have)

    def _receive(self, response: Any, have: int) -> None:
        start = have if response.status == http.client.PARTIAL_CONTENT else 0
        if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            self._version_file.unlink(missing_ok=True)
            raise Stopped("the server sent another part than asked for")
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        name = self.part.name.removesuffix(".part")
        if total is not None:
            if self.expected is not None and total != self.expected:
                log.warning("%s: %s bytes on the server, %s were expected", name, f"{total:,}", f"{self.expected:,}")
            need_space(self.part.parent, total - start, f"the rest of {name}")
        self._remember(response.headers)
        log.info("%s: %s from byte %s", name, response.url, f"{start:,}")
        done = start
        with _disk_errors(self.part), open(self.part, "ab" if start else "wb") as file:
            while chunk := read_chunk(response):
                file.write(chunk)
                done += len(chunk)
                if total is not None and done < total:
                    self.progress(f"download {name} (MB)", done // MEGA, total // MEGA + 1)
        if total is not None and done < total:
            raise Stopped("the connection broke")
        self.progress(f"download {name} (MB)", done // MEGA + 1, done // MEGA + 1)

    def _version(self) -> str | None:
        try:
            version = json.loads(self._version_file.read_text())["version"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return version if isinstance(version, str) else None

    def _remember(self, headers: Any) -> None:
        write_atomic(self._version_file, json.dumps({"version": version_of(headers)}).encode(), overwrite=True)


def fetch(
    archive: Archive,
    folder: Path,
    *,
    base_url: str | None = None,
    progress: Progress = silent,
    retries: int = RETRIES,
    wait: float = WAIT,
) -> Path:
    """An archive in ``folder``: the one that is there, else downloaded; checked against its SHA-256 either way.

    Where no SHA-256 is known, the one seen is written beside the file (FILE.sha256), and later calls compare with it.

    Args:
        archive: which.
        folder: made if it is not there; the part so far is kept in it.
        base_url: fetch FILE from here instead of the archive's own address.
        progress, retries, wait: as in ``ResumingDownloader``.

    Raises:
        PotrError: the file cannot be fetched, or has another SHA-256 than expected.
    """
    path, record = folder / archive.file, folder / f"{archive.file}.sha256"
    url = address(archive, base_url)
    if path.exists():
        log.info("%s: is here, checking it", path)
        found = pooch.file_hash(str(path))
        known = archive.sha256 or _recorded(record)
        if known is not None and found != known:
            raise PotrError(f"{path}: expected SHA-256 {known}, found {found}; delete it to download it again")
    else:
        part = folder / f"{archive.file}.part"
        downloader = ResumingDownloader(part, archive.size, retries, wait, progress=progress)
        pooch.get_logger().setLevel("WARNING")
        with _disk_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                pooch.retrieve(url, archive.sha256, fname=archive.file, path=folder, downloader=downloader)
            except ValueError as wrong:
                downloader.forget()
                raise PotrError(f"{url}: {wrong} Nothing is kept; the same command downloads it anew") from None
            downloader.forget()
        found = archive.sha256 or pooch.file_hash(str(path))
    if archive.sha256 is None and _recorded(record) != found:
        write_atomic(record, f"{found}  {archive.file}\n".encode(), overwrite=True)
        log.warning("%s: no checksum is published; its SHA-256 %s is recorded in %s", path, found, record.name)
    return path


def remote_size(archive: Archive, base_url: str | None = None) -> int | None:
    """Bytes of an archive as the server tells; else as known, which may be None. Asks once, and fails silently."""
    try:
        with open_url(address(archive, base_url), method="HEAD", timeout=20) as response:
            return int(response.headers["Content-Length"])
    except (PotrError, Stopped, ValueError, TypeError):
        return archive.size


def address(archive: Archive, base_url: str | None = None) -> str:
    """Where an archive is fetched from: its own address, or a file of that name below ``base_url``."""
    return archive.url if base_url is None else f"{base_url.rstrip('/')}/{archive.file}"


def need_space(folder: Path, size: int, what: str) -> None:
    """Refuse to start what does not fit.

    Raises:
        PotrError: fewer than ``size`` bytes (and a reserve) are free where ``folder`` lies.
    """
    free = shutil.disk_usage(folder).free
    if size + _RESERVE > free:
        raise PotrError(f"{folder}: {what} needs {in_words(size)}, {in_words(free)} are free")


def in_words(size: int) -> str:
    """Bytes in GB or MB (powers of ten)."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _recorded(record: Path) -> str | None:
    try:
        first = record.read_text().split()[:1]
    except (OSError, UnicodeDecodeError):
        return None
    return first[0] if first and len(first[0]) == 64 else None


def _name_too(path: Path, name: Path) -> None:
    """A second name for a file: what pooch deletes when it is interrupted must not be the only one."""
    name.unlink(missing_ok=True)
    try:
        name.hardlink_to(path)
    except OSError:  # a file system without links
        path.replace(name)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kept = "; the part so far is kept" if error.errno == errno.ENOSPC and path.exists() else ""
        raise PotrError(f"{path}: cannot write: {error.strerror or error}{kept}") from error
