# SPDX-License-Identifier: Apache-2.0
"""Weighted vector quantisation against brute force, and by its laws."""

import torch

from potr.experiment.peers.kmeans import KMeans, nearest, vector_quantize, weighted_means


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_nearest_is_the_nearest() -> None:
    vectors, codebook = normal(500, 5), normal(17, 5, seed=1)
    assert torch.equal(nearest(vectors, codebook), torch.cdist(vectors.double(), codebook.double()).argmin(1))


def test_nearest_in_parts_is_the_same(monkeypatch) -> None:
    vectors, codebook = normal(101, 5), normal(7, 5, seed=1)
    whole = nearest(vectors, codebook)
    monkeypatch.setattr("potr.experiment.peers.kmeans._DISTANCES_AT_ONCE", 7 * 10)
    assert torch.equal(nearest(vectors, codebook), whole)
    assert len(nearest(vectors[:0], codebook)) == 0


def test_weighted_means_by_loop(monkeypatch) -> None:
    monkeypatch.setattr("potr.experiment.peers.kmeans._VECTORS_AT_ONCE", 7)
    vectors, weights, indices = normal(30, 4), torch.rand(30).double(), torch.arange(30) % 5
    codebook = normal(6, 4, seed=2)
    means, found = weighted_means(vectors, weights, indices, codebook)
    for k in range(5):
        w = weights[indices == k]
        expected = (w[:, None] * vectors[indices == k]).sum(0) / w.sum()
        torch.testing.assert_close(means[k], expected.float())
    assert torch.equal(means[5], codebook[5])
    assert found.tolist() == [True] * 5 + [False]


def test_finds_clusters_and_heeds_weights() -> None:
    centers = torch.tensor([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    vectors = centers.repeat(200, 1) + 0.1 * normal(800, 2)
    codebook, indices = vector_quantize(vectors, torch.ones(800), KMeans(16, steps=40, batch_size=256))
    assert float((vectors - codebook[indices]).square().mean()) < 0.01
    # one vector outweighs all others: with a single entry the codebook is that vector
    weights = torch.ones(800)
    weights[3] = 1e9
    codebook, _ = vector_quantize(vectors, weights, KMeans(1, steps=10, batch_size=256))
    torch.testing.assert_close(codebook[0], vectors[3], atol=1e-3, rtol=0)


def test_no_more_vectors_than_entries_are_kept_as_they_are() -> None:
    vectors = normal(5, 3)
    codebook, indices = vector_quantize(vectors, torch.zeros(5), KMeans(5))
    assert torch.equal(codebook[indices], vectors)


def test_every_entry_is_used_and_zero_weights_do_no_harm() -> None:
    vectors = normal(300, 3)
    codebook, indices = vector_quantize(vectors, torch.zeros(300), KMeans(32, steps=5, batch_size=64))
    assert torch.isfinite(codebook).all()
    assert indices.unique().tolist() == list(range(len(codebook)))


def test_larger_codebooks_are_closer() -> None:
    vectors = normal(2000, 6)
    errors = []
    for size in (8, 64, 512):
        codebook, indices = vector_quantize(vectors, torch.ones(2000), KMeans(size, steps=20, batch_size=1024))
        errors.append(float((vectors - codebook[indices]).square().mean()))
    assert errors[0] > errors[1] > errors[2]


def test_same_seed_same_result_and_the_global_one_is_left_alone() -> None:
    vectors = normal(1000, 4)
    state = torch.get_rng_state()
    first = vector_quantize(vectors, torch.ones(1000), KMeans(20, steps=10, batch_size=128, seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        second = vector_quantize(vectors, torch.ones(1000), KMeans(20, steps=10, batch_size=128, seed=3))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
