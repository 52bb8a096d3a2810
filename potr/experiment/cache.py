# SPDX-License-Identifier: Apache-2.0
"""What the runs of a scene have in common, kept under ``<outputs>/.cache`` by the hash of what it was made from.

Decoded photographs (``photos/``), the removal costs of the untouched model, with which every pruning begins whatever
the quality (``costs/``), the survivors of the early pruning, which a sweep over what comes after it shares
(``pruned/``, written by the encoder), and the untouched model's figures on the test views (``before/``, by
``measure``). A change of a photograph, the model, a camera or the code that measures makes other names, so nothing
goes stale; the whole folder may be deleted at any time. The scene itself stays in memory from one run of a process to
the next.
"""

from __future__ import annotations

import logging
import shutil
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potr.errors import PotrError
from potr.experiment.identity import measurement_sha256
from potr.files import write_atomic
from potr.model.cameras import RGB, Camera, View
from potr.model.scene import Scene
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import ColorStatistics, GeometryStatistics, Rasterizer, RemovalCost
from potr.render.select import signature

log = logging.getLogger(__name__)

CACHE = ".cache"
_LEFT_FREE = 2 << 30  # bytes of the disk that are not the cache's to fill


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
        path = self.folder / f"{self.sha256()}.npy"
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


class CachedCosts:
    """A rasteriser that remembers the removal costs of one model: the one that all runs of a scene begin with.

    ``saved_seconds`` is what the costs that were found took to compute.
    """

    def __init__(self, inner: Rasterizer, model: SplatModel, cache: Path) -> None:
        self._inner, self._model, self._folder = inner, model, cache / "costs"
        self.saved_seconds = 0.0

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def device(self) -> torch.device:
        return self._inner.device

    @property
    def instruction_set(self) -> str:
        return str(getattr(self._inner, "instruction_set", ""))

    def render(self, model: SplatModel, camera: Camera, background: RGB) -> Tensor:
        return self._inner.render(model, camera, background)

    def color_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> ColorStatistics:
        return self._inner.color_statistics(model, views, background, progress=progress)

    def geometry_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> GeometryStatistics:
        return self._inner.geometry_statistics(model, views, background, progress=progress)

    def removal_cost(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> RemovalCost:
        if not _same(model, self._model):
            return self._inner.removal_cost(model, views, background, progress=progress)
        path = self._folder / f"{measurement_sha256(model, views, [signature(self._inner), background])}.npz"
        found = _load_cost(path, model)
        if found is not None:
            log.info("removal costs of the untouched model: computed earlier, %s", path)
            cost, seconds = found
            self.saved_seconds += seconds
            return cost
        start = time.perf_counter()
        cost = self._inner.removal_cost(model, views, background, progress=progress)
        arrays = {f.name: np.asarray(_plain(getattr(cost, f.name))) for f in fields(cost)}
        _store(path, arrays | {"seconds": np.asarray(time.perf_counter() - start)})
        return cost


def _load_cost(path: Path, model: SplatModel) -> tuple[RemovalCost, float] | None:
    """The costs and the seconds that they took."""
    stored = _load(path)
    if stored is None:
        return None
    try:
        tensors = {name: torch.from_numpy(stored[name]) for name in _PER_SPLAT}
        if any(tensor.shape != (model.num_splats,) for tensor in tensors.values()):
            return None
        on_device = {name: tensor.to(model.device) for name, tensor in tensors.items()}
        cost = RemovalCost(**on_device, sse=float(stored["sse"]), samples=int(stored["samples"]))
        return cost, float(stored["seconds"])
    except (KeyError, ValueError, TypeError, OSError, zipfile.BadZipFile):
        return None


_PER_SPLAT = ("delta_sse", "render_sse", "contribution", "peak", "pixels")


def _same(model: SplatModel, other: SplatModel) -> bool:
    """Whether two models are one, whatever holds their tensors."""
    pairs = [(getattr(model, f.name), getattr(other, f.name)) for f in fields(model)]
    return all(a.shape == b.shape for a, b in pairs) and all(torch.equal(a, b.to(a.device)) for a, b in pairs)


def _plain(value: Any) -> Any:
    return value.cpu().numpy() if isinstance(value, Tensor) else value


def _to_float(pixels: Any) -> Tensor:
    """[H, W, 3] uint8 or float32 as float32 in 0..1, in memory of its own."""
    if pixels.dtype == np.uint8:
        return torch.from_numpy(pixels.astype(np.float32) / np.float32(255))
    return torch.from_numpy(np.array(pixels, np.float32))


def _load(path: Path) -> Any:
    """The array, or archive of arrays; None if there is none or it cannot be read."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _store(path: Path, content: Any) -> None:
    """Keep an array or several; a cache that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = sum(array.nbytes for array in content.values()) if isinstance(content, dict) else content.nbytes
        if shutil.disk_usage(path.parent).free - size < _LEFT_FREE:
            log.debug("%s: not cached, the disk is nearly full", path)
            return
        if isinstance(content, dict):
            write_atomic(path, lambda file: np.savez(file, **content), overwrite=True)
        else:
            write_atomic(path, lambda file: np.save(file, content), overwrite=True)
    except (OSError, PotrError) as error:
        log.debug("%s: not cached: %s", path, error)
