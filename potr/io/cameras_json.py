# SPDX-License-Identifier: Apache-2.0
"""cameras.json as 3DGS writes it beside a trained model, with an optional 'split' key per camera."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potr.errors import SceneError
from potr.files import write_atomic
from potr.io.json_fields import array, number, read_json, side, text
from potr.io.posed_images import TEST, TRAIN, Shot
from potr.model.cameras import Camera


def read_cameras_json(path: Path) -> tuple[Shot, ...]:
    """Every camera of the file, in its order.

    Per camera: ``img_name`` (with or without suffix), ``width``, ``height``, ``fx``, ``fy`` in pixels, ``position``
    (the camera's centre), ``rotation`` (3 rows, camera to world, x right, y down, z forward), and optionally ``cx``,
    ``cy`` (default: the image's centre, which is what 3DGS renders with) and ``split`` ("train" or "test").

    Raises:
        SceneError: the file is missing or damaged; names the camera and the key.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SceneError(f"{path}: expected a list of cameras, found {type(entries).__name__}")
    return tuple(_shot(entry, f"{path}, camera {index}") for index, entry in enumerate(entries))


def write_cameras_json(path: Path, shots: Sequence[Shot], *, overwrite: bool = False) -> None:
    """Write what read_cameras_json reads; the principal point only where it is off the image's centre."""
    content = json.dumps([_entry(index, shot) for index, shot in enumerate(shots)], indent=1)
    write_atomic(path, content.encode(), overwrite=overwrite)


def _shot(entry: dict[str, Any], where: str) -> Shot:
    name = text(entry, "img_name", where)
    width, height = side(entry, "width", where), side(entry, "height", where)
    rotation = array(entry, "rotation", (3, 3), where)
    position = array(entry, "position", (3,), where)
    viewmat = np.eye(4)
    viewmat[:3, :3] = rotation.T
    viewmat[:3, 3] = -rotation.T @ position
    try:
        camera = Camera(
            width,
            height,
            number(entry, "fx", where),
            number(entry, "fy", where),
            number(entry, "cx", where) if "cx" in entry else width / 2,
            number(entry, "cy", where) if "cy" in entry else height / 2,
            torch.from_numpy(viewmat.astype(np.float32)),
        )
    except SceneError as error:
        raise SceneError(f"{where}: {error}") from None
    split = entry.get("split")
    if split not in (None, TRAIN, TEST):
        raise SceneError(f"{where}: expected 'split' to be '{TRAIN}' or '{TEST}', found {split!r}")
    return Shot(name, camera, split)


def _entry(index: int, shot: Shot) -> dict[str, Any]:
    camera = shot.camera
    to_world = torch.linalg.inv(camera.viewmat.double())
    entry: dict[str, Any] = {
        "id": index,
        "img_name": shot.name,
        "width": camera.width,
        "height": camera.height,
        "position": to_world[:3, 3].tolist(),
        "rotation": to_world[:3, :3].tolist(),
        "fy": camera.fy,
        "fx": camera.fx,
    }
    if (camera.cx, camera.cy) != (camera.width / 2, camera.height / 2):
        entry |= {"cx": camera.cx, "cy": camera.cy}
    return entry | ({"split": shot.split} if shot.split else {})
