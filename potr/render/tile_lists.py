# SPDX-License-Identifier: Apache-2.0
"""Which splats each tile of a view is made of, near to far: the host side of potr/native/cuda/project.cu.

The splats are sorted by depth, then their (tile, splat) entries by tile, stably: the long list is sorted by a key of 16
bits. Nothing here waits for the GPU, so the number of entries is not known when its buffers are allocated: they have a
capacity, and ``TileLists.num_entries`` tells afterwards whether all fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from potr.model.cameras import Camera
from potr.model.splats import SplatModel
from potr.render.launcher import Launcher

TILE = 16  # pixels, kTile
RECORD = 12  # floats, kRecordVectors
THREADS = 256
SHORT_MAX = 32767

Step = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Projected:
    """The splats in one view; what kernels write, see project.cu."""

    view: Tensor  # [24] float32: the camera and the background
    tiles_x: int
    tiles_y: int
    records: Tensor  # [N, 12] float32
    rectangles: Tensor  # [N, 4] int16, read as unsigned
    num_tiles: Tensor  # [N] int32, in the whole image
    order: Tensor  # [N] int64, near to far, those not visible last

    @property
    def num_splats(self) -> int:
        return len(self.order)


@dataclass(frozen=True, eq=False)
class TileLists:
    """The entries of tile rows [row_first, row_last), by tile, near to far."""

    projected: Projected
    row_first: int
    row_last: int
    begins: Tensor  # [tiles + 1] int32 into `sorted`
    sorted: Tensor  # [capacity] int64, where each entry was before sorting: its slot
    splats: Tensor  # [capacity] int32, of each slot
    first_entry: Tensor  # [N] int32, a splat's first slot
    num_tiles: Tensor  # [N] int32, its slots
    total: Tensor  # [1] int64 on the device
    capacity: int
    num_entries: Callable[[], int]  # waits until the total is known

    @property
    def num_tiles_in_rows(self) -> int:
        return len(self.begins) - 1


def view_vector(camera: Camera, background: tuple[float, float, float]) -> Tensor:
    """[24] float32 on the CPU: what the kernels read of a view (potr/native/cuda/view.h)."""
    intrinsics = [camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height]
    numbers = [*camera.viewmat[:3].flatten().tolist(), *camera.center.tolist(), *intrinsics, *background]
    return torch.tensor(numbers, dtype=torch.float32)


def project(launcher: Launcher, model: SplatModel, view: Tensor, camera: Camera, on_step: Step) -> Projected:
    """The model in a view; its tensors and ``view`` (``view_vector``) are on the launcher's device."""
    n, device = model.num_splats, launcher.device
    tiles_x, tiles_y = -(-camera.width // TILE), -(-camera.height // TILE)
    records = torch.empty(n, RECORD, dtype=torch.float32, device=device)
    rectangles = torch.empty(n, 4, dtype=torch.int16, device=device)
    depth_keys = torch.empty(n, dtype=torch.int32, device=device)
    num_tiles = torch.empty(n, dtype=torch.int32, device=device)
    launcher.launch(
        "project", "project", _blocks(n), THREADS, view, tiles_x, tiles_y, n, model.sh_degree,
        model.means, model.log_scales, model.quats, model.opacity_logits, model.sh_dc, model.sh_ac,
        records, rectangles, depth_keys, num_tiles,
    )  # fmt: skip
    on_step("project")
    order = torch.sort(depth_keys, stable=True).indices
    on_step("sort splats")
    return Projected(view, tiles_x, tiles_y, records, rectangles, num_tiles, order)


def bin_tiles(
    launcher: Launcher, projected: Projected, rows: tuple[int, int], capacity: int, on_step: Step
) -> TileLists:
    """The entries of some tile rows; those beyond ``capacity`` (below 2^31) are dropped."""
    p, (row_first, row_last), n, device = projected, rows, projected.num_splats, launcher.device
    num_tiles = p.num_tiles
    if rows != (0, p.tiles_y):
        num_tiles = torch.empty_like(num_tiles)
        launcher.launch(
            "project", "count_tiles", _blocks(n), THREADS, row_first, row_last, n, p.records, p.rectangles, num_tiles
        )
    ends = torch.cumsum(num_tiles[p.order], 0, dtype=torch.int64)
    total = ends[-1:] if n else torch.zeros(1, dtype=torch.int64, device=device)
    later = launcher.read_later(total)

    tiles = p.tiles_x * (row_last - row_first)
    short = tiles <= SHORT_MAX
    # The key of what no splat writes is one past the last tile.
    keys = torch.full((capacity,), tiles, dtype=torch.int16 if short else torch.int32, device=device)
    splats = torch.empty(capacity, dtype=torch.int32, device=device)
    first_entry = torch.empty(n, dtype=torch.int32, device=device)
    launcher.launch(
        "project", "emit", _blocks(n), THREADS, row_first, row_last, p.tiles_x, n, capacity, p.records, p.rectangles,
        num_tiles, p.order, ends, *((keys, None) if short else (None, keys)), splats, first_entry,
    )  # fmt: skip
    on_step("emit")
    keys, order = torch.sort(keys, stable=True)
    begins = torch.empty(tiles + 1, dtype=torch.int32, device=device)
    launcher.launch(
        "project", "tile_begins", _blocks(tiles + 1), THREADS, tiles, capacity,
        *((keys, None) if short else (None, keys)), begins,
    )  # fmt: skip
    on_step("sort entries")
    return TileLists(
        p, row_first, row_last, begins, order, splats, first_entry, num_tiles, total, capacity, lambda: later()[0]
    )


def row_totals(launcher: Launcher, projected: Projected) -> list[int]:
    """Entries of each tile row; waits for them."""
    p = projected
    totals = torch.zeros(p.tiles_y, dtype=torch.int64, device=launcher.device)
    launcher.launch(
        "project", "count_rows", _blocks(p.num_splats), THREADS, p.tiles_y, p.num_splats, p.records, p.rectangles,
        totals,
    )  # fmt: skip
    return launcher.read_later(totals)()


def bands(totals: Sequence[int], max_entries: int) -> list[tuple[int, int, int]]:
    """Consecutive rows (first, one past the last, entries), each with as many as fit max_entries, at least one row."""
    result: list[tuple[int, int, int]] = []
    for row, total in enumerate(totals):
        if result and result[-1][2] + total <= max_entries:
            result[-1] = (result[-1][0], row + 1, result[-1][2] + total)
        else:
            result.append((row, row + 1, total))
    return result


def _blocks(threads: int) -> int:
    return -(-threads // THREADS)
