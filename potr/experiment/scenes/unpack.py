# SPDX-License-Identifier: Apache-2.0
"""Parts of a .zip into a folder: only what is asked, nothing outside the folder, all of it or none."""

from __future__ import annotations

import io
import logging
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from potr.errors import PotrError
from potr.experiment.scenes.download import MEGA, need_space
from potr.experiment.scenes.web import CHUNK, RemoteFile
from potr.progress import Progress, silent

log = logging.getLogger(__name__)

# What zipfile raises on damaged bytes; a name that is no UTF-8 is a ValueError.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def unpack(
    archive: Path | RemoteFile, inside: str, target: Path, wanted: Sequence[str] = ("",), *, progress: Progress = silent
) -> list[Path]:
    """Unpack the folder ``inside`` of an archive as ``target``.

    Everything goes into a hidden folder beside ``target`` first and is moved when all of it is there; what ``target``
    already has is kept. An interruption leaves ``target`` as it was.

    Args:
        archive: a .zip, here or on a server; of one there only the directory and the members wanted are read.
        inside: a folder in it, for example "tandt/truck".
        target: the folder to make or to complete.
        wanted: paths in ``inside``, files or folders ending in "/"; "" is everything.

    Returns:
        The files and folders that were there already and are kept.

    Raises:
        PotrError: not a .zip, damaged, without what is wanted, with paths that lead outside, or too large for the disk.
    """
    staging = target.with_name(f".{target.name}.unpacking")
    remote = isinstance(archive, RemoteFile)
    name = archive.url if isinstance(archive, RemoteFile) else str(archive)
    source = io.BufferedReader(archive, CHUNK) if isinstance(archive, RemoteFile) else archive
    try:
        with zipfile.ZipFile(source) as zipped:
            members = _members(zipped, name, inside, wanted)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(staging, ignore_errors=True)  # of a killed process
            need_space(target.parent, sum(info.file_size for info, _ in members), f"unpacking {inside}")
            staging.mkdir()
            _extract(zipped, members, staging, progress, f"unpack {target.name} (MB)")
        kept: list[Path] = []
        _move_in(staging, target, kept.append)
        return kept
    except _DAMAGE as error:
        advice = "" if remote else "; delete it to download it again"
        raise PotrError(f"{name}: not a usable .zip ({error}){advice}") from error
    except OSError as error:
        raise PotrError(f"{target}: cannot unpack {name}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _members(
    zipped: zipfile.ZipFile, archive: str, inside: str, wanted: Sequence[str]
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The files to unpack, each with its path below the target."""
    found = []
    for info in zipped.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
            raise PotrError(f"{archive}: nothing is unpacked, it has a path that leads outside: '{info.filename}'")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise PotrError(f"{archive}: nothing is unpacked, it has a symbolic link: '{info.filename}'")
        if not path.parts or info.is_dir() or not path.is_relative_to(inside):
            continue
        relative = path.relative_to(inside)
        if any(_matches(str(relative), want) for want in wanted):
            found.append((info, relative))
    for want in wanted:
        if not any(_matches(str(path), want) for _, path in found):
            raise PotrError(f"{archive}: expected {inside}/{want} in it, found none")
    return found


def _matches(path: str, want: str) -> bool:
    return path == want or want == "" or (want.endswith("/") and path.startswith(want))


def _extract(
    zipped: zipfile.ZipFile,
    members: list[tuple[zipfile.ZipInfo, PurePosixPath]],
    folder: Path,
    progress: Progress,
    stage: str,
) -> None:
    total = sum(info.file_size for info, _ in members) // MEGA + 1
    done = 0
    for info, relative in members:
        file = folder / relative
        file.parent.mkdir(parents=True, exist_ok=True)
        with zipped.open(info) as source, open(file, "xb") as copy:  # zipfile checks each file's CRC at its end
            while chunk := source.read(CHUNK):
                copy.write(chunk)
                done += len(chunk)
                progress(stage, min(done // MEGA, total - 1), total)
    progress(stage, total, total)


def _move_in(source: Path, target: Path, keep: Callable[[Path], None]) -> None:
    """Rename ``source`` to ``target``, or where both are folders, what ``target`` does not have."""
    if not target.exists():
        source.rename(target)
    elif source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir()):
            _move_in(child, target / child.name, keep)
    else:
        keep(target)
