# SPDX-License-Identifier: Apache-2.0
"""A scene from a folder: find the model, the cameras and the photographs in any of the field's layouts."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from potr.errors import ConfigError, SceneError
from potr.io.blender import PAIR, SINGLE, read_transforms, read_transforms_pair
from potr.io.cameras_json import read_cameras_json
from potr.io.colmap import read_colmap
from potr.io.images import find_image, make_view
from potr.io.ply import load_ply
from potr.io.posed_images import Shot, Split, divide
from potr.model.cameras import BLACK, RGB, WHITE, View
from potr.model.constants import MARGIN, NEAR
from potr.model.scene import Scene
from potr.model.splats import SplatModel

log = logging.getLogger(__name__)


def load_scene(
    path: Path | str,
    *,
    model: Path | str | None = None,
    background: RGB | None = None,
    downscale: float = 1.0,
    max_width: int | None = None,
    images: str | None = None,
    split: Split = Split.AUTO,
    clean: bool = False,
) -> Scene:
    """Read a scene folder; photographs are read later, when a view is asked for its image.

    docs/datasets.md lists the layouts and which one wins where several are present; the log says what was chosen.

    Args:
        path: the folder with cameras and photographs, usually with the model too.
        model: a .ply, or a folder to look for it in, where it is not in ``path``.
        background: default white for nerf_synthetic (transforms_train.json), black otherwise.
        downscale: shrink the photographs so many times, by area; >= 1.
        max_width: without a downscale, shrink wider photographs to so many pixels, as 3DGS does with 1600.
        images: the folder of the photographs, relative to ``path`` or absolute, e.g. "images_4".
        split: how views are divided into training and test views.
        clean: remove unusable splats instead of refusing the model.

    Raises:
        ModelError: the model cannot be used.
        SceneError: no model, cameras or photographs found, one of them is damaged, or no camera sees a splat.
        ConfigError: ``downscale`` below 1.
    """
    root = Path(path)
    if not root.is_dir():
        raise SceneError(f"{root}: expected a scene folder, found {'a file' if root.exists() else 'nothing'}")
    if not 1 <= downscale < float("inf"):
        raise ConfigError(f"downscale: expected a factor of at least 1, got {downscale}")
    ply = find_model(Path(model) if model is not None else root)
    shots, source = read_cameras(_camera_roots(root, ply))
    train, test = divide(shots, split)
    if background is None:
        background = WHITE if (root / PAIR[0][0]).is_file() else BLACK
    folders = photo_folders(root, images)
    views = dict(zip(shots, _views(shots, folders, background, downscale, max_width), strict=True))
    splats = load_ply(ply, clean=clean)
    _check_belongs(splats, shots, ply, source)
    log.info("%s: model %s, cameras %s, photographs %s", root, ply, source, folders[0])
    log.info("%s: %d training and %d test views, background %s", root, len(train), len(test), background)
    return Scene(
        root.resolve().name,
        splats,
        tuple(views[shot] for shot in train),
        tuple(views[shot] for shot in test),
        background,
        ply.stat().st_size,
    )


def find_model(path: Path) -> Path:
    """The .ply itself, or in a folder: the newest point_cloud/iteration_*, point_cloud.ply, or the only *.ply."""
    if path.is_file():
        return path
    if not path.exists():
        raise SceneError(f"{path}: expected a model's .ply or the folder it lies in, found nothing")
    iterations = [
        (int(match[1]), folder / "point_cloud.ply")
        for folder in path.glob("point_cloud/iteration_*")
        if (match := re.fullmatch(r"iteration_(\d+)", folder.name)) and (folder / "point_cloud.ply").is_file()
    ]
    if iterations:
        return max(iterations)[1]
    if (path / "point_cloud.ply").is_file():
        return path / "point_cloud.ply"
    plys = sorted(path.glob("*.ply"))
    if len(plys) == 1:
        return plys[0]
    found = f"{len(plys)} others: {', '.join(ply.name for ply in plys[:4])}" if plys else "no .ply"
    raise SceneError(
        f"{path}: expected a model as point_cloud/iteration_*/point_cloud.ply, point_cloud.ply or a single *.ply; "
        f"found {found}"
    )


def model_roots(ply: Path) -> list[Path]:
    """Where a trained model's cameras.json lies: beside the .ply or two folders above (3DGS's output)."""
    return [ply.parent, ply.parent.parent.parent]


def read_cameras(roots: Sequence[Path]) -> tuple[tuple[Shot, ...], Path]:
    """The first camera source found, and its path. Blender's pair goes first: it knows its own test split."""
    sign, place, read = _camera_source(roots)
    shots = read(place)
    if not shots:
        raise SceneError(f"{sign}: expected at least one camera, found none")
    return shots, sign


def check_present(path: Path | str, model: Path | str | None = None) -> None:
    """Whether ``load_scene`` would find a folder, a model and cameras; nothing is read.

    Raises:
        SceneError: one of them is not there.
    """
    root = Path(path)
    if not root.is_dir():
        raise SceneError(f"{root}: expected a scene folder, found {'a file' if root.exists() else 'nothing'}")
    ply = find_model(Path(model) if model is not None else root)
    _camera_source(_camera_roots(root, ply))


def _camera_roots(root: Path, ply: Path) -> list[Path]:
    return [root] if ply.is_relative_to(root) else [root, *model_roots(ply)]


def _camera_source(roots: Sequence[Path]) -> tuple[Path, Path, Callable[[Path], tuple[Shot, ...]]]:
    """The file by which the first camera source is known, what its reader is given, and the reader."""
    sources: tuple[tuple[str, str, Callable[[Path], tuple[Shot, ...]]], ...] = (
        (PAIR[0][0], ".", read_transforms_pair),
        ("cameras.json", "cameras.json", read_cameras_json),
        ("sparse/0/images.bin", "sparse/0", read_colmap),
        ("sparse/0/images.txt", "sparse/0", read_colmap),
        ("sparse/images.bin", "sparse", read_colmap),
        ("sparse/images.txt", "sparse", read_colmap),
        (SINGLE, SINGLE, read_transforms),
    )
    for root in roots:
        for sign, place, read in sources:
            if (root / sign).is_file():
                return root / sign, root / place, read
    raise SceneError(
        f"{', '.join(map(str, roots))}: no cameras found; expected one of {', '.join(sign for sign, _, _ in sources)}"
    )


def photo_folders(root: Path, images: str | None) -> list[Path]:
    """Where photographs are looked for: the folder asked for, or images/, else the largest images_N/; then the root."""
    if images is not None:
        if not (root / images).is_dir():
            raise SceneError(f"{root / images}: expected a folder of photographs, found none")
        return [root / images]
    if (root / "images").is_dir():
        return [root / "images", root]
    scaled = [
        (int(match[1]), folder)
        for folder in root.glob("images_*")
        if (match := re.match(r"images_(\d+)$", folder.name))
    ]
    return [*([min(scaled)[1]] if scaled else []), root]


def _views(
    shots: Sequence[Shot], folders: list[Path], background: RGB, downscale: float, max_width: int | None
) -> list[View]:
    files = [find_image(folders, shot.name) for shot in shots]
    missing = [shot.name for shot, file in zip(shots, files, strict=True) if file is None]
    if missing:
        more = ", ..." if len(missing) > 3 else ""
        raise SceneError(
            f"{len(missing)} of {len(shots)} photographs are missing ({', '.join(missing[:3])}{more}); "
            f"looked in {' and '.join(map(str, folders))}"
        )
    return [
        make_view(shot.name, shot.camera, file, background, downscale, max_width)
        for shot, file in zip(shots, files, strict=True)
        if file is not None
    ]


def _check_belongs(model: SplatModel, shots: Sequence[Shot], ply: Path, source: Path) -> None:
    """Refuse a model none of whose splats lies in front of any camera."""
    if not any(bool(_in_frustum(model.means, shot).any()) for shot in shots):
        raise SceneError(
            f"model and cameras do not belong together: none of the {model.num_splats} splats of {ply} is seen by any "
            f"of the {len(shots)} cameras of {source}"
        )


def _in_frustum(means: Tensor, shot: Shot) -> Tensor:
    """[N] bool: the splat's centre projects into the image or close to it."""
    camera = shot.camera
    x, y, z = (means @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]).unbind(1)
    u, v = camera.fx * x + camera.cx * z, camera.fy * y + camera.cy * z  # pixels times z
    left, right = -MARGIN * camera.width * z, (1 + MARGIN) * camera.width * z
    top, bottom = -MARGIN * camera.height * z, (1 + MARGIN) * camera.height * z
    return (z > NEAR) & (u >= left) & (u <= right) & (v >= top) & (v <= bottom)
