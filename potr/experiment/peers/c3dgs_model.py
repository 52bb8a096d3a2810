# SPDX-License-Identifier: Apache-2.0
"""The quantised model of ``codec=c3dgs``, its bytes, and the splats that it stands for."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from potr.experiment.peers.minmax import MinMax, read_minmax
from potr.experiment.peers.sections import Section, pack, planes, read_num_splats, unpack
from potr.model.check import MAX_LOG_SCALE, MAX_SH, MIN_LOG_SCALE
from potr.model.rotation import normalize_quats
from potr.model.splats import SH_COEFFICIENTS, SplatModel
from potr.reader import Reader

SECTIONS = (
    "model", "means", "opacity", "size",
    "color.indices", "shape.indices", "color.codebook", "shape.codebook",
)  # fmt: skip
MAX_CODEBOOK = (1 << 16) - 1
MIN_OPACITY = 1e-6  # a level of 0 or 1 would have an infinite logit
ROTATION_LEVELS = 255  # odd, so that 0 is one of them
_PARAMETERS = struct.Struct("<IBHIHI8f")

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Codebook:
    """Which vector each splat has.

    Attributes:
        shared: entries that splats share; they come first.
        own: entries after them, of one splat each, in the order of the splats.
        indices: [N] uint16, below ``shared`` a shared entry, ``shared`` itself: the next of one's own.
    """

    shared: int
    own: int
    indices: NDArray[np.uint16]

    def rows(self) -> NDArray[np.int64]:
        """[N] each splat's entry."""
        own = self.indices == self.shared
        return np.where(own, self.shared - 1 + np.cumsum(own), self.indices.astype(np.int64))


@dataclass(frozen=True, eq=False)
class C3dgsModel:
    """N splats in Morton order, everything quantised.

    Attributes:
        means: [N, 3] float16.
        opacity: [N] levels of the opacity (after the sigmoid).
        size: [N] levels of the natural log of |s|.
        color, shape: indices into the codebooks.
        sh: [color entries, K, 3] levels, of ``dc_range`` for degree 0 and ``ac_range`` for the others.
        rotation: [shape entries, 4] levels of the unit quaternion's components.
        axes: [shape entries, 3] standard deviations over the size, in 1/255.
    """

    means: NDArray[np.float16]
    opacity: Bytes
    size: Bytes
    color: Codebook
    shape: Codebook
    sh: Bytes
    rotation: Bytes
    axes: Bytes
    opacity_range: MinMax
    size_range: MinMax
    dc_range: MinMax
    ac_range: MinMax


def dequantize(model: C3dgsModel) -> SplatModel:
    """The splats; every value is finite and plausible, whatever the model's ranges say."""
    opacities = model.opacity_range.dequantize(model.opacity).clip(MIN_OPACITY, 1 - MIN_OPACITY)
    shapes = model.shape.rows()
    axes = np.log(np.maximum(model.axes, 0.5) / 255)
    log_scales = model.size_range.dequantize(model.size)[:, None] + axes[shapes]
    quats = (model.rotation.astype(np.float64) * 2 - (ROTATION_LEVELS - 1)) / (ROTATION_LEVELS - 1)
    dc = model.dc_range.dequantize_clipped(model.sh[:, 0], MAX_SH)
    ac = model.ac_range.dequantize_clipped(model.sh[:, 1:], MAX_SH)
    colors = model.color.rows()
    return SplatModel(
        means=torch.from_numpy(model.means.astype(np.float32)),
        log_scales=torch.from_numpy(log_scales.clip(MIN_LOG_SCALE, MAX_LOG_SCALE).astype(np.float32)),
        quats=normalize_quats(torch.from_numpy(quats.astype(np.float32)))[torch.from_numpy(shapes)],
        opacity_logits=torch.from_numpy(np.log(opacities / (1 - opacities)).astype(np.float32)),
        sh_dc=torch.from_numpy(dc[colors]),
        sh_ac=torch.from_numpy(ac[colors]),
    )


def serialize(model: C3dgsModel) -> tuple[bytes, dict[str, int]]:
    """The file, and the bytes of each section."""
    n, k = len(model.means), model.sh.shape[1]
    ranges = (model.opacity_range, model.size_range, model.dc_range, model.ac_range)
    parameters = _PARAMETERS.pack(
        n, SH_COEFFICIENTS.index(k),
        model.color.shared, model.color.own, model.shape.shared, model.shape.own,
        *(value for r in ranges for value in (r.low, r.high)),
    )  # fmt: skip
    streams = (
        parameters,
        planes(model.means),
        planes(model.opacity),
        planes(model.size),
        planes(model.color.indices),
        planes(model.shape.indices),
        planes(model.sh),
        planes(model.rotation) + planes(model.axes),
    )
    return pack(dict(zip(SECTIONS, streams, strict=True)), n)


def deserialize(data: bytes) -> C3dgsModel:
    """The model of a file.

    Raises:
        BitstreamError: the bytes are not what ``serialize`` writes.
    """
    sections = unpack(SECTIONS, data)
    reader = sections["model"].reader(_PARAMETERS.size)
    n, degree = read_num_splats(reader, len(data)), reader.u8()
    if degree >= len(SH_COEFFICIENTS):
        raise reader.error(f"expected an SH degree of 0..3, got {degree}", 4)
    colors, shapes = _read_counts(reader, n), _read_counts(reader, n)
    opacity_range, size_range, dc_range, ac_range = (read_minmax(reader) for _ in range(4))
    means = sections["means"].array("<f2", n, 3).astype(np.float16, copy=False)
    if not np.isfinite(means).all():
        raise sections["means"].error("expected finite numbers")
    color_entries, shape_entries = sum(colors), sum(shapes)
    shape_levels = sections["shape.codebook"].decode(7 * shape_entries)
    rotation = np.frombuffer(shape_levels[: 4 * shape_entries], np.uint8).reshape(4, -1).T
    if rotation.size and int(rotation.max()) >= ROTATION_LEVELS:
        raise sections["shape.codebook"].error(f"expected rotation levels below {ROTATION_LEVELS}")
    return C3dgsModel(
        means=means,
        opacity=_levels(sections["opacity"].array("<u1", n)),
        size=_levels(sections["size"].array("<u1", n)),
        color=_read_codebook(sections["color.indices"], *colors, n),
        shape=_read_codebook(sections["shape.indices"], *shapes, n),
        sh=_levels(sections["color.codebook"].array("<u1", color_entries, SH_COEFFICIENTS[degree], 3)),
        rotation=np.ascontiguousarray(rotation),
        axes=np.ascontiguousarray(np.frombuffer(shape_levels[4 * shape_entries :], np.uint8).reshape(3, -1).T),
        opacity_range=opacity_range,
        size_range=size_range,
        dc_range=dc_range,
        ac_range=ac_range,
    )


def _read_counts(reader: Reader, num_splats: int) -> tuple[int, int]:
    shared, own = reader.u16(), reader.u32()
    if shared > num_splats or own > num_splats:
        raise reader.error(f"expected codebooks of at most {num_splats} entries, got {shared} + {own}")
    return shared, own


def _read_codebook(section: Section, shared: int, own: int, num_splats: int) -> Codebook:
    indices = section.array("<u2", num_splats).astype(np.uint16, copy=False)
    if num_splats and int(indices.max()) > shared:
        raise section.error(f"expected indices up to {shared}, got {int(indices.max())}")
    found = int(np.count_nonzero(indices == shared))
    if found != own:
        raise section.error(f"expected {own} splats with an entry of their own, got {found}")
    return Codebook(shared, own, indices)


def _levels(array: NDArray[np.generic]) -> Bytes:
    return array.astype(np.uint8, copy=False)
