# SPDX-License-Identifier: Apache-2.0
"""COLMAP sparse models, binary and text: cameras and images, of which only the poses are read."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import torch

from potr.errors import SceneError
from potr.io.json_fields import MAX_SIDE
from potr.io.posed_images import Shot
from potr.model.cameras import Camera
from potr.model.rotation import quats_to_matrices

# COLMAP's camera models by id, with their number of parameters.
_MODELS = (
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
)
_MAX_NAME = 4096  # bytes of an image name; also bounds the search for its end in a damaged file

Lens = tuple[int, int, float, float, float, float]  # width, height, fx, fy, cx, cy


def read_colmap(folder: Path) -> tuple[Shot, ...]:
    """Every image of a sparse model (cameras.bin and images.bin, or .txt), sorted by name.

    Raises:
        SceneError: a file is missing, truncated or damaged, or a camera model has distortion.
    """
    binary = (folder / "images.bin").is_file()
    lenses = _binary_lenses(folder / "cameras.bin") if binary else _text_lenses(folder / "cameras.txt")
    poses = _binary_poses(folder / "images.bin") if binary else _text_poses(folder / "images.txt")
    return tuple(sorted((_shot(lenses, *pose) for pose in poses), key=lambda shot: shot.name))


def _shot(lenses: dict[int, Lens], where: str, pose: tuple[float, ...], camera_id: int, name: str) -> Shot:
    """``pose`` is the quaternion wxyz and the translation, world to camera."""
    if camera_id not in lenses:
        raise SceneError(f"{where} ('{name}'): expected a camera id of {sorted(lenses)[:8]}, found {camera_id}")
    quat = torch.tensor(pose[:4], dtype=torch.float64)
    if not all(map(math.isfinite, pose)) or float(quat.norm()) < 1e-6:
        raise SceneError(f"{where} ('{name}'): expected a finite pose with a quaternion, found {pose}")
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3] = quats_to_matrices(quat)
    viewmat[:3, 3] = torch.tensor(pose[4:], dtype=torch.float64)
    try:
        return Shot(name, Camera(*lenses[camera_id], viewmat))
    except SceneError as error:
        raise SceneError(f"{where} ('{name}'): {error}") from None


def _lens(where: str, model: str, width: int, height: int, parameters: tuple[float, ...]) -> Lens:
    if model not in ("PINHOLE", "SIMPLE_PINHOLE"):
        raise SceneError(
            f"{where}: camera model {model} has lens distortion, expected PINHOLE or SIMPLE_PINHOLE; undistort with "
            "`colmap image_undistorter --image_path IMAGES --input_path SPARSE --output_path OUT` and use OUT"
        )
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise SceneError(f"{where}: expected an image size in 1..{MAX_SIDE}, found {width} x {height}")
    if len(parameters) != dict(_MODELS)[model] or not all(map(math.isfinite, parameters)):
        raise SceneError(f"{where}: expected {dict(_MODELS)[model]} finite parameters, found {parameters}")
    focal_x, focal_y, cx, cy = parameters if model == "PINHOLE" else (parameters[0], *parameters)
    return width, height, focal_x, focal_y, cx, cy


class _Reader:
    """Little-endian values from a file in memory; running past its end is a SceneError with the place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise SceneError(f"{path}: cannot read: {error.strerror or error}") from error

    def take(self, layout: str) -> tuple[int | float, ...]:
        size = struct.calcsize("<" + layout)
        self._expect(size)
        values = struct.unpack_from("<" + layout, self.data, self.offset)
        self.offset += size
        return values

    def skip(self, size: int) -> None:
        self._expect(size)
        self.offset += size

    def name(self) -> str:
        end = self.data.find(b"\0", self.offset, self.offset + _MAX_NAME)
        if end <= self.offset:
            raise SceneError(f"{self.path}: expected an image name ending in a zero byte at offset {self.offset}")
        raw, self.offset = self.data[self.offset : end], end + 1
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise SceneError(f"{self.path}: image name {raw[:40]!r} is not UTF-8") from None

    def count(self, item_size: int) -> int:
        """A 64-bit count of items of at least this size, which must fit into the rest of the file."""
        (count,) = self.take("Q")
        if count * item_size > len(self.data) - self.offset:
            raise SceneError(
                f"{self.path}: claims {count} items of at least {item_size} bytes at offset {self.offset}, "
                f"found {len(self.data) - self.offset} bytes"
            )
        return int(count)

    def _expect(self, size: int) -> None:
        if size > len(self.data) - self.offset:
            raise SceneError(
                f"{self.path}: truncated: expected {size} bytes at offset {self.offset}, "
                f"found {len(self.data) - self.offset}"
            )


def _binary_lenses(path: Path) -> dict[int, Lens]:
    reader = _Reader(path)
    lenses: dict[int, Lens] = {}
    for index in range(reader.count(24)):
        camera_id, model_id, width, height = map(int, reader.take("iiQQ"))
        where = f"{path}, camera {index}"
        if not 0 <= model_id < len(_MODELS):
            raise SceneError(f"{where}: expected a camera model id in 0..{len(_MODELS) - 1}, found {model_id}")
        model, parameters = _MODELS[model_id]
        lenses[camera_id] = _lens(where, model, width, height, reader.take(f"{parameters}d"))
    return lenses


def _binary_poses(path: Path) -> Iterator[tuple[str, tuple[float, ...], int, str]]:
    reader = _Reader(path)
    for index in range(reader.count(73)):
        reader.take("I")  # image id
        pose = reader.take("7d")
        (camera_id,) = reader.take("i")
        name = reader.name()
        reader.skip(24 * reader.count(24))  # 2D points
        yield f"{path}, image {index}", pose, int(camera_id), name


def _text_lines(path: Path) -> list[str]:
    """The lines without comments; empty ones stay, since an image without points has one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SceneError(f"{path}: cannot read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise SceneError(f"{path}: not a UTF-8 text file") from None
    return [line.strip() for line in lines if not line.lstrip().startswith("#")]


def _text_lenses(path: Path) -> dict[int, Lens]:
    lenses: dict[int, Lens] = {}
    for index, line in enumerate(filter(None, _text_lines(path))):
        where = f"{path}, camera {index}"
        try:
            camera_id, model, width, height, *parameters = line.split()
            size = int(width), int(height)
            lenses[int(camera_id)] = _lens(where, model, *size, tuple(map(float, parameters)))
        except ValueError:
            raise SceneError(f"{where}: expected ID MODEL WIDTH HEIGHT PARAMETERS, found '{line[:80]}'") from None
    return lenses


def _text_poses(path: Path) -> Iterator[tuple[str, tuple[float, ...], int, str]]:
    lines = iter(_text_lines(path))
    for index, line in enumerate(filter(None, lines)):
        where = f"{path}, image {index}"
        try:
            _, *pose, camera_id, name = line.split(maxsplit=9)
            yield where, tuple(map(float, pose)), int(camera_id), name
        except ValueError:
            raise SceneError(f"{where}: expected ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, found '{line[:80]}'") from None
        next(lines, None)  # the image's 2D points
