# SPDX-License-Identifier: Apache-2.0
"""Splats into a square so that neighbours are alike, which is what an image codec lives on.

Parallel linear assignment sorting, as known of Morgenstern, Barthel, Hilsmann, Eisert: Compact 3D Scene Representation
via Self-Organizing Gaussian Grids (ECCV 2024), whose text could not be opened here. Written in torch; what is ours is
said in ``sort_to_grid``.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from potr.progress import Progress, silent

_PERMUTATIONS = torch.tensor(list(itertools.permutations(range(4))))  # [24, 4]


def sort_to_grid(
    features: Tensor, *, seed: int = 0, decay: float = 0.9, repeats: int = 4, progress: Progress = silent
) -> Tensor:
    """Which row of ``features`` goes where in the square.

    The target of a step is the grid blurred with a box of radius r. Within blocks of about that radius, random groups
    of four places exchange what they hold so that the squared distance to the target is smallest (all 24 ways are
    tried). r starts at half the side and shrinks to 1.

    Ours: blocks start at a random offset and wrap around; r shrinks by ``decay`` after ``repeats`` steps, where the
    authors' shrinks by 0.95 once steps gain nothing more; a box is the blur, as two passes.

    Args:
        features: [S * S, D] float32.
        seed: of the start, a random order, and of the groups.

    Returns:
        [S * S] int64: the row at each place, in row-major order.
    """
    side = round(len(features) ** 0.5)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(side * side, generator=generator)
    radii = _radii(side, decay)
    for done, radius in enumerate(radii):
        target = _blur(features[order].view(side, side, -1), radius).view(side * side, -1)
        for _ in range(repeats):
            groups = _groups(side, radius, generator)
            order[groups] = _exchange(features, order[groups], target[groups])
        progress("sort", done + 1, len(radii))
    return order


def _radii(side: int, decay: float) -> list[int]:
    radii, radius = [], side / 2
    while radius >= 1:
        radii.append(int(radius))
        radius *= decay
    return radii


def _blur(grid: Tensor, radius: int) -> Tensor:
    """[S, S, D] mean over a box of 2 radius + 1, borders repeated."""
    image = grid.permute(2, 0, 1)[None]
    for horizontal in (True, False):
        pad = (radius, radius, 0, 0) if horizontal else (0, 0, radius, radius)
        padded = F.pad(image, pad, mode="replicate").double()
        axis = 3 if horizontal else 2
        sums = F.pad(padded.cumsum(axis), (1, 0, 0, 0) if horizontal else (0, 0, 1, 0))
        length = image.shape[axis]
        window = 2 * radius + 1
        image = ((sums.narrow(axis, window, length) - sums.narrow(axis, 0, length)) / window).to(grid.dtype)
    return image[0].permute(1, 2, 0)


def _groups(side: int, radius: int, generator: torch.Generator) -> Tensor:
    """[G, 4] places that share a block, each place at most once; blocks of radius + 1, at a random offset."""
    block = min(radius + 1, side)
    blocks = side // block
    places = torch.randperm(block * block, generator=generator)
    places = places[: len(places) // 4 * 4]
    y, x = torch.randint(side, (2,), generator=generator).tolist()
    corners = torch.arange(blocks) * block
    rows = (y + corners[:, None, None] + (places // block)[None, None, :]) % side  # [B, 1, P]
    columns = (x + corners[None, :, None] + (places % block)[None, None, :]) % side  # [1, B, P]
    groups: Tensor = (rows * side + columns).reshape(-1, 4)
    return groups


def _exchange(features: Tensor, held: Tensor, target: Tensor) -> Tensor:
    """[G, 4] the rows that groups hold, [G, 4, D] their places' targets: the rows in their best order."""
    # |target - row|^2 without the terms that are the same in every order.
    gain = target @ features[held].transpose(1, 2)  # [G, place, row]
    totals = torch.stack([gain[:, place, _PERMUTATIONS[:, place]] for place in range(4)]).sum(0)  # [G, 24]
    best: Tensor = held.gather(1, _PERMUTATIONS[totals.argmax(1)])
    return best
