# SPDX-License-Identifier: Apache-2.0
"""Fetching scenes that are missing: archives downloaded, or read where they are, and what is needed unpacked.

Archives are not trusted: nothing is written outside the target, and nothing half unpacked is left behind.
"""

from __future__ import annotations

import errno
import io
import logging
import shutil
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pooch
import requests

from potr.errors import PotrError
from potr.experiment.scenes.places import MODEL_FILE, Roots, locate, origin
from potr.experiment.scenes.suites import MODELS, Archive, SuiteScene
from potr.files import write_atomic
from potr.progress import Progress, silent

log = logging.getLogger(__name__)

ARCHIVES_FOLDER = "archives"  # below the folder an archive unpacks into
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before a failed Range request is sent again
BLOCK = 4 << 20  # bytes of a Range request
_MODEL_FILES = (MODEL_FILE, "cameras.json", "cfg_args")  # not the model of 7,000 iterations, not the initial points
_EVERYTHING = ("",)
_HEADERS = {"User-Agent": "potr", "Accept-Encoding": "identity"}
_TIMEOUT = 60.0  # seconds without a byte
_WORTH_RETRYING = (408, 429, 500, 502, 503, 504)
_RESERVE, _MEGA, _CHUNK = 100_000_000, 1_000_000, 1 << 20  # bytes: to stay free on the disk; a MB; copied at once
# What zipfile raises on damaged bytes; a name that is no UTF-8 is a ValueError.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Task:
    """A folder to unpack: ``inside`` an archive, as ``root / inside``, and only what is ``wanted`` of it."""

    scene: str
    archive: Archive
    root: Path
    inside: str
    wanted: tuple[str, ...]

    @property
    def target(self) -> Path:
        return self.root / self.inside

    @property
    def path(self) -> Path:
        """Where the archive is kept."""
        return self.root / ARCHIVES_FOLDER / self.archive.file


def plan(
    scenes: Sequence[SuiteScene],
    roots: Roots,
    *,
    photographs: bool = True,
    models: bool = True,
    everything: bool = False,
) -> tuple[list[Task], list[str]]:
    """What has to be fetched so that the scenes are complete, and a remark on each part that has not.

    Args:
        scenes: the scenes asked for.
        roots: where they are looked for, and unpacked into.
        photographs, models: which parts to care about.
        everything: all of a scene's folder instead of what a run reads.
    """
    tasks, remarks = [], []
    for scene in scenes:
        place = locate(scene, roots)
        if photographs and place.folder is None:
            wanted = _EVERYTHING if everything else scene.needed_folders
            tasks.append(Task(scene.name, scene.archive, roots.data, scene.root, wanted))
        elif photographs:
            remarks.append(f"{scene.name}: the photographs are in {place.folder}")
        if models and place.model is not None:
            remarks.append(f"{scene.name}: the model is {place.model}")
        elif models and scene.has_released_model:
            wanted = _EVERYTHING if everything else _MODEL_FILES
            tasks.append(Task(scene.name, MODELS, roots.models, scene.name, wanted))
        elif models:
            remarks.append(f"{scene.name}: {MODELS.file} has no model of it; train one with 3DGS")
    return tasks, remarks


def fetch(
    tasks: Sequence[Task],
    *,
    base_url: str | None = None,
    remove_archives: bool = False,
    partial: bool = False,
    progress: Progress = silent,
) -> list[str]:
    """Download the archives of all tasks, after a look at the disk, and unpack what is wanted.

    Args:
        tasks: from ``plan``.
        base_url: fetch every archive from here, by its file name.
        remove_archives: delete an archive that was unpacked instead of keeping it for other scenes.
        partial: leave the archives where they are and read only what is wanted out of them, by Range requests. Each
            file's CRC is checked, the archive's SHA-256 is not.
        progress: called after each chunk of a download or of what is unpacked with the MB done and the total.

    Returns:
        What was done, a line each.

    Raises:
        PotrError: no room, an archive cannot be fetched, or is not what it should be.
    """
    done = []
    if partial:
        for task in tasks:
            with RemoteFile(address(task.archive, base_url)) as remote:
                kept = unpack(remote, task.inside, task.target, task.wanted, progress=progress)
                size = f"{_in_words(remote.received)} of {_in_words(remote.size)}"
            done += [f"{task.scene}: read {size} of {task.archive.file}, unpacked as {task.target}", *kept]
        return done
    archives = {task.path: task for task in tasks}
    _check_space(list(archives.values()), base_url)
    for path, first in archives.items():
        download(first.archive, path.parent, base_url=base_url, progress=progress)
        for task in (task for task in tasks if task.path == path):
            kept = unpack(path, task.inside, task.target, task.wanted, progress=progress)
            done += [f"{task.scene}: unpacked from {path.name} as {task.target}", *kept]
        if remove_archives:
            path.unlink()
            path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
        else:
            size = _in_words(path.stat().st_size)
            done.append(f"{path} ({size}) is kept for other scenes; --remove-archives deletes it")
    return done


def download(archive: Archive, folder: Path, *, base_url: str | None = None, progress: Progress = silent) -> Path:
    """An archive in ``folder``: the one that is there, else downloaded; checked against its SHA-256 either way.

    Where no SHA-256 is known, the one seen is written beside the file (FILE.sha256), and later calls compare with it.
    A download that breaks leaves nothing.

    Raises:
        PotrError: the file cannot be fetched, or has another SHA-256 than expected.
    """
    path, record, url = folder / archive.file, folder / f"{archive.file}.sha256", address(archive, base_url)
    known = archive.sha256 or _recorded(record)
    if path.exists():
        log.info("%s: is here, checking it", path)
        found = pooch.file_hash(str(path))
        if known is not None and found != known:
            raise PotrError(f"{path}: expected SHA-256 {known}, found {found}; delete it to download it again")
    else:
        pooch.get_logger().setLevel("WARNING")
        bar = _Bar(progress, f"download {archive.file} (MB)")
        downloader = pooch.HTTPDownloader(progressbar=bar, headers=_HEADERS, timeout=_TIMEOUT, chunk_size=_CHUNK)
        try:
            with _staging(path) as staging:
                pooch.retrieve(url, archive.sha256, fname=archive.file, path=staging, downloader=downloader)
                (staging / archive.file).replace(path)
        except (OSError, ValueError) as error:  # those of requests are OSErrors, another SHA-256 is a ValueError
            raise PotrError(f"{url}: {error}; nothing is kept, the same command starts over") from None
        found = archive.sha256 or pooch.file_hash(str(path))
    if archive.sha256 is None and _recorded(record) != found:
        write_atomic(record, f"{found}  {archive.file}\n".encode(), overwrite=True)
        log.warning("%s: no checksum is published; its SHA-256 %s is recorded in %s", path, found, record.name)
    return path


def unpack(
    archive: Path | RemoteFile, inside: str, target: Path, wanted: Sequence[str] = ("",), *, progress: Progress = silent
) -> list[str]:
    """Unpack the folder ``inside`` of an archive as ``target``.

    Everything goes into a hidden folder beside ``target`` first and is moved when all of it is there; what ``target``
    already has is kept. An interruption leaves ``target`` as it was.

    Args:
        archive: a .zip, here or on a server; of one there only the directory and the members wanted are read.
        inside: a folder in it, for example "tandt/truck".
        target: the folder to make or to complete.
        wanted: paths in ``inside``, files or folders ending in "/"; "" is everything.

    Returns:
        A line for every file or folder that was there already and is kept.

    Raises:
        PotrError: not a .zip, damaged, without what is wanted, with paths that lead outside, or too large for the disk.
    """
    remote = isinstance(archive, RemoteFile)
    name = archive.url if isinstance(archive, RemoteFile) else str(archive)
    source = io.BufferedReader(archive, BLOCK) if isinstance(archive, RemoteFile) else archive
    kept: list[str] = []
    try:
        with zipfile.ZipFile(source) as zipped:
            members = _members(zipped, name, inside, wanted)
            with _staging(target) as staging:
                _need_space(staging, sum(info.file_size for info in members.values()), f"unpacking {inside}")
                _extract(zipped, members, staging / "all", progress, f"unpack {target.name} (MB)")
                _move_in(staging / "all", target, kept)
        return kept
    except _DAMAGE as error:
        advice = "" if remote else "; delete it to download it again"
        raise PotrError(f"{name}: not a usable .zip ({error}){advice}") from error
    except OSError as error:
        raise PotrError(f"{target}: cannot unpack {name}: {error.strerror or error}") from error


class RemoteFile(io.RawIOBase):
    """A file on a server as a seekable stream; each read is a Range request, sent again where it fails.

    Wrap it in ``io.BufferedReader``: zipfile then reads an archive's directory and single members without the rest.

    Attributes:
        size: of the file, in bytes.
        received: bytes that came so far.

    Raises:
        PotrError: the server does not know Range or cannot be reached, or the file changes meanwhile.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url, self.size, self.received = url, 0, 0
        self._place, self._version = 0, ""
        self._session = requests.Session()
        self._session.headers.update(_HEADERS)
        self._range(0, 1)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        if place < 0:  # as files do; zipfile relies on it
            raise OSError(errno.EINVAL, f"{self.url}: a place before the first byte")
        self._place = place
        return place

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self.size - self._place))
        if size:
            buffer[:size] = self._range(self._place, size)
            self._place += size
            self.received += size
        return size

    def close(self) -> None:
        self._session.close()
        super().close()

    def _range(self, start: int, size: int) -> bytes:
        """``size`` bytes from ``start`` on."""
        waits = iter(WAITS)
        while True:
            try:
                return self._attempt(start, size)
            except requests.RequestException as error:
                wait, answer = next(waits, None), 503 if error.response is None else error.response.status_code
                if wait is None or answer not in _WORTH_RETRYING or isinstance(error, ValueError):  # no address
                    raise PotrError(f"{self.url}: {error}") from None
                log.warning("%s: %s; trying again", self.url, error)
                time.sleep(wait)

    def _attempt(self, start: int, size: int) -> bytes:
        asked = {"Range": f"bytes={start}-{start + size - 1}"}
        with self._session.get(self.url, headers=asked, timeout=_TIMEOUT, stream=True) as response:
            response.raise_for_status()
            first, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            if response.status_code != requests.codes.partial_content or not first.startswith(f"{start}-"):
                raise PotrError(f"{self.url}: can only be had whole from this server")
            version = response.headers.get("ETag") or response.headers.get("Last-Modified", "")
            if not self.size and total.isdecimal():
                self.size, self._version = int(total), version
            elif (total, version) != (str(self.size), self._version):
                raise PotrError(f"{self.url}: has changed on the server")
            content: bytes = response.content
        if len(content) != size:
            raise requests.ConnectionError(f"expected {size} bytes, got {len(content)}")
        return content


def remote_size(archive: Archive, base_url: str | None = None) -> int | None:
    """Bytes of an archive as the server tells; else as known, which may be None. Asks once, and fails silently."""
    url = address(archive, base_url)
    try:
        with requests.head(url, headers=_HEADERS, timeout=20, allow_redirects=True) as response:
            response.raise_for_status()
            size = int(response.headers["Content-Length"])
    except (requests.RequestException, ValueError, KeyError):
        return archive.size
    if archive.size is not None and size != archive.size:
        log.warning("%s: %s bytes on the server, %s were expected", url, f"{size:,}", f"{archive.size:,}")
    return size


def address(archive: Archive, base_url: str | None = None) -> str:
    """Where an archive is fetched from: its own address, or a file of that name below ``base_url``."""
    return archive.url if base_url is None else f"{base_url.rstrip('/')}/{archive.file}"


@dataclass
class _Bar:
    """The progress bar that pooch fills, in bytes, as a ``Progress`` in MB."""

    progress: Progress
    stage: str
    total: int = 0
    done: int = 0

    def update(self, size: int) -> None:
        self.done = min(self.done + size, self.total)
        self.progress.stage(self.stage)(self.done // _MEGA, self.total // _MEGA + 1)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        self.progress.stage(self.stage)(self.total // _MEGA + 1, self.total // _MEGA + 1)


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A hidden folder beside ``target`` for what is not whole yet; what a killed process left in it goes first."""
    folder = target.with_name(f".{target.name}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _members(
    zipped: zipfile.ZipFile, archive: str, inside: str, wanted: Sequence[str]
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files to unpack, by their paths below the target."""
    found = {}
    for info in zipped.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
            raise PotrError(f"{archive}: nothing is unpacked, it has a path that leads outside: '{info.filename}'")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise PotrError(f"{archive}: nothing is unpacked, it has a symbolic link: '{info.filename}'")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others inflate without bounds
            raise PotrError(f"{archive}: nothing is unpacked, expected stored or deflated files: '{info.filename}'")
        if path.parts and not info.is_dir() and path.is_relative_to(inside):
            relative = path.relative_to(inside)
            if any(_matches(str(relative), want) for want in wanted):
                found[relative] = info
    for want in wanted:
        if not any(_matches(str(path), want) for path in found):
            raise PotrError(f"{archive}: expected {inside}/{want} in it, found none")
    return found


def _matches(path: str, want: str) -> bool:
    return path == want or want == "" or (want.endswith("/") and path.startswith(want))


def _extract(
    zipped: zipfile.ZipFile,
    members: dict[PurePosixPath, zipfile.ZipInfo],
    folder: Path,
    progress: Progress,
    stage: str,
) -> None:
    total, done = sum(info.file_size for info in members.values()) // _MEGA + 1, 0
    for relative, info in members.items():
        file = folder / relative
        file.parent.mkdir(parents=True, exist_ok=True)
        with zipped.open(info) as source, open(file, "xb") as copy:  # zipfile checks each file's size and CRC
            while chunk := source.read(_CHUNK):
                copy.write(chunk)
                done += len(chunk)
                progress.stage(stage)(min(done // _MEGA, total - 1), total)
    progress.stage(stage)(total, total)


def _move_in(source: Path, target: Path, kept: list[str]) -> None:
    """Rename ``source`` to ``target``, or where both are folders, what ``target`` does not have."""
    if not target.exists():
        source.rename(target)
    elif source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir()):
            _move_in(child, target / child.name, kept)
    else:
        kept.append(f"  {target} was there already and is kept")


def _check_space(tasks: Sequence[Task], base_url: str | None) -> None:
    """Before the first byte: room for all archives that are still to come, per folder."""
    needed: dict[Path, int] = {}
    for task in tasks:
        if not task.path.exists():
            where = origin(task.archive) if base_url is None else address(task.archive, base_url)
            log.info("%s: from %s", task.archive.file, where)
            needed[task.root] = needed.get(task.root, 0) + (remote_size(task.archive, base_url) or 0)
    for root, size in needed.items():
        existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
        _need_space(existing, size, "the download")


def _need_space(folder: Path, size: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if size + _RESERVE > free:
        raise PotrError(f"{folder}: {what} needs {_in_words(size)}, {_in_words(free)} are free")


def _in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _recorded(record: Path) -> str | None:
    """The SHA-256 in a file as sha256sum writes it; None where there is none."""
    try:
        first = record.read_text().split()[:1]
    except (OSError, UnicodeDecodeError):
        return None
    return first[0] if first and len(first[0]) == 64 else None
