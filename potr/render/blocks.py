# SPDX-License-Identifier: Apache-2.0
"""The order in which statistics are summed over views, so that any number of processes gets the same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from potr.model.cameras import View
from potr.progress import Progress
from potr.render.base import ColorStatistics, GeometryStatistics, RemovalCost

VIEWS_PER_BLOCK = 8  # as many as the cpu backend adds to a Hessian at once (kColorBatch)
Sums = TypeVar("Sums", RemovalCost, ColorStatistics, GeometryStatistics)


def in_blocks(views: Sequence[View]) -> list[Sequence[View]]:
    """Consecutive views, VIEWS_PER_BLOCK each and the rest; one empty block where there are no views."""
    return [views[start : start + VIEWS_PER_BLOCK] for start in range(0, max(1, len(views)), VIEWS_PER_BLOCK)]


def sum_of_blocks(
    of_block: Callable[[Sequence[View], Progress], Sums], views: Sequence[View], progress: Progress
) -> Sums:
    """The statistics of all views from those of each block, added in order.

    Args:
        of_block: the statistics of one block; its progress counts the block's views. They are written to.
        views: all of them.
        progress: called after each view.
    """
    done = 0

    report = Progress(lambda _, view, __: progress(done + view, len(views)))
    blocks = in_blocks(views)
    total = of_block(blocks[0], report)
    for block in blocks[1:]:
        done += VIEWS_PER_BLOCK
        part = of_block(block, report)
        for f in fields(total):
            if isinstance(sums := getattr(total, f.name), Tensor):
                add(f.name, sums, getattr(part, f.name))
        total = replace(total, sse=total.sse + part.sse, samples=total.samples + part.samples)
    return total


def add(name: str, total: Tensor, block: Tensor) -> None:
    """Add a block's field to the sum so far, in place: `peak` is a maximum, all else are sums in their own dtype."""
    if name == "peak":
        torch.maximum(total, block, out=total)
    else:
        total.add_(block)


class BlockSums:
    """float64 sums that a backend adds to in place, view by view within a block, block by block.

    Attributes:
        block: [F, N] the sums of the block at hand.
        total: [F, N] of the blocks closed.
        sse, block_sse: [] float64, the same for the squared error.
    """

    def __init__(self, count: int, num_splats: int, device: torch.device | str = "cpu") -> None:
        self.block = torch.zeros(count, num_splats, dtype=torch.float64, device=device)
        self.total = torch.zeros_like(self.block)
        self.block_sse = torch.zeros((), dtype=torch.float64, device=device)
        self.sse = torch.zeros_like(self.block_sse)

    def close_block_after(self, view: int, views: int) -> bool:
        """Add the block to the total if it ends with the ``view``-th of ``views``, counted from 0; whether it does."""
        ends = (view + 1) % VIEWS_PER_BLOCK == 0 or view + 1 == views
        if ends:
            self.total.add_(self.block)
            self.block.zero_()
            self.sse.add_(self.block_sse)
            self.block_sse.zero_()
        return ends
