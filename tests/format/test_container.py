# SPDX-License-Identifier: Apache-2.0
"""Reader, entropy stage and container by themselves, without a model."""

import math

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from potr.errors import BitstreamError
from potr.format import container, zstd
from potr.format.container import Section, SectionId, pack, unpack
from potr.format.zstd import Coder, CodingError
from potr.reader import Reader


def test_reader_reads_little_endian_and_stops_at_the_end():
    reader = Reader(bytes([1, 2, 0, 3, 0, 0, 0]) + np.array([1.5], "<f4").tobytes(), "model", 100)
    assert (reader.u8(), reader.u16(), reader.u32(), reader.f32()) == (1, 2, 3, 1.5)
    reader.finish()
    with pytest.raises(BitstreamError) as caught:
        reader.u64()
    assert (caught.value.section, caught.value.offset) == ("model", 111)
    assert caught.value.reason == "expected 8 more bytes, got 0"


def test_reader_of_raw_bytes_points_at_the_section_and_names_the_raw_byte():
    reader = Reader(b"\0\0\1\0", "model", 100, raw=True)
    reader.u8()
    with pytest.raises(BitstreamError) as caught:
        reader.zeros(3)
    assert caught.value.offset == 100
    assert caught.value.reason == "expected 3 reserved zero bytes (byte 1 of the raw section)"


def test_reader_arrays_are_native_and_writable():
    values = Reader(np.array([1.0, math.pi], "<f8").tobytes(), "model", 0).array("<f8", 2)
    values += 1
    assert values.tolist() == [2.0, math.pi + 1]
    assert values.dtype.isnative


@given(raw=st.binary(max_size=3000), level=st.sampled_from([1, 3, 19, 22]), data=st.data())
@settings(deadline=None)
def test_entropy_round_trip_is_never_larger_and_does_not_depend_on_splits(raw, level, data):
    splits = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))
    coder, coded = zstd.encode(raw, level, splits)
    assert len(coded) <= len(raw)
    assert zstd.decode(coder, coded, len(raw)) == raw
    assert zstd.encode(raw, level, splits) == (coder, coded)


def test_blocks_that_end_with_the_statistics_are_smaller():
    rng = np.random.default_rng(0)
    parts = [rng.integers(low, low + 4, 6000).astype(np.uint8).tobytes() for low in (0, 100)]
    _, plain = zstd.encode(b"".join(parts), 3)
    _, split = zstd.encode(b"".join(parts), 3, [6000])
    assert len(split) < len(plain)
    assert zstd.decode(Coder.ZSTD, split, 12000) == b"".join(parts)


def test_incompressible_bytes_are_stored():
    raw = np.random.default_rng(1).bytes(500)
    assert zstd.encode(raw, 22) == (Coder.STORED, raw)
    with pytest.raises(CodingError, match="stored bytes: expected 499, got 500"):
        zstd.decode(Coder.STORED, raw, 499)


@pytest.mark.parametrize("after", [b"", b"anything"])
def test_an_empty_section_is_stored_or_refused(after):
    assert zstd.encode(b"", 3) == (Coder.STORED, b"")
    frame = zstandard.ZstdCompressor(write_content_size=True).compress(b"")
    with pytest.raises(CodingError, match="expected an empty section to be stored"):
        zstd.decode(Coder.ZSTD, frame + after, 0)


def some_sections():
    rng = np.random.default_rng(2)
    return [
        Section(SectionId.OPACITY, bytes(3000), 1),
        Section(SectionId.MODEL, rng.bytes(50)),
        Section(SectionId.OCTREE_NODES, rng.integers(0, 5, 9000).astype(np.uint8).tobytes(), 0, (2500, 5000)),
    ]


def test_sections_come_back_in_order_of_id():
    data = pack(some_sections(), 9)
    bitstream = unpack(data)
    assert bitstream.size == len(data)
    assert [s.id for s in bitstream.sections] == [SectionId.MODEL, SectionId.OCTREE_NODES, SectionId.OPACITY]
    for section in some_sections():
        decoded = bitstream.find(section.id).decode(len(section.raw), len(section.raw))
        assert (decoded.raw, decoded.layout) == (section.raw, section.layout)
    with pytest.raises(BitstreamError, match=r"expected a section 'sh_ac\.gaps', found none"):
        bitstream.find(SectionId.SH_AC_GAPS)


def test_a_size_out_of_range_is_refused_before_decoding():
    nodes = unpack(pack(some_sections(), 9)).find(SectionId.OCTREE_NODES)
    assert len(nodes.decode(0, 9000).raw) == 9000
    with pytest.raises(BitstreamError, match="expected a raw size of 0 to 8999 bytes, got 9000"):
        nodes.decode(0, 8999)


def test_packing_is_deterministic_whatever_the_threads(monkeypatch):
    data = pack(some_sections(), 19)
    for threads in (1, 3):
        monkeypatch.setattr(container, "_THREADS", threads)
        assert pack(some_sections(), 19) == data


def test_a_smallest_size_is_reached_by_storing():
    small = pack(some_sections(), 19)
    padded = pack(some_sections(), 19, smallest_size=len(small) + 2000)
    assert len(small) + 2000 <= len(padded)
    coders = {s.id: s.coder for s in unpack(padded).sections}
    assert coders[SectionId.OCTREE_NODES] is Coder.STORED  # gained most
    assert coders[SectionId.OPACITY] is Coder.ZSTD


def test_a_section_twice_is_a_programming_error():
    with pytest.raises(ValueError, match="expected every section at most once"):
        pack([*some_sections(), Section(SectionId.MODEL, b"")], 1)
