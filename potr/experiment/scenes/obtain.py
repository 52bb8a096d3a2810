# SPDX-License-Identifier: Apache-2.0
"""What to download for the scenes that are missing, and doing it: archives first, then the parts that are needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from potr.experiment.scenes.download import address, fetch, in_words, need_space, remote_size
from potr.experiment.scenes.places import MODEL_FILE, Roots, locate, origin
from potr.experiment.scenes.suites import MODELS, Archive, SuiteScene
from potr.experiment.scenes.unpack import unpack
from potr.experiment.scenes.web import RemoteFile
from potr.progress import Progress, silent

log = logging.getLogger(__name__)

ARCHIVES_FOLDER = "archives"  # below the folder an archive unpacks into
_MODEL_FILES = (MODEL_FILE, "cameras.json", "cfg_args")  # not the model of 7,000 iterations, not the initial points
_EVERYTHING = ("",)


@dataclass(frozen=True)
class Task:
    """A folder of an archive to unpack: ``inside`` it, as ``root / below``, and only what is ``wanted`` of it."""

    scene: str
    archive: Archive
    root: Path
    inside: str
    below: str
    wanted: tuple[str, ...]

    @property
    def target(self) -> Path:
        return self.root / self.below

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
            tasks.append(Task(scene.name, scene.archive, roots.data, scene.root, scene.root, wanted))
        elif photographs:
            remarks.append(f"{scene.name}: the photographs are in {place.folder}")
        if models and place.model is not None:
            remarks.append(f"{scene.name}: the model is {place.model}")
        elif models and scene.has_released_model:
            wanted = _EVERYTHING if everything else _MODEL_FILES
            tasks.append(Task(scene.name, MODELS, roots.models, scene.name, scene.name, wanted))
        elif models:
            remarks.append(f"{scene.name}: {MODELS.file} has no model of it; train one with 3DGS")
    return tasks, remarks


def obtain(
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
        partial: leave the archives where they are and read only what is wanted out of them, by Range requests. Each
            file's CRC is checked, the archive's SHA-256 is not; a killed process starts a scene's part again.
        remove_archives: delete an archive that was unpacked instead of keeping it for other scenes.
        progress: told of downloads and unpacking, in MB.

    Returns:
        What was done, a line each.

    Raises:
        PotrError: no room, an archive cannot be fetched, or is not what it should be.
    """
    done = []
    by_path: dict[Path, list[Task]] = {}
    for task in tasks:
        by_path.setdefault(task.path, []).append(task)
    if partial:
        return [line for task in tasks for line in _read_out(task, base_url, progress)]
    _check_space([group[0] for group in by_path.values()], base_url)
    for path, group in by_path.items():
        fetch(group[0].archive, path.parent, base_url=base_url, progress=progress)
        for task in group:
            kept = unpack(path, task.inside, task.target, task.wanted, progress=progress)
            done.append(f"{task.scene}: unpacked from {path.name} as {task.target}")
            done += [f"  {file} was there already and is kept" for file in kept]
        if remove_archives:
            path.unlink()
            path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
        else:
            size = in_words(path.stat().st_size)
            done.append(f"{path} ({size}) is kept for other scenes; --remove-archives deletes it")
    return done


def _read_out(task: Task, base_url: str | None, progress: Progress) -> list[str]:
    with RemoteFile(address(task.archive, base_url)) as remote:
        kept = unpack(remote, task.inside, task.target, task.wanted, progress=progress)
        size = f"{in_words(remote.received)} of {in_words(remote.size)}"
    done = f"{task.scene}: read {size} of {task.archive.file}, unpacked as {task.target}"
    return [done, *(f"  {file} was there already and is kept" for file in kept)]


def _check_space(tasks: Sequence[Task], base_url: str | None) -> None:
    """Before the first byte: room for all archives that are still to come, per folder."""
    needed: dict[Path, int] = {}
    for task in tasks:
        if task.path.exists():
            continue
        where = origin(task.archive) if base_url is None else address(task.archive, base_url)
        log.info("%s: from %s", task.archive.file, where)
        part = task.path.with_name(f"{task.path.name}.part")
        size = (remote_size(task.archive, base_url) or 0) - (part.stat().st_size if part.exists() else 0)
        needed[task.root] = needed.get(task.root, 0) + max(0, size)
    for root, size in needed.items():
        existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
        need_space(existing, size, "the download")
