# SPDX-License-Identifier: Apache-2.0
"""``codec=c3dgs``: Compressed 3D Gaussian Splatting (Niedermayr, Stumpfegger, Westermann 2024), without fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from potr.errors import ModelError, SceneError
from potr.experiment.peers.base import SEED, Option, PeerCodec, Stages
from potr.experiment.peers.c3dgs_model import (
    MAX_CODEBOOK,
    ROTATION_LEVELS,
    C3dgsModel,
    Codebook,
    dequantize,
    deserialize,
    serialize,
)
from potr.experiment.peers.kmeans import KMeans, vector_quantize
from potr.experiment.peers.minmax import MinMax
from potr.experiment.peers.raht import morton_codes
from potr.experiment.peers.sensitivity import Sensitivity, sensitivity, unit_covariances
from potr.experiment.peers.shapes import ellipsoids
from potr.model.cameras import View
from potr.model.rotation import normalize_quats
from potr.model.splats import SplatModel
from potr.progress import Progress
from potr.render.base import Rasterizer

COLOR_THRESHOLD, SHAPE_THRESHOLD = 6e-7, 3e-6  # the paper's, of all scenes
CODEBOOK_BITS = 12  # the paper's 4096 entries
MORTON_DEPTH = 21
LARGEST_FLOAT16 = 65504.0

_ENTRIES = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # of a symmetric matrix, in the codebook's vectors


class C3dgs(PeerCodec):
    """Sensitivity-aware vector quantisation of colours and shapes, half-precision positions, deflate in Morton order.

    Each splat's SH vector (degree 0 and the others together) and its covariance over its squared size are vector
    quantised, weighted by sensitivity; splats above a sensitivity keep an entry of their own. What remains is the
    position, the opacity and the size.

    The paper's, as far as known (docs/peers.md: its text could not be opened here): the sensitivity;
    codebooks of 4096 entries and thresholds of 6e-7 (colour) and 3e-6 (shape), both at
    quality 0.5; k-means by a moving average of decay 0.8; splats that contribute to no image dropped; float16
    positions; 8 bits, between minimum and maximum, for everything else, opacity after the sigmoid and size before the
    exponential; Morton order and deflate.

    Ours: no fine-tuning; how the shape's sensitivity is measured (``sensitivity.sensitivity``); quality to codebook
    size and thresholds; batch size and number of k-means steps, two exact steps at the end; bytes in planes; one
    symbol for all splats with an entry of their own, as those stand in the order of the splats.
    """

    name: ClassVar[str] = "c3dgs"
    suffix: ClassVar[str] = ".c3dgs"
    quality_sets: ClassVar[str | None] = "codebook sizes, and the sensitivity above which a splat is not clustered"
    options: ClassVar[Mapping[str, Option]] = {
        "codebook_size": Option(None, 1, MAX_CODEBOOK, int),
        "color_threshold": Option(None, 0.0, 1e30, float),
        "shape_threshold": Option(None, 0.0, 1e30, float),
        "prune_unseen": Option(True),
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
        with stages.stage("sensitivity"):
            measured = sensitivity(model, views, rasterizer, progress)
            model, measured = _kept(model, measured, views, parameters["prune_unseen"])
            stages.num_splats = model.num_splats
        order = torch.from_numpy(_morton_order(model))
        model = model.select(order)
        config = KMeans(
            **{key: parameters[key] for key in ("steps", "batch_size", "seed")}, size=parameters["codebook_size"]
        )
        with stages.stage("cluster colors") as details:
            colors, entries = _clustered(
                model.sh.flatten(1), measured.color[order], parameters["color_threshold"], config, "color", progress
            )
            sh = entries.reshape(-1, *model.sh.shape[1:]).numpy()
            details |= {"shared": colors.shared, "own": colors.own}
        with stages.stage("cluster shapes") as details:
            size, covariances = unit_covariances(model)
            vectors = torch.stack([covariances[:, i, j] for i, j in _ENTRIES], dim=1)
            shapes, entries = _clustered(
                vectors, measured.shape[order], parameters["shape_threshold"], config, "shape", progress
            )
            rotation, axes = _shape_entries(model, size, shapes, entries)
            details |= {"shared": shapes.shared, "own": shapes.own}
        with stages.stage("quantize"):
            quantized = _quantized(model, size, colors, sh, shapes, rotation, axes)
        with stages.stage("pack") as details:
            data, sections = serialize(quantized)
            details["bytes"] = len(data)
        return data, sections

    def _from_quality(self, quality: float) -> dict[str, Any]:
        """From 0.5 to 1 the codebooks grow fourfold and the thresholds fall hundredfold, the other way down to 0."""
        finer = 2 * quality - 1
        return {
            "codebook_size": 2 ** (CODEBOOK_BITS + round(2 * finer)),
            "color_threshold": COLOR_THRESHOLD * 100**-finer,
            "shape_threshold": SHAPE_THRESHOLD * 100**-finer,
        }


def _kept(
    model: SplatModel, measured: Sensitivity, views: Sequence[View], prune_unseen: bool
) -> tuple[SplatModel, Sensitivity]:
    seen = measured.contribution > 0
    if model.num_splats and not bool(seen.any()):
        raise SceneError(f"c3dgs: none of the {len(views)} views has any of the {model.num_splats} splats in sight")
    if not prune_unseen:
        return model, measured
    kept = replace(
        measured, color=measured.color[seen], shape=measured.shape[seen], contribution=measured.contribution[seen]
    )
    return model.select(seen), kept


def _morton_order(model: SplatModel) -> np.ndarray[Any, np.dtype[np.int64]]:
    points = model.means.double().numpy()
    if not len(points):
        return np.zeros(0, np.int64)
    extent = float(np.ptp(points, axis=0).max()) or 1.0
    cells = np.floor((points - points.min(axis=0)) / extent * (2**MORTON_DEPTH - 1)).astype(np.uint32)
    return np.argsort(morton_codes(cells, MORTON_DEPTH), kind="stable")


def _clustered(
    vectors: Tensor, weights: Tensor, threshold: float, config: KMeans, what: str, progress: Progress
) -> tuple[Codebook, Tensor]:
    """Indices of [N, D] vectors, and the codebook's entries: shared ones, then those of single splats."""
    own = weights > threshold
    if int((~own).sum()) <= config.size:  # each would be an entry by itself
        own = torch.ones_like(own)
    shared, found = torch.zeros(0, vectors.shape[1]), torch.zeros(0, dtype=torch.int64)
    if not bool(own.all()):
        stage = f"cluster {what}s"
        shared, found = vector_quantize(vectors[~own], weights[~own], config, stage=stage, progress=progress)
    indices = torch.full((len(vectors),), len(shared))
    indices[~own] = found
    return Codebook(len(shared), int(own.sum()), indices.numpy().astype(np.uint16)), torch.cat([shared, vectors[own]])


def _shape_entries(model: SplatModel, size: Tensor, shapes: Codebook, entries: Tensor) -> tuple[Tensor, Tensor]:
    """Unit quaternions [E, 4] and axes over the size [E, 3] of the shapes' codebook."""
    covariances = entries.new_zeros(shapes.shared, 3, 3)
    for column, (i, j) in enumerate(_ENTRIES):
        covariances[:, i, j] = covariances[:, j, i] = entries[: shapes.shared, column]
    rotation, axes = ellipsoids(covariances)
    own = torch.from_numpy(shapes.indices.astype(np.int64) == shapes.shared)
    own_axes = (model.log_scales[own].double() - size[own].double().log()[:, None]).exp()
    rotation = torch.cat([rotation, normalize_quats(model.quats[own].double())])
    return rotation * torch.where(rotation[:, :1] < 0, -1.0, 1.0), torch.cat([axes, own_axes])


def _quantized(
    model: SplatModel, size: Tensor, colors: Codebook, sh: np.ndarray[Any, np.dtype[np.float32]],
    shapes: Codebook, rotation: Tensor, axes: Tensor,
) -> C3dgsModel:  # fmt: skip
    largest = float(model.means.abs().max()) if model.num_splats else 0.0
    if largest > LARGEST_FLOAT16:
        raise ModelError(f"c3dgs: positions are half precision, up to {LARGEST_FLOAT16:g}, got {largest:g}")
    opacity, log_size = model.opacities.numpy(), size.double().log().numpy()
    opacity_range, size_range = MinMax.of(opacity), MinMax.of(log_size)
    dc_range, ac_range = MinMax.of(sh[:, :1]), MinMax.of(sh[:, 1:])
    half = (ROTATION_LEVELS - 1) / 2
    return C3dgsModel(
        means=model.means.numpy().astype(np.float16),
        opacity=opacity_range.quantize(opacity),
        size=size_range.quantize(log_size),
        color=colors,
        shape=shapes,
        sh=np.concatenate([dc_range.quantize(sh[:, :1]), ac_range.quantize(sh[:, 1:])], axis=1),
        rotation=torch.round(rotation * half + half).clamp(0, ROTATION_LEVELS - 1).numpy().astype(np.uint8),
        axes=torch.round(axes * 255).clamp(0, 255).numpy().astype(np.uint8),
        opacity_range=opacity_range,
        size_range=size_range,
        dc_range=dc_range,
        ac_range=ac_range,
    )
