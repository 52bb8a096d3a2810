# SPDX-License-Identifier: Apache-2.0
"""The CUDA rasteriser: potr/native/cuda compiled at first use by NVRTC, on torch tensors and torch's current stream.

Nothing waits for the GPU inside a view: its tile lists are given the room that the views before needed, and only once
all its work is queued does the host look whether they fitted, else do it again with more. A view whose lists would be
longer than ``max_entries`` is done in bands of tile rows.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace

import torch
from torch import Tensor

from potr.errors import ConfigError, DeviceMemoryError
from potr.model.cameras import RGB, Camera, View
from potr.model.constants import TRANSMITTANCE_MIN
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import GEOMETRY_PARAMETERS, ColorStatistics, GeometryStatistics, RemovalCost
from potr.render.blocks import VIEWS_PER_BLOCK, BlockSums, sum_of_blocks
from potr.render.launcher import Launcher
from potr.render.nvrtc import launcher_on
from potr.render.photos import DevicePhotos
from potr.render.reading import read_ahead
from potr.render.tile_lists import (
    THREADS,
    TILE,
    Projected,
    Step,
    TileLists,
    bands,
    bin_tiles,
    project,
    row_totals,
    view_vector,
)

MAX_ENTRIES = 1 << 26  # (tile, splat) pairs of a band: some 70 bytes each at the peak, 130 in geometry statistics
BLEND_THREADS = 128  # kBlend
SLOT = 8  # floats, kSlot
GEOMETRY_SLOT = 24  # kGeometrySlot
SAMPLE_PLANES = 5  # kSamplePlanes

Draw = Callable[[TileLists, bool], None]  # the lists of a band, and whether it is the view's first


class CudaRasterizer:
    """The `cuda` backend. One instance serves one Python thread at a time.

    Two runs on one kind of GPU give the same bits: nothing is summed by atomic operations.

    Args:
        threads: not used; there so that backends are made alike.
        device: a CUDA device; by default torch's current one.
        launcher: what runs the kernels, in place of the device's own.
        statistics_transmittance_min: as in the cpu backend. At 0 a pixel ends at a transmittance of 1e-30.
        max_entries: (tile, splat) pairs held at once, in [1, 2^30]: fewer need less memory. A view that has more is
            done in bands, and its sums may differ in their last bits.
        photo_bytes: device memory in which photographs stay between passes; by default an eighth of the device's.
        on_step: told when each step of a view has been queued (for measuring): project, sort splats, emit,
            sort entries, blend, gather.

    Raises:
        BackendUnavailable: no CUDA device, or a package is missing; says which.
        ConfigError: a parameter is out of its range.

    Its methods raise DeviceMemoryError where the device's memory is too small, and say what to lower.
    """

    name = "cuda"

    def __init__(
        self,
        threads: int | None = None,
        *,
        device: torch.device | str | None = None,
        launcher: Launcher | None = None,
        statistics_transmittance_min: float = 0.0,
        max_entries: int = MAX_ENTRIES,
        photo_bytes: int | None = None,
        on_step: Step | None = None,
    ) -> None:
        if not 0 <= statistics_transmittance_min < 1:
            raise ConfigError(f"statistics_transmittance_min: expected [0, 1), got {statistics_transmittance_min}")
        if not 1 <= max_entries <= 1 << 30:
            raise ConfigError(f"max_entries: expected 1 to 2^30, got {max_entries}")
        if launcher is None:
            launcher = launcher_on("cuda" if device is None else device)
            launcher.prepare("project", "blend", "gather")  # what does not compile is told now
        self.launcher = launcher
        self.device = launcher.device
        self.instruction_set: str = getattr(launcher, "arch", "")
        self.statistics_transmittance_min = statistics_transmittance_min
        self.max_entries = max_entries
        if photo_bytes is None:
            photo_bytes = _device_memory(self.device) // 8
        self._photos = DevicePhotos(self.device, photo_bytes)
        self._on_step: Step = on_step or (lambda name: None)
        self._capacity: int | None = None  # of the next view's tile lists
        self._copied: tuple[weakref.ref[SplatModel], tuple[int, ...], SplatModel] | None = None

    @torch.no_grad()
    def render(self, model: SplatModel, camera: Camera, background: RGB) -> Tensor:
        with self._memory("rendering", model, camera):
            image = torch.empty(camera.height, camera.width, 3, dtype=torch.float32, device=self.device)
            local, view = self._local(model), self._queue_copy(view_vector(camera, background))
            self._draw(local, camera, view, lambda lists, _: self._blend("render", lists, TRANSMITTANCE_MIN, image))
            return image.to(model.device)

    @torch.no_grad()
    def removal_cost(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> RemovalCost:
        n, device = model.num_splats, self.device
        with self._memory("removal cost", model, *(v.camera for v in views[:1])):
            local = self._local(model)
            sums = BlockSums(3, n, device)
            peak = torch.zeros(n, dtype=torch.float32, device=device)
            pixels = torch.zeros(n, dtype=torch.int64, device=device)
            samples = 0
            vectors = self._view_vectors(views, background)
            for i, (view, staged) in enumerate(read_ahead(views, self._photos.stage, progress)):
                photo = self._photos.place(view, staged)

                def gather(lists: TileLists, slots: Tensor, _: bool) -> None:
                    self.launcher.launch(
                        "gather", "gather_removal", _blocks(n), THREADS, n, lists.total, lists.capacity,
                        lists.first_entry, lists.num_tiles, slots, *sums.block, peak, pixels,
                    )  # fmt: skip

                sums.block_sse += self._statistics("removal", local, view.camera, vectors[i], photo, gather)
                samples += photo.numel()
                sums.close_block_after(i, len(views))
            delta_sse, render_sse, contribution = sums.total.to(model.device)
            return RemovalCost(
                delta_sse, render_sse, contribution, peak.to(model.device), pixels.to(model.device), float(sums.sse),
                samples,
            )  # fmt: skip

    @torch.no_grad()
    def color_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> ColorStatistics:
        n, k, device = model.num_splats, (model.sh_degree + 1) ** 2, self.device
        with self._memory("color statistics", model, *(v.camera for v in views[:1])):
            local = self._local(model)
            hessian = torch.zeros(n, k * (k + 1) // 2, dtype=torch.float32, device=device)
            gradient = torch.zeros(n, k, 3, dtype=torch.float32, device=device)
            weight, contribution = torch.zeros(2, n, dtype=torch.float64, device=device)
            seen_views = torch.zeros(n, dtype=torch.int32, device=device)
            # A splat's Hessian is 136 floats: it is touched once per block of views, not once per view.
            view_samples = torch.empty(min(VIEWS_PER_BLOCK, len(views)), SAMPLE_PLANES, n, device=device)
            sums = BlockSums(0, 0, device)  # of the squared error alone
            samples = 0
            vectors = self._view_vectors(views, background)
            for i, (view, staged) in enumerate(read_ahead(views, self._photos.stage, progress)):
                photo = self._photos.place(view, staged)
                place = i % VIEWS_PER_BLOCK

                def gather(lists: TileLists, slots: Tensor, first: bool, place: int = place) -> None:
                    self.launcher.launch(
                        "gather", "gather_color", _blocks(n), THREADS, n, lists.total, lists.capacity,
                        lists.first_entry, lists.num_tiles, lists.projected.records, slots, int(not first),
                        view_samples[place],
                    )  # fmt: skip

                sums.block_sse += self._statistics("color", local, view.camera, vectors[i], photo, gather)
                samples += photo.numel()
                if sums.close_block_after(i, len(views)):
                    self.launcher.launch(
                        "gather", "add_color_samples", -(-n // (THREADS // 32)), THREADS, n, model.sh_degree, place + 1,
                        vectors[i - place :], local.means, view_samples, hessian, gradient, weight, contribution,
                        seen_views,
                    )  # fmt: skip
            to = model.device
            return ColorStatistics(
                hessian.to(to), weight.to(to), contribution.to(to), gradient.to(to), seen_views.to(to),
                float(sums.sse), samples,
            )  # fmt: skip

    @torch.no_grad()
    def geometry_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> GeometryStatistics:
        with self._memory("geometry statistics", model, *(v.camera for v in views[:1])):
            local = self._local(model)
            sums = sum_of_blocks(
                lambda block, report: self._block_geometry_statistics(local, block, background, report), views, progress
            )
            return replace(sums, hessian=sums.hessian.to(model.device), gradient=sums.gradient.to(model.device))

    def _block_geometry_statistics(
        self, local: SplatModel, views: Sequence[View], background: RGB | None, progress: Progress
    ) -> GeometryStatistics:
        n, k, device = local.num_splats, GEOMETRY_PARAMETERS, self.device
        hessian = torch.zeros(n, k * (k + 1) // 2, dtype=torch.float32, device=device)
        gradient = torch.zeros(n, k, dtype=torch.float32, device=device)
        sse = torch.zeros((), dtype=torch.float64, device=device)
        samples = 0
        vectors = self._view_vectors(views, background)
        for i, (view, staged) in enumerate(read_ahead(views, self._photos.stage, progress)):
            photo = self._photos.place(view, staged)

            def gather(lists: TileLists, slots: Tensor, _: bool) -> None:
                self.launcher.launch(
                    "gather", "gather_geometry", -(-n // (THREADS // 32)), THREADS, n, lists.total, lists.capacity,
                    lists.first_entry, lists.num_tiles, lists.projected.records, lists.projected.view, local.means,
                    local.log_scales, local.quats, slots, hessian, gradient,
                )  # fmt: skip

            sse += self._statistics("geometry", local, view.camera, vectors[i], photo, gather, GEOMETRY_SLOT)
            samples += photo.numel()
        return GeometryStatistics(hessian, gradient, float(sse), samples)

    def _statistics(
        self, kernel: str, model: SplatModel, camera: Camera, view: Tensor, photo: Tensor,
        gather: Callable[[TileLists, Tensor, bool], None], slot: int = SLOT,
    ) -> Tensor:  # fmt: skip
        """One view's statistics; returns its squared error, [] float64 on the device."""
        tiles = -(-camera.width // TILE) * -(-camera.height // TILE)
        sse = torch.empty(tiles, dtype=torch.float64, device=self.device)
        levels, values = (photo, None) if photo.dtype == torch.uint8 else (None, photo)

        def draw(lists: TileLists, first: bool) -> None:
            slots = torch.empty(lists.capacity, slot, dtype=torch.float32, device=self.device)
            self._blend(kernel, lists, self.statistics_transmittance_min, values, levels, slots, sse)
            gather(lists, slots, first)
            self._on_step("gather")

        self._draw(model, camera, view, draw)
        return sse.sum()

    def _blend(self, kernel: str, lists: TileLists, transmittance_min: float, *arguments: Tensor | None) -> None:
        p = lists.projected
        self.launcher.launch(
            "blend", kernel, lists.num_tiles_in_rows, BLEND_THREADS, p.view, p.tiles_x, lists.row_first, lists.begins,
            lists.sorted, lists.splats, p.records, transmittance_min, *arguments,
        )  # fmt: skip
        self._on_step("blend")

    def _draw(self, model: SplatModel, camera: Camera, view: Tensor, draw: Draw) -> None:
        """Has ``draw`` queue its work on a view's tile lists: on those of the whole image, or band by band.

        If the lists turn out not to have fitted, ``draw`` is called again; what it queues has to take that.
        """
        projected = project(self.launcher, model, view, camera, self._on_step)
        capacity = min(self._capacity or max(8 * model.num_splats, 1 << 10), self.max_entries)
        while True:
            lists = bin_tiles(self.launcher, projected, (0, projected.tiles_y), capacity, self._on_step)
            draw(lists, True)
            total = lists.num_entries()
            if total <= capacity:
                self._capacity = _next_capacity(capacity, total)
                return
            if total > self.max_entries:
                self._draw_bands(projected, draw)
                return
            capacity = total

    def _draw_bands(self, projected: Projected, draw: Draw) -> None:
        self._capacity = self.max_entries
        for i, (first, last, total) in enumerate(bands(row_totals(self.launcher, projected), self.max_entries)):
            if total >= 1 << 31:
                raise DeviceMemoryError(
                    f"cuda: a row of tiles is touched {total:,} times, 2^31 are the most: the splats are too large"
                )
            draw(bin_tiles(self.launcher, projected, (first, last), max(total, 1), self._on_step), i == 0)

    def _view_vectors(self, views: Sequence[View], background: RGB | None) -> Tensor:
        """[V, 24] float32 on the device."""
        vectors = [view_vector(v.camera, v.background if background is None else background) for v in views]
        return self._queue_copy(torch.stack(vectors) if vectors else torch.empty(0, 24))

    def _queue_copy(self, values: Tensor) -> Tensor:
        """On the device; an ordinary copy from the CPU would wait for all that is queued."""
        pinned = values.pin_memory() if self.device.type == "cuda" else values
        return pinned.to(self.device, non_blocking=True)

    def _local(self, model: SplatModel) -> SplatModel:
        """The model on the device, contiguous; a copy is kept while the same, unmodified model is asked for."""
        tensors = [getattr(model, f.name) for f in fields(model)]
        if all(t.device == self.device and t.is_contiguous() for t in tensors):
            return model.detach()
        counted = not any(t.is_inference() for t in tensors)
        versions = tuple(t._version for t in tensors) if counted else ()
        if counted and self._copied is not None and self._copied[0]() is model and self._copied[1] == versions:
            return self._copied[2]
        self._copied = None
        copy = SplatModel(*(t.detach().to(self.device).contiguous() for t in tensors))
        self._copied = (weakref.ref(model), versions, copy)
        return copy

    @contextmanager
    def _memory(self, doing: str, model: SplatModel, *cameras: Camera) -> Iterator[None]:
        """Says what to lower where the device's memory does not suffice."""
        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            size = "".join(f" at {c.width} x {c.height} pixels" for c in cameras)
            raise DeviceMemoryError(
                f"cuda: out of memory on {self.device} in {doing} of {model.num_splats:,} splats{size}; lower "
                f"backend.max_entries (now {self.max_entries:,}) or backend.photo_gb, use smaller photographs, or take "
                f"backend=cpu. torch says: {error}"
            ) from error


def _next_capacity(capacity: int, total: int) -> int:
    """Room for the next view: a fifth more than this one needed, shrinking slowly; in steps, to reuse memory."""
    wanted = max(int(1.2 * total), int(0.9 * capacity), 1 << 10)
    step = 1 << max(wanted.bit_length() - 4, 0)
    return -(-wanted // step) * step


def _device_memory(device: torch.device) -> int:
    """Bytes; of a device that is no GPU, the 8 GiB of a small one."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 8 << 30


def _blocks(threads: int) -> int:
    return -(-threads // THREADS)
