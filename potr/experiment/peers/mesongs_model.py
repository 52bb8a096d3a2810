# SPDX-License-Identifier: Apache-2.0
"""The quantised model of ``codec=mesongs``, its bytes, and the splats that it stands for."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from potr.errors import BitstreamError
from potr.experiment.peers.minmax import MinMax, block_edges, dequantize_blocks, read_minmax
from potr.experiment.peers.raht import morton_codes, raht
from potr.experiment.peers.sections import Section, pack, planes, read_num_splats, unpack
from potr.experiment.peers.shapes import euler_to_quats
from potr.format.octree import OctreeStreams, decode_octree, encode_octree
from potr.format.quantized import MAX_DEPTH
from potr.model.check import MAX_LOG_SCALE, MAX_MEAN, MAX_OPACITY_LOGIT, MAX_SH, MIN_LOG_SCALE
from potr.model.splats import SH_COEFFICIENTS, SplatModel
from potr.reader import Reader

_OCTREE = tuple(f"octree.{name}" for name in OctreeStreams._fields)
SECTIONS = ("model", *_OCTREE, "key", "key.ranges", "scales", "scales.ranges", "sh_ac.indices", "sh_ac.codebook")
MAX_BITS, MAX_BLOCKS, MAX_CODEBOOK = 16, 1 << 16, 1 << 16
KEY_CHANNELS = 7  # opacity logit, roll, pitch, yaw, SH DC of R, G, B
SCALE_CHANNELS = 3
RAHT_SCALES_ABOVE_BITS = 8  # scales of 8 bits or fewer are quantised as they are
_PARAMETERS = struct.Struct("<IBBBBII4d10f2f")

Levels = NDArray[np.uint16]
Ranges = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MesonModel:
    """N splats in Morton order, everything quantised.

    Attributes:
        cells: [N, 3] uint32 below 2^depth.
        depth: of the octree over the cube at ``origin`` [3] of side ``extent``.
        bits, scale_bits: of the levels of key and scales.
        mean_coefficients: [10] float32, the first RAHT coefficient of each channel, of the scales' only where they
            are transformed; else, and without splats, 0.
        key: [N - 1, 7] levels of the other RAHT coefficients, coarsest first.
        scales: [N - 1, 3] levels of theirs, or [N, 3] of the log-scales themselves.
        key_ranges, scale_ranges: [blocks, 2, channels] of each block of rows, low and high.
        indices: [N] uint16 entries of the codebook.
        codebook: [entries, K - 1, 3] levels of SH AC, of ``codebook_range``.
    """

    cells: NDArray[np.uint32]
    depth: int
    origin: NDArray[np.float64]
    extent: float
    bits: int
    scale_bits: int
    mean_coefficients: NDArray[np.float32]
    key: Levels
    scales: Levels
    key_ranges: Ranges
    scale_ranges: Ranges
    indices: Levels
    codebook: NDArray[np.uint8]
    codebook_range: MinMax

    @property
    def raht_scales(self) -> bool:
        return self.scale_bits > RAHT_SCALES_ABOVE_BITS


def dequantize(model: MesonModel) -> SplatModel:
    """The splats; every value is finite and plausible, whatever the model's ranges say."""
    transform = raht(morton_codes(model.cells, model.depth), 3 * model.depth)
    key = dequantize_blocks(model.key, model.key_ranges, 1 << model.bits)
    scales = dequantize_blocks(model.scales, model.scale_ranges, 1 << model.scale_bits)
    means = model.mean_coefficients.astype(np.float64)[None, :]
    if len(model.cells):
        key = transform.inverse(np.concatenate([means[:, :KEY_CHANNELS], key]))
        if model.raht_scales:
            scales = transform.inverse(np.concatenate([means[:, KEY_CHANNELS:], scales]))
    sh_ac = model.codebook_range.dequantize(model.codebook).clip(-MAX_SH, MAX_SH).astype(np.float32)[model.indices]
    points = model.origin + (model.cells + 0.5) * (model.extent / 2**model.depth)
    return SplatModel(
        means=_tensor(points.clip(-MAX_MEAN, MAX_MEAN)),
        log_scales=_tensor(scales.clip(MIN_LOG_SCALE, MAX_LOG_SCALE)),
        quats=euler_to_quats(torch.from_numpy(key[:, 1:4].clip(-100, 100))).float(),
        opacity_logits=_tensor(key[:, 0].clip(-MAX_OPACITY_LOGIT, MAX_OPACITY_LOGIT)),
        sh_dc=_tensor(key[:, 4:].clip(-MAX_SH, MAX_SH)),
        sh_ac=torch.from_numpy(sh_ac),
    )


def serialize(model: MesonModel) -> tuple[bytes, dict[str, int]]:
    """The file, and the bytes of each section."""
    n = len(model.cells)
    degree = SH_COEFFICIENTS.index(model.codebook.shape[1] + 1)
    blocks = max(len(model.key_ranges), len(model.scale_ranges))  # of few splats one of them may have a block less
    parameters = _PARAMETERS.pack(
        n, degree, model.depth, model.bits, model.scale_bits, blocks, len(model.codebook),
        *model.origin, model.extent, *model.mean_coefficients, model.codebook_range.low, model.codebook_range.high,
    )  # fmt: skip
    octree = encode_octree(model.cells, np.full(n, model.depth, np.uint8))
    streams = (
        parameters,
        *octree,
        planes(_narrow(model.key, model.bits)),
        planes(model.key_ranges),
        planes(_narrow(model.scales, model.scale_bits)),
        planes(model.scale_ranges),
        planes(model.indices),
        planes(model.codebook),
    )
    return pack(dict(zip(SECTIONS, streams, strict=True)), n)


def deserialize(data: bytes) -> MesonModel:
    """The model of a file.

    Raises:
        BitstreamError: the bytes are not what ``serialize`` writes.
    """
    sections = unpack(SECTIONS, data)
    reader = sections["model"].reader(_PARAMETERS.size)
    n = read_num_splats(reader, len(data))
    degree = _in_range(reader, "SH degree", reader.u8(), 0, len(SH_COEFFICIENTS) - 1)
    depth = _in_range(reader, "octree depth", reader.u8(), 0, MAX_DEPTH)
    bits, scale_bits = (_in_range(reader, "bits", reader.u8(), 1, MAX_BITS) for _ in range(2))
    blocks = _in_range(reader, "blocks", reader.u32(), 0, min(MAX_BLOCKS, n))
    entries = _in_range(reader, "codebook entries", reader.u32(), 0, min(MAX_CODEBOOK, n))
    origin, extent = reader.array("<f8", 3), reader.f64()
    if not (np.all(np.abs(origin) <= 2 * MAX_MEAN) and 0 < extent <= 4 * MAX_MEAN):
        raise reader.error(f"expected a cube among the splats, got {origin.tolist()} and side {extent}")
    mean_coefficients = reader.array("<f4", KEY_CHANNELS + SCALE_CHANNELS)
    if not np.isfinite(mean_coefficients).all():
        raise reader.error("expected finite coefficients")
    codebook_range = read_minmax(reader)
    rows = max(n - 1, 0)
    scale_rows = rows if scale_bits > RAHT_SCALES_ABOVE_BITS else n
    indices = sections["sh_ac.indices"].array("<u2", n).astype(np.uint16, copy=False)
    if n and int(indices.max()) >= entries:
        raise sections["sh_ac.indices"].error(f"expected indices below {entries}, got {int(indices.max())}")
    return MesonModel(
        cells=_read_cells(sections, n, depth),
        depth=depth,
        origin=origin,
        extent=extent,
        bits=bits,
        scale_bits=scale_bits,
        mean_coefficients=mean_coefficients,
        key=_read_levels(sections["key"], rows, KEY_CHANNELS, bits),
        scales=_read_levels(sections["scales"], scale_rows, SCALE_CHANNELS, scale_bits),
        key_ranges=_read_ranges(sections["key.ranges"], rows, blocks, KEY_CHANNELS),
        scale_ranges=_read_ranges(sections["scales.ranges"], scale_rows, blocks, SCALE_CHANNELS),
        indices=indices,
        codebook=sections["sh_ac.codebook"].array("<u1", entries, SH_COEFFICIENTS[degree] - 1, 3).astype(np.uint8),
        codebook_range=codebook_range,
    )


def _in_range(reader: Reader, what: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise reader.error(f"{what}: expected {low}..{high}, got {value}")
    return value


def _read_cells(sections: dict[str, Section], n: int, depth: int) -> NDArray[np.uint32]:
    largest = (n + MAX_DEPTH * (n // 2), n, (3 * MAX_DEPTH * n + 7) // 8, 5 * n)
    streams = OctreeStreams(*(sections[name].decode(0, most) for name, most in zip(_OCTREE, largest, strict=True)))
    try:
        cells, depths = decode_octree(streams, n)
    except BitstreamError as error:
        section = next((sections[name] for name in _OCTREE if name.endswith(error.section)), sections[_OCTREE[0]])
        raise section.error(f"{error.reason} (byte {error.offset} of the raw section)") from None
    if not np.all(depths == depth):
        raise sections[_OCTREE[0]].error(f"expected every leaf at depth {depth}")
    return cells


def _narrow(levels: Levels, bits: int) -> NDArray[np.generic]:
    return levels.astype(np.uint8) if bits <= 8 else levels


def _read_levels(section: Section, rows: int, channels: int, bits: int) -> Levels:
    levels = section.array("<u1" if bits <= 8 else "<u2", rows, channels).astype(np.uint16)
    if levels.size and int(levels.max()) >= 1 << bits:
        raise section.error(f"expected levels below {1 << bits}, got {int(levels.max())}")
    return levels


def _read_ranges(section: Section, rows: int, blocks: int, channels: int) -> Ranges:
    count = len(block_edges(rows, blocks)) - 1
    ranges = section.array("<f4", count, 2, channels).astype(np.float32)
    if not (np.isfinite(ranges).all() and np.all(ranges[:, 0] <= ranges[:, 1])):
        raise section.error("expected finite ranges, low before high")
    return ranges


def _tensor(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
