# SPDX-License-Identifier: Apache-2.0
"""k-means with tens of thousands of entries, in seconds on a CPU: clusters of clusters."""

from __future__ import annotations

import torch
from torch import Tensor

from potr.progress import Progress, silent

_DISTANCES_AT_ONCE = 1 << 24  # float32, 64 MiB


def palette(
    vectors: Tensor, entries: int, *, steps: int = 10, seed: int = 0, progress: Progress = silent
) -> tuple[Tensor, Tensor]:
    """About ``entries`` vectors that stand for all.

    k-means with sqrt(entries) clusters, then each cluster's vectors get their share of the entries by number, and a
    k-means of their own: sqrt(entries) times cheaper than one k-means over all, and somewhat worse.

    Args:
        vectors: [N, D] float32.
        entries: at most so many; where there are no more vectors than that, each is its own.
        steps: of either k-means.
        seed: of the vectors they start from.

    Returns:
        [K, D] the entries and [N] int64 each vector's entry.
    """
    n = len(vectors)
    if n <= entries:
        return vectors.clone(), torch.arange(n)
    generator = torch.Generator().manual_seed(seed)
    clusters = max(1, round(entries**0.5))
    _, cluster = k_means(vectors, clusters, steps, generator)
    members = torch.argsort(cluster, stable=True)
    counts = torch.bincount(cluster, minlength=clusters)
    ends = counts.cumsum(0)
    # Shares of the entries, rounded on the running sum so that they add up; a cluster keeps at least one.
    shares = torch.diff((ends * entries) // n, prepend=torch.zeros(1, dtype=torch.int64))
    while int((shared := shares.clamp_min((counts > 0).long())).sum()) > entries:
        shares[shares.argmax()] -= 1
    found, labels, first = [], torch.empty(n, dtype=torch.int64), 0
    for c, (end, count, share) in enumerate(zip(ends.tolist(), counts.tolist(), shared.tolist(), strict=True)):
        if count:
            rows = members[end - count : end]
            centers, own = k_means(vectors[rows], share, steps, generator)
            labels[rows] = own + first
            found.append(centers)
            first += len(centers)
        progress("palette", c + 1, clusters)
    return torch.cat(found), labels


def k_means(vectors: Tensor, clusters: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from ``clusters`` of the vectors: [K, D] centres, [N] int64 the nearest of each vector."""
    n = len(vectors)
    if n <= clusters:
        return vectors.clone(), torch.arange(n)
    centers = vectors[torch.randperm(n, generator=generator)[:clusters]].clone()
    for _ in range(steps):
        labels = _nearest(vectors, centers)
        sums = torch.zeros(clusters, vectors.shape[1], dtype=torch.float64).index_add_(0, labels, vectors.double())
        counts = torch.bincount(labels, minlength=clusters)
        means = (sums / counts.clamp_min(1)[:, None]).float()
        centers = torch.where((counts > 0)[:, None], means, centers)
    return centers, _nearest(vectors, centers)


def _nearest(vectors: Tensor, centers: Tensor) -> Tensor:
    half_norms = centers.square().sum(1) / 2
    rows = max(1, _DISTANCES_AT_ONCE // len(centers))
    parts = [vectors[start : start + rows] for start in range(0, len(vectors), rows)]
    return torch.cat([torch.addmm(-half_norms, part, centers.T).argmax(1) for part in parts])
