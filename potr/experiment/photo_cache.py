# SPDX-License-Identifier: Apache-2.0
"""The decoded photographs of a scene, kept under ``<outputs>/.cache/photos`` by the hash of file and reader.

A changed photograph has another name, so nothing goes stale; the folder may be deleted at any time. What else the runs
of a scene have in common lies beside it, in ``<outputs>/.cache/encode`` (encoder.resume).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potr.encoder.resume import code_sha256
from potr.errors import PotrError
from potr.files import has_room, write_atomic
from potr.model.cameras import View
from potr.model.scene import Scene

log = logging.getLogger(__name__)

CACHE = ".cache"


def with_cached_photos(scene: Scene, cache: Path) -> Scene:
    """The scene with photographs that are decoded once and from then on read from the cache."""
    folder = cache / "photos"

    def cached(views: Sequence[View]) -> tuple[View, ...]:
        # Only files: pixels that are in memory already need no cache.
        return tuple(
            replace(view, image=CachedPhoto(view, folder)) if hasattr(view.image, "sha256") else view for view in views
        )

    return replace(scene, train_views=cached(scene.train_views), test_views=cached(scene.test_views))


@dataclass(frozen=True, eq=False)
class CachedPhoto:
    """A view's photograph by way of the cache. 8-bit where that is exact, else float32."""

    view: View
    folder: Path

    def __call__(self) -> Tensor:
        """[H, W, 3] float32 in 0..1, the same bits as the view itself reads."""
        path = self.folder / f"{self.sha256()}-{code_sha256('model', 'io')[:8]}.npy"
        stored = _load(path)
        if stored is not None and stored.shape == (self.view.camera.height, self.view.camera.width, 3):
            return _to_float(stored)
        image = self.view.read()
        pixels = (image * 255).round().clamp(0, 255).to(torch.uint8).numpy()
        exact = torch.equal(_to_float(pixels), image)
        _store(path, pixels if exact else image.numpy())
        return image

    def sha256(self) -> str:
        """As the view's own, computed once."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        return self.view.photo_sha256()


def _to_float(pixels: Any) -> Tensor:
    """[H, W, 3] uint8 or float32 as float32 in 0..1, in memory of its own."""
    if pixels.dtype == np.uint8:
        return torch.from_numpy(pixels.astype(np.float32) / np.float32(255))
    return torch.from_numpy(np.array(pixels, np.float32))


def _load(path: Path) -> Any:
    """The array; None if there is none or it cannot be read."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # of a damaged file numpy raises almost anything
        return None


def _store(path: Path, array: Any) -> None:
    """Keep an array; a cache that cannot be written is no error."""
    try:
        if has_room(path, array.nbytes):
            write_atomic(path, lambda file: np.save(file, array), overwrite=True)
    except PotrError as error:
        log.debug("%s: not cached: %s", path, error)
