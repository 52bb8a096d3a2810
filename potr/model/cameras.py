# SPDX-License-Identifier: Apache-2.0
"""Pinhole cameras and the photographs taken with them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from potr.errors import SceneError

RGB = tuple[float, float, float]
BLACK: RGB = (0.0, 0.0, 0.0)
WHITE: RGB = (1.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera; x right, y down, z forward.

    Attributes:
        width, height: image size in pixels.
        fx, fy: focal lengths in pixels.
        cx, cy: principal point in pixels; the centre of the first pixel is at (0.5, 0.5).
        viewmat: [4, 4] float32 on the CPU, world to camera, rigid.

    Raises:
        SceneError: sizes or focal lengths are not positive, or viewmat is not a rigid transform.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    viewmat: Tensor

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise SceneError(f"camera: expected a positive image size, got {self.width} x {self.height}")
        if not (0 < self.fx < float("inf") and 0 < self.fy < float("inf")):
            raise SceneError(f"camera: expected positive focal lengths, got fx={self.fx}, fy={self.fy}")
        viewmat = torch.as_tensor(self.viewmat, dtype=torch.float32).cpu().contiguous()
        if tuple(viewmat.shape) != (4, 4) or not bool(torch.isfinite(viewmat).all()):
            raise SceneError(f"camera: expected a finite [4, 4] viewmat, got {viewmat.tolist()}")
        rotation = viewmat[:3, :3]
        deviation = float((rotation @ rotation.T - torch.eye(3)).abs().max())
        if deviation > 1e-2 or float(torch.det(rotation)) < 0:
            raise SceneError(f"camera: viewmat is not a rigid world-to-camera transform (off by {deviation:.3g})")
        object.__setattr__(self, "viewmat", viewmat)

    def __repr__(self) -> str:
        at = ", ".join(f"{x:.4g}" for x in self.center.tolist())
        return f"Camera({self.width} x {self.height}, fx={self.fx:.6g}, fy={self.fy:.6g}, at ({at}))"

    @property
    def center(self) -> Tensor:
        """[3] the camera's position in world units."""
        return -self.viewmat[:3, :3].T @ self.viewmat[:3, 3]


@dataclass(frozen=True, eq=False)
class View:
    """A camera with its photograph.

    Attributes:
        name: of the photograph, unique within the scene.
        camera: of exactly the photograph's size.
        image: [H, W, 3] float32 in 0..1, already on the background, or a function that reads it when asked.
        background: the colour behind everything when this camera's view is rendered.
    """

    name: str
    camera: Camera
    image: Tensor | Callable[[], Tensor]
    background: RGB = BLACK

    def __repr__(self) -> str:
        background = ", ".join(f"{channel:g}" for channel in self.background)
        return f"View({self.name!r}, {self.camera.width} x {self.camera.height}, background ({background}))"

    def read(self) -> Tensor:
        """The photograph, [H, W, 3] float32 in 0..1; SceneError if it does not have the camera's size."""
        image = self.image if isinstance(self.image, Tensor) else self.image()
        expected = (self.camera.height, self.camera.width, 3)
        if tuple(image.shape) != expected or image.dtype != torch.float32:
            raise SceneError(
                f"view '{self.name}': expected a float32 image {expected}, got {image.dtype} {tuple(image.shape)}"
            )
        return image

    def photo_sha256(self) -> str:
        """Of what ``read`` gives, without decoding a photograph that lies in a file; SceneError if it is not there."""
        sha256 = getattr(self.image, "sha256", None)
        if sha256 is not None:
            return str(sha256())
        return hashlib.sha256(self.read().cpu().contiguous().numpy().data).hexdigest()
