# SPDX-License-Identifier: Apache-2.0
"""Weighted vector quantisation: mini-batch k-means with a moving average, then a few exact steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from potr.progress import Progress, silent

_DISTANCES_AT_ONCE = 1 << 24  # float32, 64 MiB
_VECTORS_AT_ONCE = 1 << 18  # in float64, 100 MiB of SH coefficients


@dataclass(frozen=True)
class KMeans:
    """How the codebook is found (Niedermayr et al. 2024, section on sensitivity-aware clustering).

    Attributes:
        size: entries of the codebook at most.
        steps: mini-batch steps.
        batch_size: vectors drawn per step, with replacement.
        decay: share of its old place that an entry keeps per step.
        final_steps: Lloyd steps over all vectors at the end.
        seed: of the draws.
    """

    size: int
    steps: int = 100
    batch_size: int = 1 << 14
    decay: float = 0.8
    final_steps: int = 2
    seed: int = 0


def vector_quantize(
    vectors: Tensor, weights: Tensor, config: KMeans, *, stage: str = "clustering", progress: Progress = silent
) -> tuple[Tensor, Tensor]:
    """A codebook that makes the weighted squared error sum_i w_i |x_i - c_i|^2 small.

    A vector's weight does not move its nearest entry, it moves the entries towards the vector.

    Args:
        vectors: [N, D] float32.
        weights: [N], not negative.
        config: sizes and steps.

    Returns:
        The codebook [K, D] float32 and each vector's entry [N] int64; K <= config.size, no entry is without vectors.
    """
    n, size = len(vectors), min(config.size, len(vectors))
    if n <= config.size:
        return vectors.clone(), torch.arange(n)
    generator = torch.Generator().manual_seed(config.seed)
    codebook = vectors[torch.randperm(n, generator=generator)[:size]].clone()
    weights = weights.double() / max(float(weights.double().mean()), 1e-300)
    weights = weights.clamp_min(1e-9)  # vectors that nobody sees still have a mean
    total = config.steps + config.final_steps
    for step in range(config.steps):
        drawn = torch.randint(n, (config.batch_size,), generator=generator)
        batch = vectors[drawn]
        means, found = weighted_means(batch, weights[drawn], nearest(batch, codebook), codebook)
        codebook = torch.where(found[:, None], torch.lerp(means, codebook, config.decay), codebook)
        progress.stage(stage)(step + 1, total)
    indices = nearest(vectors, codebook)
    for step in range(config.final_steps):
        codebook, _ = weighted_means(vectors, weights, indices, codebook)
        indices = nearest(vectors, codebook)
        progress.stage(stage)(config.steps + step + 1, total)
    used, indices = torch.unique(indices, return_inverse=True)
    return codebook[used], indices


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """[N] int64 index of the nearest codebook entry [K, D] of each vector [N, D]; the first of equals."""
    rows = max(1, _DISTANCES_AT_ONCE // len(codebook))
    minus_half_norms = codebook.square().sum(1) / -2
    transposed = codebook.T.contiguous()
    indices = torch.empty(len(vectors), dtype=torch.int64)
    brackets = torch.empty(min(rows, len(vectors)), len(codebook))
    for start in range(0, len(vectors), rows):
        part = vectors[start : start + rows]
        # |x - c|^2 = |x|^2 - 2 (x c - |c|^2 / 2): the nearest has the largest bracket
        found = torch.addmm(minus_half_norms, part, transposed, out=brackets[: len(part)])
        indices[start : start + rows] = torch.from_numpy(found.numpy().argmax(1))  # many times torch's own speed
    return indices


def weighted_means(vectors: Tensor, weights: Tensor, indices: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted mean of each entry's vectors [K, D], the entry itself where there are none, and [K] where there are.

    Sums are float64 and in order, so they do not depend on the number of threads.
    """
    sums = torch.zeros(codebook.shape, dtype=torch.float64)
    for start in range(0, len(vectors), _VECTORS_AT_ONCE):
        part = slice(start, start + _VECTORS_AT_ONCE)
        sums.index_add_(0, indices[part], vectors[part].double() * weights[part, None])
    mass = torch.zeros(len(codebook), dtype=torch.float64).index_add_(0, indices, weights)
    found = mass > 0
    means = sums / torch.where(found, mass, 1.0)[:, None]
    return torch.where(found[:, None], means.float(), codebook), found
