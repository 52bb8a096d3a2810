# SPDX-License-Identifier: Apache-2.0
"""The C++ rasteriser: SIMD over pixels, threads over tiles; results are the same for any number of threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from potr import _render
from potr.errors import BackendUnavailable, ConfigError
from potr.model.cameras import RGB, Camera, View
from potr.model.constants import TRANSMITTANCE_MIN
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import GEOMETRY_PARAMETERS, ColorStatistics, GeometryStatistics, RemovalCost
from potr.render.blocks import BlockSums, sum_of_blocks
from potr.render.reading import read_ahead
from potr.threads import available_threads, checked_threads

INSTRUCTION_SET_VARIABLE = "POTR_INSTRUCTION_SET"
TAPE_BYTES = 1 << 30  # the most that the threads keep of the tiles at hand, where one tile alone does not need more


class CpuRasterizer:
    """The `cpu` backend. Calls from several Python threads are safe, and served one after the other.

    Args:
        threads: at most MAX_THREADS; by default as ``available_threads`` says. Those that wait sleep.
        instruction_set: "x86-64-v2", "x86-64-v3" (AVX2) or "x86-64-v4" (AVX-512); by default the environment variable
            POTR_INSTRUCTION_SET, else the best this machine has.
        statistics_transmittance_min: removal_cost and color_statistics stop blending a pixel before its transmittance
            falls below this. At 0 the cost of a removal is exact; with a stop, a removal would also move the stop.

    Raises:
        ConfigError: threads outside [1, MAX_THREADS] or statistics_transmittance_min outside [0, 1).
        BackendUnavailable: the instruction set is unknown or not supported here.
    """

    name = "cpu"
    device = torch.device("cpu")

    def __init__(
        self,
        threads: int | None = None,
        *,
        instruction_set: str | None = None,
        statistics_transmittance_min: float = 0.0,
    ) -> None:
        self.threads = available_threads() if threads is None else checked_threads(threads)
        if not 0 <= statistics_transmittance_min < 1:
            raise ConfigError(f"statistics_transmittance_min: expected [0, 1), got {statistics_transmittance_min}")
        self.statistics_transmittance_min = statistics_transmittance_min
        supported = _render.supported_instruction_sets()
        self.instruction_set = instruction_set or os.environ.get(INSTRUCTION_SET_VARIABLE) or supported[0]
        if self.instruction_set not in supported:
            raise BackendUnavailable(
                f"cpu: expected an instruction set of this machine ({', '.join(supported)}), "
                f"got '{self.instruction_set}'"
            )
        self._native = _render.Rasterizer(self.instruction_set, self.threads, TAPE_BYTES)
        self._layout_lock, self._color_lock = threading.Lock(), threading.Lock()
        self._laid_out: tuple[weakref.ref[SplatModel], tuple[int, ...], Any] | None = None

    def render(self, model: SplatModel, camera: Camera, background: RGB) -> Tensor:
        image = torch.empty(camera.height, camera.width, 3, dtype=torch.float32)
        self._native.render(self._layout(model), _native_camera(camera), *background, TRANSMITTANCE_MIN, image)
        return image.to(model.device)

    def removal_cost(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> RemovalCost:
        n = model.num_splats
        sums = BlockSums(3, n)
        delta_sse, render_sse, contribution = sums.block
        peak, pixels = torch.zeros(n, dtype=torch.float32), torch.zeros(n, dtype=torch.int64)
        layout = self._layout(model)
        samples = 0
        for i, (view, photo) in enumerate(read_ahead(views, _read, progress)):
            sums.block_sse += self._native.removal(
                layout,
                _native_camera(view.camera),
                *(view.background if background is None else background),
                self.statistics_transmittance_min,
                photo,
                delta_sse,
                render_sse,
                contribution,
                peak,
                pixels,
            )
            samples += photo.numel()
            sums.close_block_after(i, len(views))
        device = model.device
        delta_sse, render_sse, contribution = sums.total.to(device)
        return RemovalCost(
            delta_sse, render_sse, contribution, peak.to(device), pixels.to(device), float(sums.sse), samples
        )

    def color_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> ColorStatistics:
        n, k = model.num_splats, (model.sh_degree + 1) ** 2
        hessian = torch.zeros(n, k * (k + 1) // 2, dtype=torch.float32)
        gradient = torch.zeros(n, k, 3, dtype=torch.float32)
        seen_views = torch.zeros(n, dtype=torch.int32)
        sums = BlockSums(2, n)
        weight, contribution = sums.block
        layout = self._layout(model)
        # The Hessian and the gradient need no sums of their own for a block: all its views are added to them at once.
        native_sums = _render.ColorSums(hessian, gradient, weight, contribution, seen_views)
        samples = 0
        with self._color_lock:  # samples are kept from view to view
            self._native.begin_color(layout)
            for i, (view, photo) in enumerate(read_ahead(views, _read, progress)):
                sums.block_sse += self._native.color(
                    layout,
                    _native_camera(view.camera),
                    *(view.background if background is None else background),
                    self.statistics_transmittance_min,
                    photo,
                    native_sums,
                )
                samples += photo.numel()
                if sums.close_block_after(i, len(views)):
                    self._native.finish_color(layout, native_sums)
        device = model.device
        weight, contribution = sums.total.to(device)
        return ColorStatistics(
            hessian.to(device),
            weight,
            contribution,
            gradient.to(device),
            seen_views.to(device),
            float(sums.sse),
            samples,
        )

    def geometry_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> GeometryStatistics:
        return sum_of_blocks(
            lambda block, report: self._block_geometry_statistics(model, block, background, report), views, progress
        )

    def _block_geometry_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None, progress: Progress
    ) -> GeometryStatistics:
        n, k = model.num_splats, GEOMETRY_PARAMETERS
        hessian = torch.zeros(n, k * (k + 1) // 2, dtype=torch.float32)
        gradient = torch.zeros(n, k, dtype=torch.float32)
        layout = self._layout(model)
        sse, samples = 0.0, 0
        for view, photo in read_ahead(views, _read, progress):
            sse += self._native.geometry(
                layout,
                _native_camera(view.camera),
                *(view.background if background is None else background),
                self.statistics_transmittance_min,
                photo,
                hessian,
                gradient,
            )
            samples += photo.numel()
        return GeometryStatistics(hessian.to(model.device), gradient.to(model.device), sse, samples)

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of the last view by step: project, sort, bin, blend, gather."""
        return dict(self._native.timings)

    def _layout(self, model: SplatModel) -> Any:
        """The model in the native layout; kept while the same, unmodified model is asked for."""
        tensors = [getattr(model, f.name) for f in fields(model)]
        # Inference tensors count no versions, so a change of theirs would go unseen: they are laid out anew each time.
        counted = not any(t.is_inference() for t in tensors)
        versions = tuple(t._version for t in tensors) if counted else ()
        with self._layout_lock:
            known = self._laid_out
            if counted and known is not None and known[0]() is model and known[1] == versions:
                return known[2]
            self._laid_out = None
            means, log_scales, quats, opacity_logits, sh_dc, sh_ac = (t.detach().cpu() for t in tensors)
            layout = _render.Model(means, log_scales, quats, opacity_logits, sh_dc, sh_ac, self.threads)
            self._laid_out = (weakref.ref(model), versions, layout)
            return layout


def _native_camera(camera: Camera) -> Any:
    return _render.Camera(camera.viewmat, camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height)


def _read(view: View) -> Tensor:
    return view.read().detach().cpu().contiguous()
