# SPDX-License-Identifier: Apache-2.0
"""Whether a scene of the paper on this machine is what the paper used: counts, sizes, splits, splats, damage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from potr.errors import PotrError
from potr.experiment.scenes.places import Place
from potr.experiment.scenes.suites import SuiteScene
from potr.io.cameras_json import read_cameras_json
from potr.io.folder import model_roots, photo_folders, read_cameras
from potr.io.images import find_image, image_size, read_image
from potr.io.ply import count_splats, load_ply
from potr.io.posed_images import Shot, divide
from potr.model.cameras import BLACK, WHITE, Camera
from potr.progress import Progress, silent

POSE_TOLERANCE = 1e-3  # of rotation entries, and of translations relative to their length
CENTER_TOLERANCE = 0.5  # pixels of the photograph


@dataclass(frozen=True)
class Check:
    """One thing looked at; ``expected`` is None where nothing is known to hold it against."""

    what: str
    found: str
    expected: str | None
    ok: bool


def verify(scene: SuiteScene, place: Place, *, quick: bool = False, progress: Progress = silent) -> tuple[Check, ...]:
    """Compare what lies at ``place`` with what is known about the scene.

    Args:
        scene: what is expected.
        place: where its parts lie; a part that is None is not looked at.
        quick: read headers only; else every photograph is decoded and every value of the model checked.
        progress: called after each photograph with the number read and the total.
    """
    checks: list[Check] = []
    if place.folder is not None:
        checks += _photographs(scene, place.folder, quick, progress)
    if place.model is not None:
        wanted = None if scene.splats is None else f"{scene.splats:,}"
        checks.append(_check("splats", wanted, partial(_splats, place.model, quick)))
    if place.folder is not None and place.model is not None and scene.images is not None:
        checks += _cameras(place.folder, place.model)
    return tuple(checks)


def _photographs(scene: SuiteScene, folder: Path, quick: bool, progress: Progress) -> Iterator[Check]:
    try:
        shots, _ = read_cameras([folder])
        folders = photo_folders(folder, scene.images)
        train, test = divide(shots)
    except PotrError as error:
        yield Check("cameras", str(error), "readable cameras and a folder of photographs", False)
        return
    files = [file for shot in shots if (file := find_image(folders, shot.name)) is not None]
    yield _compared("photographs", f"{len(files)}", f"{scene.photographs}")
    if len(files) < len(shots):
        yield Check("cameras without photograph", f"{len(shots) - len(files)}", "0", False)
    views = f"{scene.photographs - scene.test_views}, {scene.test_views}"
    yield _compared("training, test views", f"{len(train)}, {len(test)}", views)
    sizes, damaged = _read_all(files, quick, WHITE if scene.images is None else BLACK, progress)
    found = ", ".join(f"{size}{f' ({count} of them)' if len(sizes) > 1 else ''}" for size, count in sizes.items())
    yield _compared("size", found, f"{scene.width} x {scene.height}")
    unread = f"{len(damaged)}: {'; '.join(damaged[:3])}" if damaged else "none"
    yield Check("damaged photographs" + (" (headers only)" if quick else ""), unread, "none", not damaged)


def _read_all(
    files: Sequence[Path], quick: bool, background: tuple[float, float, float], progress: Progress
) -> tuple[Counter[str], list[str]]:
    """How often each size occurs, and what cannot be read."""
    sizes: Counter[str] = Counter()
    damaged = []
    for index, file in enumerate(files):
        try:
            width, height = image_size(file)
            sizes[f"{width} x {height}"] += 1
            if not quick:
                read_image(file, width, height, background)
        except PotrError as error:
            damaged.append(str(error))
        progress.stage(f"read {file.parent}")(index + 1, len(files))
    return sizes, damaged


def _splats(ply: Path, quick: bool) -> str:
    return f"{count_splats(ply) if quick else load_ply(ply).num_splats:,}"


def _cameras(folder: Path, ply: Path) -> Iterator[Check]:
    """COLMAP's cameras against those the model was trained with, where its cameras.json is there."""
    try:
        shots, _ = read_cameras([folder])
        files = [root / "cameras.json" for root in model_roots(ply) if (root / "cameras.json").is_file()]
        trained = {Path(shot.name).stem: shot.camera for shot in (read_cameras_json(files[0]) if files else ())}
    except PotrError as error:
        yield Check("cameras of the model", str(error), "readable", False)
        return
    off = [shot.name for shot in shots if not _centered(shot.camera)]
    yield Check("principal point", f"off the centre in {len(off)}" if off else "centre", "centre", not off)
    if not files:
        return
    differ = [shot.name for shot in shots if not _same(shot, trained)]
    agree = f"{len(shots) - len(differ)} of {len(shots)} agree" + (f", not {differ[0]}" if differ else "")
    yield Check("cameras.json", agree, f"{len(shots)} of {len(shots)} agree", not differ)


def _same(shot: Shot, trained: dict[str, Camera]) -> bool:
    camera, other = shot.camera, trained.get(Path(shot.name).stem)
    if other is None:
        return False
    a, b = camera.viewmat, other.viewmat
    scale = 1 + float(a[:3, 3].norm())
    fields = ((camera.fx / camera.width, other.fx / other.width), (camera.fy / camera.height, other.fy / other.height))
    return (
        float((a[:3, :3] - b[:3, :3]).abs().max()) < POSE_TOLERANCE
        and float((a[:3, 3] - b[:3, 3]).abs().max()) < POSE_TOLERANCE * scale
        and all(abs(one - two) < POSE_TOLERANCE * one for one, two in fields)
    )


def _centered(camera: Camera) -> bool:
    """3DGS takes the image's centre for the principal point whatever COLMAP says."""
    off = abs(camera.cx - camera.width / 2), abs(camera.cy - camera.height / 2)
    return max(off) <= CENTER_TOLERANCE


def _compared(what: str, found: str, expected: str | None) -> Check:
    return Check(what, found, expected, expected is None or found == expected)


def _check(what: str, expected: str | None, look: Callable[[], str]) -> Check:
    try:
        return _compared(what, look(), expected)
    except PotrError as error:
        return Check(what, str(error), expected, False)
