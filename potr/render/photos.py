# SPDX-License-Identifier: Apache-2.0
"""Photographs on a GPU: each is read once, and kept there as long as there is room."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from potr.model.cameras import View


@dataclass(frozen=True, eq=False)
class _Kept:
    version: int  # of the photograph's tensor when it was copied
    pixels: Tensor


class DevicePhotos:
    """Photographs of views on a device, [H, W, 3] uint8 where that loses nothing, else float32.

    A photograph that comes from a function is taken to be the same whenever it is read.

    Args:
        device: where to.
        budget: bytes to keep; what does not fit is read again each time.
    """

    def __init__(self, device: torch.device, budget: int) -> None:
        self.device, self.budget = device, budget
        self._kept: weakref.WeakKeyDictionary[View, _Kept] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()  # stage() runs on the reader's thread

    def stage(self, view: View) -> Tensor | None:
        """The photograph in memory that a copy can start from; None where the device has it already."""
        with self._lock:
            kept = self._kept.get(view)
        if kept is not None and kept.version == _version(view):
            return None
        pixels = as_bytes(view.read().detach()).contiguous()
        return pixels.pin_memory() if self.device.type == "cuda" and pixels.device.type == "cpu" else pixels

    def place(self, view: View, staged: Tensor | None) -> Tensor:
        """What ``stage`` gave, on the device."""
        if staged is None:
            return self._kept[view].pixels
        pixels = staged.to(self.device, non_blocking=True)
        version = _version(view)
        with self._lock:
            used = sum(kept.pixels.nbytes for other, kept in self._kept.items() if other is not view)
            if version is not None and used + pixels.nbytes <= self.budget:
                self._kept[view] = _Kept(version, pixels)
        return pixels


def as_bytes(photo: Tensor) -> Tensor:
    """Levels 0..255 as uint8 if the photograph is exactly level / 255 everywhere, else the photograph itself.

    Args:
        photo: float32.
    """
    levels = (photo * 255).round_().clamp_(0, 255)
    result = levels.to(torch.uint8)
    levels.div_(torch.full((1,), 255.0, device=photo.device))  # a division: by a number torch may multiply
    return result if torch.equal(levels, photo) else photo


def _version(view: View) -> int | None:
    """Changes with the photograph; None where that cannot be known."""
    if not isinstance(view.image, Tensor):
        return 0
    return None if view.image.is_inference() else view.image._version
