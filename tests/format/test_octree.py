# SPDX-License-Identifier: Apache-2.0
"""Laws of the octree coder, and its slow twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potr.errors import BitstreamError, ModelError
from potr.format.octree import OctreeStreams, decode_octree, encode_octree, order_leaves
from potr.format.quantized import MAX_DEPTH
from tests.helpers import octree_twin


@st.composite
def clouds(draw):
    """(cells, required depths, max depth): clustered, with duplicates, up to 40 splats."""
    max_depth = draw(st.sampled_from([0, 1, 3, 8, MAX_DEPTH]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(0, 40))
    spread = 2.0 ** -draw(st.integers(0, 12))
    points = np.clip(rng.random((1, 3)) + spread * rng.normal(size=(n, 3)), 0, 1 - 2**-30)
    cells = np.floor(points * 2**max_depth).astype(np.uint32)
    if n:
        cells = cells[rng.integers(0, n, n)]
    return cells, rng.integers(0, max_depth + 1, n).astype(np.uint8), max_depth


def leaf_cells(cells, order, depths, max_depth):
    return np.ascontiguousarray(cells[order] >> (max_depth - depths.astype(np.uint32))[:, None])


@given(clouds())
@settings(max_examples=150, deadline=None)
def test_native_coder_equals_its_twin_and_round_trips(cloud):
    cells, required, max_depth = cloud
    order, depths = order_leaves(cells, required, max_depth)
    expected_order, expected_depths = octree_twin.order_leaves(cells, required, max_depth)
    np.testing.assert_array_equal(order, expected_order)
    np.testing.assert_array_equal(depths, expected_depths)

    leaves = leaf_cells(cells, order, depths, max_depth)
    streams = encode_octree(leaves, depths)
    assert streams == octree_twin.encode_octree(leaves, depths)

    for decode in (decode_octree, octree_twin.decode_octree):
        decoded, decoded_depths = decode(streams, len(cells))
        np.testing.assert_array_equal(decoded, leaves)
        np.testing.assert_array_equal(decoded_depths, depths)
        assert decoded.dtype == np.uint32
        assert decoded_depths.dtype == np.uint8


@given(clouds())
@settings(max_examples=60, deadline=None)
def test_leaves_are_deep_enough_disjoint_and_no_deeper_than_needed(cloud):
    cells, required, max_depth = cloud
    order, depths = order_leaves(cells, required, max_depth)
    assert sorted(order.tolist()) == list(range(len(cells)))
    assert np.all(depths >= required[order])
    leaves = list(zip(leaf_cells(cells, order, depths, max_depth).tolist(), depths.tolist(), strict=True))
    for i, (cell, depth) in enumerate(leaves):
        inside = [
            j
            for j, (other, deep) in enumerate(leaves)
            if deep >= depth and [c >> (deep - depth) for c in other] == cell
        ]
        assert all(leaves[j] == leaves[i] for j in inside)
        if depth:
            parent = [c >> 1 for c in cell]
            family = [
                required[order[j]]
                for j, (other, deep) in enumerate(leaves)
                if deep >= depth and [c >> (deep - depth + 1) for c in other] == parent
            ]
            assert max(family) >= depth  # else the parent would have been the leaf


def test_both_ends_of_the_range_survive_at_the_greatest_depth():
    top = 2**MAX_DEPTH - 1
    corners = np.array([[x, y, z] for x in (0, top) for y in (0, top) for z in (0, top)], np.uint32)
    depths = np.full(8, MAX_DEPTH, np.uint8)
    decoded, _ = decode_octree(encode_octree(corners, depths), 8)
    np.testing.assert_array_equal(decoded, corners)


def test_neighbors_at_the_greatest_depth_stay_apart():
    cells = np.array([[5, 5, 4], [5, 5, 5]], np.uint32)
    streams = encode_octree(cells, np.full(2, MAX_DEPTH, np.uint8))
    assert len(streams.nodes) == MAX_DEPTH + 2  # a chain down to the last level, then two tails
    np.testing.assert_array_equal(decode_octree(streams, 2)[0], cells)


def test_many_splats_of_one_leaf_share_it():
    cells, depths = np.full((1000, 3), 3, np.uint32), np.full(1000, 2, np.uint8)
    streams = encode_octree(cells, depths)
    assert (streams.nodes, streams.tail_depths, streams.counts) == (b"\0", b"\2", b"\xe7\x07")
    np.testing.assert_array_equal(decode_octree(streams, 1000)[0], cells)


@pytest.mark.parametrize(
    ("cells", "depths", "message"),
    [
        ([[0, 0, 4]], [2], "splat 0: expected cell coordinates below 2\\^2"),
        ([[0, 0, 0]], [22], "splat 0: expected a depth of at most 21"),
        ([[0, 0, 1], [0, 0, 0]], [1, 1], "splat 1: expected depth-first order"),
        ([[0, 0, 0], [0, 0, 1]], [0, 1], "splat 1: expected depth-first order and no cell inside another"),
        ([[0, 0, 0], [0, 0, 0]], [2, 1], "splat 1: expected depth-first order and no cell inside another"),
    ],
)
def test_encoder_refuses_what_is_no_octree(cells, depths, message):
    with pytest.raises(ModelError, match=message):
        encode_octree(np.array(cells, np.uint32), np.array(depths, np.uint8))


def test_shapes_and_types_are_checked():
    cells, depths = np.zeros((2, 3), np.uint32), np.zeros(2, np.uint8)
    with pytest.raises(ModelError, match=r"cells: expected \[N, 3\] uint32, got \[2, 3\] int64"):
        encode_octree(cells.astype(np.int64), depths)
    with pytest.raises(ModelError, match=r"depths: expected \[2\] uint8, got \[3\] uint8"):
        order_leaves(cells, np.zeros(3, np.uint8), 5)
    with pytest.raises(ModelError, match="splat 1: expected a required depth of at most 5"):
        order_leaves(cells, np.array([0, 6], np.uint8), 5)
    with pytest.raises(ModelError, match=r"max_depth: expected 0\.\.21, got 22"):
        order_leaves(cells, depths, 22)


GOOD = OctreeStreams(bytes([0b101, 0, 0]), bytes([1, 0]), bytes([0b11100000]), bytes([0, 1]))


@pytest.mark.parametrize(
    ("changed", "section", "offset"),
    [
        ({"nodes": bytes([0b101, 0])}, "nodes", 2),
        ({"nodes": bytes([0b101, 0, 0, 0])}, "nodes", 3),
        ({"nodes": b""}, "tail_depths", 0),
        ({"nodes": bytes([0b1, 0])}, "tail_depths", 1),
        ({"nodes": bytes([0b1, 0]), "tail_depths": b"\1", "counts": b"\2"}, "nodes", 0),  # a tail written the long way
        ({"nodes": bytes([1] * 22)}, "nodes", 21),
        ({"tail_depths": bytes([1])}, "tail_depths", 1),
        ({"tail_depths": bytes([1, 0, 0])}, "tail_depths", 2),
        ({"tail_depths": bytes([21, 0])}, "tail_depths", 0),
        ({"tail_bits": b""}, "tail_bits", 0),
        ({"tail_bits": bytes([0b11100000, 0])}, "tail_bits", 1),
        ({"tail_bits": bytes([0b11100001])}, "tail_bits", 0),
        ({"counts": bytes([0])}, "counts", 1),
        ({"counts": bytes([0, 0])}, "counts", 2),
        ({"counts": bytes([0, 2])}, "counts", 1),
        ({"counts": bytes([0, 1, 0])}, "counts", 2),
        ({"counts": bytes([0, 0x81, 0])}, "counts", 1),
        ({"counts": bytes([0, 255, 255, 255, 255, 255, 1])}, "counts", 1),
    ],
)
def test_decoder_names_stream_and_offset(changed, section, offset):
    assert decode_octree(GOOD, 3)[1].tolist() == [2, 1, 1]
    with pytest.raises(BitstreamError) as caught:
        decode_octree(GOOD._replace(**changed), 3)
    assert (caught.value.section, caught.value.offset) == (section, offset), caught.value


def test_random_streams_decode_to_nothing_or_to_their_own_encoding():
    rng = np.random.default_rng(5)
    cells = np.sort(rng.integers(0, 64, (30, 1)), axis=0).repeat(3, 1).astype(np.uint32)
    valid = encode_octree(cells, np.full(30, 6, np.uint8))
    accepted = 0
    for _ in range(4000):
        streams = [bytearray(s) for s in valid]
        for _ in range(rng.integers(1, 3)):
            stream = streams[rng.integers(4)]
            stream[rng.integers(len(stream))] ^= 1 << rng.integers(8)
        changed = OctreeStreams(*map(bytes, streams))
        try:
            decoded = decode_octree(changed, 30)
        except BitstreamError:
            continue
        accepted += 1
        assert encode_octree(*decoded) == changed
    assert accepted > 20  # the check above has been made
