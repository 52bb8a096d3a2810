# SPDX-License-Identifier: Apache-2.0
"""Which view a user means: a number or a name, in a scene folder or in a cameras.json near the model."""

from __future__ import annotations

from pathlib import Path

import torch

from potr.errors import SceneError
from potr.io.cameras_json import read_cameras_json
from potr.io.folder import load_scene
from potr.model.cameras import View

CAMERAS_FILE = "cameras.json"


def find_view(model: Path, scene: Path | None, camera: str) -> View:
    """The view that ``camera`` names: a number from 0 in the order of sorted names, or a name.

    Args:
        model: the .ply or .potr to be rendered; without ``scene`` the cameras.json beside it or two folders above
            (where 3DGS leaves it) is taken. Those views have a black background and no photograph.
        scene: a scene folder, whose background and photographs the views have.
        camera: number or name; a name may lack its suffix.

    Raises:
        SceneError: there are no cameras, or none of that number or name.
    """
    views = _from_scene(model, scene) if scene is not None else _from_cameras_json(model)
    views.sort(key=lambda view: view.name)
    if camera.isdecimal() and int(camera) < len(views):
        return views[int(camera)]
    for view in views:
        if camera in (view.name, Path(view.name).stem, view.name.rpartition(".")[0]):
            return view
    names = ", ".join(view.name for view in views[:6]) + (", ..." if len(views) > 6 else "")
    raise SceneError(f"no view '{camera}': expected a number from 0 to {len(views) - 1} or a name: {names}")


def _from_scene(model: Path, folder: Path) -> list[View]:
    scene = load_scene(folder, model=model if model.suffix.lower() == ".ply" else None)
    return [*scene.train_views, *scene.test_views]


def _from_cameras_json(model: Path) -> list[View]:
    folders = [model.absolute().parent, *model.absolute().parents[2:3]]
    path = next((folder / CAMERAS_FILE for folder in folders if (folder / CAMERAS_FILE).is_file()), None)
    if path is None:
        places = " or ".join(str(folder) for folder in folders)
        raise SceneError(f"no cameras: expected --scene DIR, or a {CAMERAS_FILE} in {places}")
    return [View(shot.name, shot.camera, _no_photograph) for shot in read_cameras_json(path)]


def _no_photograph() -> torch.Tensor:
    raise SceneError(f"{CAMERAS_FILE} has no photographs")
