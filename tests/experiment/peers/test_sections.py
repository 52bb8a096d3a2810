# SPDX-License-Identifier: Apache-2.0
"""The peers' container: what goes in comes out, and nothing else does."""

import io
import itertools
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from potr.errors import BitstreamError
from potr.experiment.peers import minmax
from potr.experiment.peers.minmax import MinMax, block_edges, dequantize_blocks, quantize_blocks
from potr.experiment.peers.sections import from_planes, pack, planes, unpack

NAMES = ("a", "b")


def test_round_trip() -> None:
    data, sizes = pack({"a": b"x" * 100, "b": b""}, 10)
    sections = unpack(NAMES, data)
    assert sections["a"].decode(100) == b"x" * 100
    assert sections["b"].decode(0) == b""
    assert set(sizes) == set(NAMES)
    assert 0 < sizes["a"] < 100
    assert data == pack({"a": b"x" * 100, "b": b""}, 10)[0]  # no date, no name of a machine


def test_sizes_out_of_range_are_refused_before_inflating() -> None:
    section = unpack(NAMES, pack({"a": b"x" * 100, "b": b""}, 10)[0])["a"]
    for smallest, largest in ((99, 99), (101, 200)):
        with pytest.raises(BitstreamError, match="expected a raw size"):
            section.decode(smallest, largest)


def test_improbably_many_splats_are_stored_at_length() -> None:
    data, _ = pack({"a": bytes(100000), "b": b""}, 100000)
    assert len(data) >= 100000 - 64
    assert unpack(NAMES, data)["a"].decode(100000) == bytes(100000)


@pytest.mark.parametrize("claimed", [999, 1001, 1 << 31])
def test_streams_that_are_not_what_they_say(claimed: int) -> None:
    """A stream of 1,000 bytes, and a directory that says otherwise: nothing more than it says is inflated."""
    data, _ = pack({"a": bytes(1000), "b": b""}, 1)
    place = data.index(b"PK\1\2") + 24
    section = unpack(NAMES, data[:place] + struct.pack("<I", claimed) + data[place + 4 :])["a"]
    tracemalloc.start()
    with pytest.raises(BitstreamError):
        section.decode(claimed)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_streams_that_inflate_within_bounds(method: int) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in NAMES:
            archive.writestr(name, bytes(1000))
    with pytest.raises(BitstreamError, match="expected a stored or a deflated stream"):
        unpack(NAMES, file.getvalue())


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c"), ("b", "a"), ("a", "a")])
def test_other_sections_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(BitstreamError, match="expected sections"):
        unpack(names, pack({"a": b"1", "b": b"2"}, 1)[0])


def test_every_cut_is_noticed_and_no_flip_of_a_bit_changes_a_section() -> None:
    raw = {"a": b"abcabc", "b": b"1"}
    data, _ = pack(raw, 1)
    for size in range(len(data)):
        with pytest.raises(BitstreamError):
            unpack(NAMES, data[:size])
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            sections = unpack(NAMES, bytes(changed))
            assert {name: sections[name].decode(len(raw[name])) for name in NAMES} == raw
        except BitstreamError:
            pass


@pytest.mark.parametrize(
    ("dtype", "shape"), [("<u1", (5,)), ("<u2", (4, 3)), ("<f2", (3, 2)), ("<f4", (2, 2, 3)), ("<u2", (0, 3))]
)
def test_planes_round_trip(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    assert np.array_equal(from_planes(planes(array), dtype, *shape), array)


def test_planes_put_alike_bytes_together() -> None:
    assert planes(np.array([[0x0102, 0x0304], [0x0506, 0x0708]], "<u2")) == bytes([2, 6, 1, 5, 4, 8, 3, 7])


def test_minmax_hits_both_ends_and_half_a_step_between() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    levels = MinMax.of(values)
    back = levels.dequantize(levels.quantize(values))
    assert np.abs(back - values).max() <= (levels.high - levels.low) / 255 / 2 * 1.001
    assert levels.quantize(np.array([levels.low, levels.high])).tolist() == [0, 255]
    assert levels.quantize(values).dtype == np.uint8
    constant = MinMax.of(np.full(3, 0.25))
    assert constant.dequantize(constant.quantize(np.full(3, 0.25))).tolist() == [0.25] * 3


@pytest.mark.parametrize(("n", "blocks"), [(0, 4), (1, 4), (3, 4), (4, 4), (103, 4), (10, 1)])
def test_blocks_have_ranges_of_their_own(n: int, blocks: int) -> None:
    values = np.random.default_rng(n).normal(size=(n, 2)) * np.linspace(1, 100, n)[:, None]
    levels, ranges = quantize_blocks(values, blocks, 256)
    edges = block_edges(n, blocks)
    assert len(ranges) == len(edges) - 1 == min(n, blocks)
    back = dequantize_blocks(levels, ranges, 256)
    for block, (start, end) in enumerate(itertools.pairwise(edges)):
        step = (ranges[block, 1] - ranges[block, 0]) / 255
        assert np.all(np.abs(back[start:end] - values[start:end]) <= step / 2 * 1.001 + 1e-5)


@pytest.mark.parametrize("levels", [2, 255, 256, 1 << 16])
@pytest.mark.parametrize("shape", [(1000,), (333, 15, 3), (333, 0, 3), (0, 3)])
def test_quantisation_in_parts_gives_the_levels_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], levels: int
) -> None:
    monkeypatch.setattr(minmax, "_CHUNK", 100)
    values = np.random.default_rng(levels).normal(size=shape).astype(np.float32)
    found = MinMax.of(values, levels)
    spread = found.high - found.low
    scaled = (values.astype(np.float64) - found.low) * ((levels - 1) / spread if spread > 0 else 0.0)
    whole = np.clip(np.rint(scaled), 0, levels - 1).astype(np.int64)
    indices = found.quantize(values)
    assert indices.dtype == (np.uint8 if levels <= 256 else np.uint16)
    np.testing.assert_array_equal(indices, whole)
    back = found.dequantize_clipped(indices, 1.5)
    np.testing.assert_array_equal(back, found.dequantize(whole).clip(-1.5, 1.5).astype(np.float32))


def test_quantisation_never_holds_all_values_as_float64() -> None:
    values = np.random.default_rng(0).normal(size=(200_000, 15, 3)).astype(np.float32)
    found = MinMax.of(values)
    tracemalloc.start()
    indices = found.quantize(values)
    _, quantizing = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    found.dequantize_clipped(indices, 1e3)
    _, dequantizing = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    parts = 8 * 4 * (1 << 20)  # float64, a few at a time
    assert quantizing < indices.nbytes + parts
    assert dequantizing - before < values.nbytes + parts
