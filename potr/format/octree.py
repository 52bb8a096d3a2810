# SPDX-License-Identifier: Apache-2.0
"""Octree coding of positions: the depth-first order of the splats, and their cells as byte streams (docs/format.md)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from potr.errors import BitstreamError, ModelError
from potr.format.quantized import MAX_DEPTH

_BITS_SET = np.array([code.bit_count() for code in range(256)], np.uint8)


class OctreeStreams(NamedTuple):
    """The coded octree; layouts in docs/format.md.

    Attributes:
        nodes: per node, level by level: its occupancy code, or 0 for a tail (a node with one leaf below, or a leaf).
        tail_depths: per tail, level by level: how many levels below it its leaf lies.
        tail_bits: the octants on the way from each tail to its leaf, 3 bits each.
        counts: per leaf, depth first: its splats minus one, LEB128.
    """

    nodes: bytes
    tail_depths: bytes
    tail_bits: bytes
    counts: bytes


def order_leaves(
    cells_at_max_depth: NDArray[np.uint32], required_depths: NDArray[np.uint8], max_depth: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The depth-first order of the splats and the leaf each falls into.

    A node is a leaf exactly when every splat in it requires no more depth than the node's, so each splat gets at
    least its depth, and no leaf lies inside another.

    Args:
        cells_at_max_depth: [N, 3] uint32 below 2^max_depth.
        required_depths: [N] uint8, 0..max_depth.
        max_depth: 0..MAX_DEPTH.

    Returns:
        order: [N] int64, indices into the input, depth first (Morton order at max_depth, x first; stable).
        depths: [N] uint8, the leaf depth of each splat in that order; its cell there is
            ``cells_at_max_depth[order] >> (max_depth - depths)[:, None]``.

    Raises:
        ModelError: a cell or a depth is out of its range (the message has the first such splat).
    """
    from potr import _format

    if not 0 <= max_depth <= MAX_DEPTH:
        raise ModelError(f"max_depth: expected 0..{MAX_DEPTH}, got {max_depth}")
    cells, required = _checked(cells_at_max_depth, required_depths)
    try:
        order, depths = _format.order_leaves(cells, required, max_depth)
    except _format.OctreeInputError as error:
        raise ModelError(f"splat {error.args[0]}: {error.args[1]}") from None
    return order, depths


def encode_octree(cells: NDArray[np.uint32], depths: NDArray[np.uint8]) -> OctreeStreams:
    """Code cells that are in depth-first order.

    Args:
        cells: [N, 3] uint32, each at its own depth; equal cells are adjacent.
        depths: [N] uint8, 0..MAX_DEPTH.

    Raises:
        ModelError: not depth-first, a cell inside another, or a value out of range.
    """
    from potr import _format

    try:
        return OctreeStreams(*_format.encode_octree(*_checked(cells, depths)))
    except _format.OctreeInputError as error:
        raise ModelError(f"splat {error.args[0]}: {error.args[1]}") from None


def decode_octree(streams: OctreeStreams, num_splats: int) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """The inverse of ``encode_octree``, for streams from anywhere: accepts exactly what it writes.

    Time and memory are linear in ``num_splats`` and the streams' sizes, which the caller bounds.

    Returns:
        cells [N, 3] uint32 and depths [N] uint8, in depth-first order.

    Raises:
        BitstreamError: with the stream's name as section and the offset inside the stream.
    """
    from potr import _format

    try:
        cells, depths = _format.decode_octree(*streams, num_splats)
    except _format.OctreeStreamError as error:
        raise BitstreamError(*error.args) from None
    return cells, depths


def level_ends(streams: OctreeStreams) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where each level but the last ends in ``nodes`` and in ``tail_depths``."""
    nodes = np.frombuffer(streams.nodes, np.uint8)
    children = _BITS_SET[nodes]
    node_ends, tail_ends = [], []
    start, width, tails = 0, min(1, len(nodes)), 0
    while start + width < len(nodes):
        end = start + width
        tails += int(np.count_nonzero(nodes[start:end] == 0))
        node_ends.append(end)
        tail_ends.append(tails)
        start, width = end, int(children[start:end].sum(dtype=np.int64))
    return tuple(node_ends), tuple(tail_ends)


def _checked(cells: NDArray[np.uint32], depths: NDArray[np.uint8]) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    if cells.dtype != np.uint32 or cells.ndim != 2 or cells.shape[1] != 3:
        raise ModelError(f"cells: expected [N, 3] uint32, got {list(cells.shape)} {cells.dtype}")
    if depths.dtype != np.uint8 or depths.shape != cells.shape[:1]:
        raise ModelError(f"depths: expected [{len(cells)}] uint8, got {list(depths.shape)} {depths.dtype}")
    return np.ascontiguousarray(cells), np.ascontiguousarray(depths)
