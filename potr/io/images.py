# SPDX-License-Identifier: Apache-2.0
"""Photographs: where they lie, how large they are, and their pixels on a background at the size asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from potr.errors import SceneError
from potr.model.cameras import RGB, Camera, View

SUFFIXES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG", ".webp", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Photo:
    """A photograph to be read when asked: the file, the size wanted in pixels, and what shows through it."""

    path: Path
    width: int
    height: int
    background: RGB

    def __call__(self) -> Tensor:
        """The pixels, see ``read_image``."""
        return read_image(self.path, self.width, self.height, self.background)

    def sha256(self) -> str:
        """Of what the pixels are made from: the file's bytes, the size and the background."""
        try:
            digest = hashlib.sha256(self.path.read_bytes())
        except OSError as error:
            raise SceneError(f"{self.path}: cannot read: {error.strerror}") from error
        digest.update(repr((self.width, self.height, self.background)).encode())
        return digest.hexdigest()


def find_image(folders: list[Path], name: str) -> Path | None:
    """The file of a photograph whose name may lack its suffix; None if no folder has it."""
    for folder in folders:
        exact = folder / name
        if exact.is_file():
            return exact
        for suffix in SUFFIXES:
            candidate = folder / f"{name}{suffix}"
            if candidate.is_file():
                return candidate
    for folder in folders:  # images_4/ of some data sets holds .png of the .JPG in images/
        for suffix in SUFFIXES if Path(name).suffix in SUFFIXES else ():
            candidate = (folder / name).with_suffix(suffix)
            if candidate.is_file():
                return candidate
    return None


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) from the file's header, without decoding it."""
    try:
        with Image.open(path) as image:
            return image.width, image.height
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SceneError(f"{path}: not a readable image: {error}") from error


def make_view(
    name: str, camera: Camera, path: Path, background: RGB, downscale: float = 1.0, max_width: int | None = None
) -> View:
    """A view whose photograph is read when asked.

    A photograph that is a smaller or larger copy of what the camera describes (its sides in the same ratio, to a
    pixel) sets the size: the camera is scaled to it. After that ``downscale`` >= 1 shrinks both by area averaging;
    at 1, ``max_width`` does so where the photograph is wider, rounding as 3DGS does (its filter is bicubic).

    Raises:
        SceneError: the photograph cannot be opened or has another aspect ratio than the camera.
    """
    width, height = image_size(path)
    if not _same_aspect((width, height), (camera.width, camera.height)):
        raise SceneError(
            f"{path}: the photograph is {width} x {height}, its camera {camera.width} x {camera.height}: "
            "expected the same size or a scaled copy"
        )
    if downscale == 1 and max_width is not None and width > max_width:
        width, height = max_width, max(1, height * max_width // width)
    else:
        width, height = max(1, round(width / downscale)), max(1, round(height / downscale))
    return View(name, scale_camera(camera, width, height), Photo(path, width, height, background), background)


def scale_camera(camera: Camera, width: int, height: int) -> Camera:
    """The same field of view on an image of another size."""
    if (width, height) == (camera.width, camera.height):
        return camera
    x, y = width / camera.width, height / camera.height
    return Camera(width, height, camera.fx * x, camera.fy * y, camera.cx * x, camera.cy * y, camera.viewmat)


def read_image(path: Path, width: int, height: int, background: RGB) -> Tensor:
    """[height, width, 3] float32 in 0..1; transparency is composited on the background before the downscale."""
    try:
        with Image.open(path) as image:
            pixels = _to_rgba(image) if _has_alpha(image) else _to_rgb(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SceneError(f"{path}: not a readable image: {error}") from error
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:]
        pixels = pixels[:, :, :3] * alpha + np.asarray(background, np.float32) * (1 - alpha)
    if height > pixels.shape[0] or width > pixels.shape[1]:
        raise SceneError(
            f"{path}: expected at least {width} x {height} pixels, found {pixels.shape[1]} x {pixels.shape[0]}"
        )
    return torch.from_numpy(np.ascontiguousarray(area_downscale(pixels, width, height)))


def area_downscale(pixels: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """[height, width, C] float32: each pixel is the mean over the rectangle it covers in [H, W, C], exactly.

    The integral of the piecewise constant image is piecewise linear, so interpolating the cumulative sum at the
    borders of the new pixels gives the sum over each, at integer and fractional factors alike.
    """
    for axis, size in ((0, height), (1, width)):
        old = pixels.shape[axis]
        if size == old:
            continue
        integral = np.cumsum(pixels, axis=axis, dtype=np.float64)
        integral = np.concatenate([np.zeros_like(integral.take([0], axis)), integral], axis)
        borders = np.arange(size + 1) * (old / size)
        left = np.minimum(borders.astype(np.int64), old - 1)
        share = (borders - left).reshape(-1, *[1] * (pixels.ndim - 1 - axis))
        at_borders = integral.take(left, axis) * (1 - share) + integral.take(left + 1, axis) * share
        pixels = (np.diff(at_borders, axis=axis) * (size / old)).astype(np.float32)
    return pixels


def _same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether some scale takes the sides ``b`` to within a pixel of ``a`` (downscaled copies round as they like)."""
    if a == b:
        return True
    lowest = max((side - 1) / reference for side, reference in zip(a, b, strict=True))
    highest = min((side + 1) / reference for side, reference in zip(a, b, strict=True))
    return lowest <= highest


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info


def _to_rgb(image: Image.Image) -> NDArray[np.float32]:
    if image.mode.startswith("I"):  # 16-bit gray; convert("RGB") would clip it at 255
        gray: NDArray[Any] = np.asarray(image)
        return np.repeat((gray.astype(np.float32) / 65535)[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)


def _to_rgba(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image.convert("RGBA"), np.float32) / np.float32(255)
