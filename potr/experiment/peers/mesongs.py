# SPDX-License-Identifier: Apache-2.0
"""``codec=mesongs``: MesonGS (Xie et al. 2024), without fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from potr.errors import SceneError
from potr.experiment.peers.base import SEED, Option, PeerCodec, Stages
from potr.experiment.peers.kmeans import KMeans, vector_quantize
from potr.experiment.peers.mesongs_model import (
    KEY_CHANNELS,
    MAX_BITS,
    MAX_BLOCKS,
    MAX_CODEBOOK,
    RAHT_SCALES_ABOVE_BITS,
    MesonModel,
    dequantize,
    deserialize,
    serialize,
)
from potr.experiment.peers.minmax import MinMax, quantize_blocks
from potr.experiment.peers.raht import morton_codes, raht
from potr.experiment.peers.sensitivity import contribution
from potr.experiment.peers.shapes import quats_to_euler
from potr.format.octree import order_leaves
from potr.format.quantized import MAX_DEPTH
from potr.model.cameras import View
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import Rasterizer

VOLUME_QUANTILE, VOLUME_POWER = 0.9, 0.1  # beyond the quantile a larger volume counts no more


class MesonGS(PeerCodec):
    """Importance pruning, octree, RAHT of Euler angles, opacity and base colour, block and vector quantisation.

    The paper's, as far as known (docs/peers.md: its text could not be opened here): the importance,
    view-dependent (sum of blend weights) times view-independent (the volume, relative
    to its 90 % quantile and at most 1, to the power 0.1); positions in an octree; quaternions to Euler angles; RAHT of
    opacity, Euler angles and SH DC, and of the log-scales where they have more than 8 bits; quantisation between
    minimum and maximum in blocks, 8 bits; vector quantisation of the higher SH; LZ77 (deflate) on everything.

    Ours: no fine-tuning; quality to pruned share, octree depth, bits and codebook size, where the original has
    constants for each scene; 64 blocks everywhere; importance as the vectors' weight, and 8 bits in the codebook;
    splats of one cell are kept apart, not averaged; the octree's streams are POTR's; bytes in planes.
    """

    name: ClassVar[str] = "mesongs"
    suffix: ClassVar[str] = ".mesongs"
    quality_sets: ClassVar[str | None] = "share of splats pruned, octree depth, bits, codebook size of the higher SH"
    options: ClassVar[Mapping[str, Option]] = {
        "prune_share": Option(None, 0.0, 0.99, float),
        "octree_depth": Option(None, 1, MAX_DEPTH, int),
        "codebook_size": Option(None, 1, MAX_CODEBOOK, int),
        "bits": Option(None, 1, MAX_BITS, int),
        "scale_bits": Option(8, 1, MAX_BITS),
        "blocks": Option(64, 1, MAX_BLOCKS),
        "steps": Option(100, 0, 10000),
        "batch_size": Option(1 << 14, 1, 1 << 24),
        "seed": SEED,
    }

    def decode(self, data: bytes) -> SplatModel:
        return dequantize(deserialize(data))

    def _encode(
        self,
        model: SplatModel,
        views: Sequence[View],
        parameters: Mapping[str, Any],
        rasterizer: Rasterizer,
        stages: Stages,
        progress: Progress,
    ) -> tuple[bytes, dict[str, int]]:
        with stages.stage("prune"):
            importances = importance(model, views, rasterizer, progress)
            kept = most_important(importances, parameters["prune_share"])
            model, importances = model.select(kept), importances[kept]
            stages.num_splats = model.num_splats
        depth = parameters["octree_depth"]
        with stages.stage("octree"):
            origin, extent, cells = _cells(model, depth)
            order, _ = order_leaves(cells, np.full(len(cells), depth, np.uint8), depth)
            model, importances, cells = model.select(torch.from_numpy(order)), importances[order], cells[order]
        with stages.stage("cluster SH") as details:
            indices, codebook, codebook_range = _vector_quantized(model.sh_ac, importances, parameters, progress)
            details["entries"] = len(codebook)
        with stages.stage("transform and quantize"):
            attributes = _transformed(model, cells, depth, parameters)
        quantized = MesonModel(
            cells=cells,
            depth=depth,
            origin=origin,
            extent=extent,
            bits=parameters["bits"],
            scale_bits=parameters["scale_bits"],
            indices=indices,
            codebook=codebook,
            codebook_range=codebook_range,
            **attributes,
        )
        with stages.stage("pack") as details:
            data, sections = serialize(quantized)
            details["bytes"] = len(data)
        return data, sections

    def _from_quality(self, quality: float) -> dict[str, Any]:
        """At 0.5 a third of the splats goes, the octree has 16 levels and the codebook 4096 entries.

        Above, fewer splats go, none at 1. Below, pruning stays within what was published, 45 % at 0.1, and bits go as
        well: without fine-tuning more pruning costs decibels.
        """
        finer = 2 * quality - 1
        return {
            "prune_share": 0.33 - (0.33 if finer > 0 else 0.15) * finer,
            "bits": 8 + round(2 * min(finer, 0.0)),
            "octree_depth": 16 + round(2 * finer),
            "codebook_size": 2 ** (12 + round(2 * finer)),
        }


def importance(model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, progress: Progress = silent) -> Tensor:
    """[N] float64, the sum of blend weights times min(V / V90, 1)^0.1, V the volume and V90 its 90 % quantile.

    Raises:
        SceneError: there are no views, or none sees a splat.
    """
    seen = contribution(model, views, rasterizer, progress)
    if not model.num_splats:
        return seen
    if not bool((seen > 0).any()):
        raise SceneError(f"mesongs: none of the {len(views)} views has any of the {model.num_splats} splats in sight")
    log_volume = model.log_scales.double().sum(1)  # up to a constant that the quotient does not have
    largest = torch.quantile(log_volume, VOLUME_QUANTILE) if len(log_volume) < 1 << 24 else _quantile(log_volume)
    return seen * (VOLUME_POWER * (log_volume - largest).clamp_max(0)).exp()


def _quantile(values: Tensor) -> Tensor:
    # torch.quantile takes at most 2^24 values
    return values.kthvalue(int(VOLUME_QUANTILE * (len(values) - 1)) + 1).values


def most_important(importances: Tensor, prune_share: float) -> Tensor:
    """Ascending indices of all but the least important share; of equals the later go first, and one always stays."""
    n = len(importances)
    removed = min(int(prune_share * n), max(n - 1, 0))
    order = torch.sort(importances, descending=True, stable=True).indices
    return order[: n - removed].sort().values


def _cells(model: SplatModel, depth: int) -> tuple[NDArray[np.float64], float, NDArray[np.uint32]]:
    """The cube around all means, and each mean's cell: origin [3], extent, cells [N, 3]."""
    points = model.means.double().numpy()
    if len(points) == 0:
        return np.zeros(3), 1.0, np.zeros((0, 3), np.uint32)
    origin = points.min(axis=0)
    extent = float((points.max(axis=0) - origin).max()) * (1 + 1e-9) or 1.0
    scaled = np.floor((points - origin) / extent * 2**depth)
    return origin, extent, np.clip(scaled, 0, 2**depth - 1).astype(np.uint32)


def _vector_quantized(
    sh_ac: Tensor, weights: Tensor, parameters: Mapping[str, Any], progress: Progress
) -> tuple[NDArray[np.uint16], NDArray[np.uint8], MinMax]:
    """Indices [N], levels of the codebook [E, K - 1, 3] and their range."""
    n = len(sh_ac)
    config = KMeans(
        **{key: parameters[key] for key in ("steps", "batch_size", "seed")}, size=parameters["codebook_size"]
    )
    vectors = sh_ac.flatten(1)
    if vectors.shape[1]:
        codebook, indices = vector_quantize(vectors, weights, config, stage="cluster SH", progress=progress)
    else:  # degree 0: one entry of nothing
        codebook, indices = vectors[:1], torch.zeros(n, dtype=torch.int64)
    entries = codebook.reshape(len(codebook), *sh_ac.shape[1:]).numpy()
    levels = MinMax.of(entries)
    return indices.numpy().astype(np.uint16), levels.quantize(entries), levels


def _transformed(
    model: SplatModel, cells: NDArray[np.uint32], depth: int, parameters: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """The model's fields of key attributes and scales."""
    n, blocks = model.num_splats, parameters["blocks"]
    transform = raht(morton_codes(cells, depth), 3 * depth)
    angles = quats_to_euler(model.quats)
    key = torch.cat([model.opacity_logits[:, None], angles, model.sh_dc], dim=1).double().numpy()
    scales = model.log_scales.double().numpy()
    means = np.zeros(KEY_CHANNELS + scales.shape[1], np.float32)
    if n:
        key = transform.forward(key)
        means[:KEY_CHANNELS], key = key[0], key[1:]
        if parameters["scale_bits"] > RAHT_SCALES_ABOVE_BITS:
            scales = transform.forward(scales)
            means[KEY_CHANNELS:], scales = scales[0], scales[1:]
    key_levels, key_ranges = quantize_blocks(key, blocks, 1 << parameters["bits"])
    scale_levels, scale_ranges = quantize_blocks(scales, blocks, 1 << parameters["scale_bits"])
    return {
        "mean_coefficients": means,
        "key": key_levels.astype(np.uint16),
        "scales": scale_levels.astype(np.uint16),
        "key_ranges": key_ranges,
        "scale_ranges": scale_ranges,
    }
