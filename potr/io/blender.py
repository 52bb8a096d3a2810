# SPDX-License-Identifier: Apache-2.0
"""transforms*.json: nerf_synthetic's train/test pair, or a single file as instant-ngp and nerfstudio write it."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from potr.errors import SceneError
from potr.io.images import find_image, image_size
from potr.io.json_fields import array, number, read_json, side, text
from potr.io.posed_images import TEST, TRAIN, Shot
from potr.model.cameras import Camera

PAIR = (("transforms_train.json", TRAIN), ("transforms_test.json", TEST))
SINGLE = "transforms.json"
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_PINHOLE_MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL")  # without distortion, all one


def read_transforms_pair(folder: Path) -> tuple[Shot, ...]:
    """The frames of transforms_train.json, then those of transforms_test.json if it is there; each has its split."""
    return tuple(
        shot for file, split in PAIR if (folder / file).is_file() for shot in read_transforms(folder / file, split)
    )


def read_transforms(path: Path, split: str | None = None) -> tuple[Shot, ...]:
    """The frames of one file, in its order.

    Per frame: ``file_path`` relative to the file, with or without suffix, and ``transform_matrix`` (camera to world,
    OpenGL axes: x right, y up, z backward). Intrinsics, per frame or for all: ``camera_angle_x`` in radians or
    ``fl_x`` (``fl_y``, ``cx``, ``cy``) in pixels, ``w`` and ``h``; without a size the first photograph's is taken.

    Raises:
        SceneError: the file is missing or damaged, the lens is distorted, or no size is given and no photograph found.
    """
    document = read_json(path)
    frames = document.get("frames") if isinstance(document, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise SceneError(f"{path}: expected an object with a list 'frames'")
    shared = {key: value for key, value in document.items() if key != "frames"}
    names = [_name(frame, f"{path}, frame {index}") for index, frame in enumerate(frames)]
    if frames and not {"w", "h"} <= (shared.keys() | frames[0].keys()):
        shared["w"], shared["h"] = _size_of_first(path, names)
    return tuple(
        Shot(name, _camera(shared | frame, f"{path}, frame {index}"), split)
        for index, (name, frame) in enumerate(zip(names, frames, strict=True))
    )


def _name(frame: dict[str, Any], where: str) -> str:
    return PurePosixPath(text(frame, "file_path", where).replace("\\", "/")).as_posix()  # drops a leading ./


def _size_of_first(path: Path, names: list[str]) -> tuple[int, int]:
    for name in names:
        photograph = find_image([path.parent], name)
        if photograph:
            return image_size(photograph)
    raise SceneError(
        f"{path}: all {len(names)} photographs are missing ({', '.join(names[:3])}, ...); looked in {path.parent}"
    )


def _camera(entry: dict[str, Any], where: str) -> Camera:
    _refuse_distortion(entry, where)
    width, height = side(entry, "w", where), side(entry, "h", where)
    if "fl_x" in entry:
        fx = number(entry, "fl_x", where)
    else:
        angle = number(entry, "camera_angle_x", where)
        if not 0 < angle < math.pi:
            raise SceneError(f"{where}: expected camera_angle_x in 0..pi radians, found {angle:g}")
        fx = 0.5 * width / math.tan(0.5 * angle)
    matrix = array(entry, "transform_matrix", (4, 4), where)
    matrix[:3, 1:3] *= -1  # OpenGL's y up, z backward to y down, z forward
    try:
        return Camera(
            width,
            height,
            fx,
            number(entry, "fl_y", where) if "fl_y" in entry else fx,
            number(entry, "cx", where) if "cx" in entry else width / 2,
            number(entry, "cy", where) if "cy" in entry else height / 2,
            torch.from_numpy(np.linalg.inv(matrix).astype(np.float32)),
        )
    except (SceneError, np.linalg.LinAlgError) as error:
        raise SceneError(f"{where}: transform_matrix and intrinsics: {error}") from None


def _refuse_distortion(entry: dict[str, Any], where: str) -> None:
    bent = {key: entry[key] for key in _DISTORTION if entry.get(key)}
    model = entry.get("camera_model", "PINHOLE")
    if bent or model not in _PINHOLE_MODELS:
        raise SceneError(
            f"{where}: camera model {model} with distortion {bent}: expected undistorted photographs; "
            "make them with `colmap image_undistorter` or `ns-process-data`"
        )
