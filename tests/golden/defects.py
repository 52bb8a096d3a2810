# SPDX-License-Identifier: Apache-2.0
"""Every way in which a file can be wrong, with checksums that hold: each lie reaches the layer it is meant for."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zstandard

from potr.format.bitstream import pack_model
from tests.golden.cases import ZSTD_LEVEL
from tests.helpers.forge import Forge, zstd_zeros
from tests.helpers.quantized_models import random_quantized

MODEL, NODES, TAIL_DEPTHS, TAIL_BITS, COUNTS, OPACITY, SCALES, ROTATION, SH_DC = 1, 2, 3, 4, 5, 6, 7, 10, 13
AC_COUNTS, AC_GAPS, AC_VALUES = 16, 17, 18
BOMB = 1 << 28  # bytes

Damage = Callable[[Forge], bytes | None]  # returns the bytes, or changes the Forge


@dataclass(frozen=True)
class Defect:
    """What is wrong with a file, and the section and words (a regular expression) of its refusal."""

    name: str
    section: str
    reason: str
    damage: Damage
    base: Callable[[], bytes] | None = None  # None: base_file

    def make(self) -> bytes:
        file = Forge((self.base or base_file)())
        data = self.damage(file)
        return bytes(file) if data is None else data


def base_file() -> bytes:
    """What the defects are applied to: 12 splats of degree 1."""
    return pack_model(random_quantized(1, 12, 1), ZSTD_LEVEL)


def _cut(size: int) -> Damage:
    return lambda f: bytes(f)[:size]


def _flip(offset: int) -> Damage:
    def damage(f: Forge) -> bytes:
        data = bytearray(bytes(f))
        data[offset] ^= 1
        return bytes(data)

    return damage


def _header(**fields: Any) -> Damage:
    return lambda f: f.__dict__.update(fields)


def _entry(number: int, **fields: Any) -> Damage:
    return lambda f: f.entry(number).__dict__.update(fields)


def _patch(number: int, offset: int, layout: str, value: float) -> Damage:
    return lambda f: f.patch(number, offset, layout, value)


def _raw(number: int, change: Callable[[bytes], bytes]) -> Damage:
    return lambda f: f.set_raw(number, change(f.raw(number)))


def _first(number: int, *values: int) -> Damage:
    """Other first bytes."""
    return _raw(number, lambda raw: bytes(values) + raw[len(values) :])


def _longer(number: int) -> Damage:
    return _raw(number, lambda raw: raw + b"\0")


def _shorter(number: int) -> Damage:
    return _raw(number, lambda raw: raw[:-1])


def _wide(number: int) -> Damage:
    """All symbols at their greatest, four bytes each."""

    def damage(f: Forge) -> None:
        f.set_raw(number, b"\xff" * 4 * len(f.raw(number)))
        f.entry(number).layout = 4

    return damage


def _coded(number: int, change: Callable[[bytes], bytes], raw_size: int | None = None) -> Damage:
    """A zstd section made from the raw bytes; its raw size stays true unless given."""
    return lambda f: f.set_coded(number, change(f.raw(number)), len(f.raw(number)) if raw_size is None else raw_size)


def _frame(raw: bytes, descriptor: bytes) -> bytes:
    """A hand-made frame with a 4-byte content size and one raw block."""
    block = struct.pack("<I", len(raw) << 3 | 1)[:3] + raw
    return b"\x28\xb5\x2f\xfd" + descriptor + struct.pack("<I", len(raw)) + block


def _zstd(raw: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(raw)


def _octree(nodes: bytes, tail_depths: bytes, tail_bits: bytes, counts: bytes) -> Damage:
    def damage(f: Forge) -> None:
        for number, raw in zip(
            (NODES, TAIL_DEPTHS, TAIL_BITS, COUNTS), (nodes, tail_depths, tail_bits, counts), strict=True
        ):
            f.set_raw(number, raw)

    return damage


def _swap(f: Forge) -> None:
    f.entries[5], f.entries[6] = f.entries[6], f.entries[5]


def _degree_0(f: Forge) -> None:
    raw = f.raw(MODEL)
    f.set_raw(MODEL, raw[:8] + b"\0" + raw[9 : 72 + 12] + raw[72 + 48 :])


DEFECTS = (
    # header
    Defect("empty_file", "header", "expected 8 more bytes, got 0", _cut(0)),
    Defect("cut_in_header", "header", "expected 4 more bytes", _cut(30)),
    Defect("bad_magic", "header", "magic", _header(magic=b"\x89PNG\r\n\x1a\n")),
    Defect("text_mode_copy", "header", "magic", _header(magic=b"\x89POTR\n\x1a\0")),
    Defect("future_version", "header", "format version 1 or 3, got 4", _header(version=4)),
    Defect(
        "version_2", "header", "version 2 is of a development version .* encode the model again", _header(version=2)
    ),
    Defect("version_0", "header", "format version 1 or 3, got 0", _header(version=0)),
    Defect("unknown_flag", "header", "no flags, got 0x0100", _header(flags=256)),
    Defect("header_checksum", "header", "checksum", _flip(29)),
    Defect("too_many_sections", "header", "at most 18 sections, got 4294967295", _header(count=0xFFFFFFFF)),
    Defect("size_too_large", "header", "a file of 18446744073709551615 bytes", _header(size=2**64 - 1)),
    Defect("size_too_small", "header", "expected a file of 40 bytes", _header(size=40)),
    # table
    Defect("cut_in_table", "header", "expected a file of", _cut(100)),
    Defect("table_checksum", "table", "checksum", _flip(40)),
    Defect("unknown_section", "table", "unknown section id 19", _entry(AC_VALUES, id=19)),
    Defect("section_0", "table", "unknown section id 0", _entry(MODEL, id=0)),
    Defect("repeated_section", "table", "ascending section ids, got 6 after 6", _entry(SCALES, id=OPACITY)),
    Defect("sections_out_of_order", "table", "ascending section ids, got 6 after 7", _swap),
    Defect("unknown_coder", "table", "unknown coder id 2", _entry(OPACITY, coder=2)),
    Defect("reserved_byte", "table", "reserved zero byte, got 1", _entry(OPACITY, reserved=1)),
    Defect("section_checksum", "sh_ac.values", "checksum", _flip(-1)),
    Defect("section_beyond_the_end", "payload", "expected 9223372036854775808", _entry(COUNTS, coded_size=2**63)),
    Defect("trailing_bytes", "payload", "expected the end, got 3 more", _header(trailing=b"xyz")),
    Defect("no_sections", "table", "expected a section 'model'", _header(entries=[])),
    Defect("missing_model", "table", "expected a section 'model'", lambda f: f.entries.pop(0) and None),
    Defect("missing_section", "table", "a section 'rotation.x'", lambda f: f.entries.remove(f.entry(ROTATION))),
    Defect("missing_ac", "table", "a section 'sh_ac.gaps'", lambda f: f.entries.remove(f.entry(AC_GAPS))),
    # entropy stage
    Defect(
        "raw_size_bomb",
        "log_scales.0",
        "expected a raw size of .* got 268435456",
        _coded(SCALES, lambda _: zstd_zeros(BOMB), BOMB),
    ),
    Defect(
        "model_bomb", "model", "raw size of 72 to .* got 268435456", _coded(MODEL, lambda _: zstd_zeros(BOMB), BOMB)
    ),
    Defect("frame_bomb", "opacity", "content size of 12, got 268435456", _coded(OPACITY, lambda _: zstd_zeros(BOMB))),
    Defect("lying_bomb", "opacity", "zstd frame", _coded(OPACITY, lambda raw: zstd_zeros(BOMB, content_size=len(raw)))),
    Defect("unclaimed_bomb", "opacity", "no content size", _coded(OPACITY, lambda _: zstd_zeros(BOMB, claim=False))),
    Defect("no_content_size", "opacity", "no content size", _coded(OPACITY, lambda _: zstd_zeros(12, claim=False))),
    Defect(
        "huge_window",
        "opacity",
        "window of at most 134217728 bytes, got 2147483648",
        _coded(OPACITY, lambda raw: _frame(raw, b"\x80\xa8")),
    ),
    Defect("dictionary", "opacity", "no dictionary, got id 7", _coded(OPACITY, lambda raw: _frame(raw, b"\xa1\x07"))),
    Defect(
        "skippable_frame", "opacity", "magic number", _coded(OPACITY, lambda raw: b"\x50\x2a\x4d\x18\x0c\0\0\0" + raw)
    ),
    Defect("two_frames", "opacity", "zstd frame", _coded(OPACITY, lambda raw: _zstd(raw) + _zstd(b""))),
    Defect("cut_frame", "opacity", "zstd frame", _coded(OPACITY, lambda raw: _zstd(raw)[:-1])),
    Defect("no_frame", "opacity", "magic number", _coded(OPACITY, lambda raw: raw)),
    Defect("empty_frame", "opacity", "magic number", _coded(OPACITY, lambda _: b"")),
    Defect("stored_size", "opacity", "stored bytes: expected 12, got 11", _entry(OPACITY, coder=0, coded=bytes(11))),
    # model
    Defect("model_layout", "model", "layout 0, got 1", _entry(MODEL, layout=1)),
    Defect("too_many_splats", "model", "at most 134217728 splats, got 134217729", _patch(MODEL, 0, "I", 2**27 + 1)),
    Defect("improbable_splats", "model", "100000 splats in a file of", _patch(MODEL, 0, "I", 100_000)),
    Defect("more_splats_than_coded", "octree.counts", "splats are in no leaf", _patch(MODEL, 0, "I", 60_000)),
    Defect("fewer_splats_than_coded", "octree.nodes", "expected a raw size of", _patch(MODEL, 0, "I", 1)),
    Defect("no_splats_but_sections", "octree.nodes", "expected a raw size of 0 bytes", _patch(MODEL, 0, "I", 0)),
    Defect("too_many_opacity_levels", "model", "at most 65536 opacity levels", _patch(MODEL, 4, "I", 2**32 - 1)),
    Defect("model_too_short", "model", "expected 40000 more bytes", _patch(MODEL, 4, "I", 10_000)),
    Defect("model_too_long", "model", "expected the end, got 4 more", _patch(MODEL, 4, "I", 21)),
    Defect("degree_4", "model", "SH degree of 0 to 3, got 4", _patch(MODEL, 8, "B", 4)),
    Defect("another_degree", "model", "more bytes", _patch(MODEL, 8, "B", 2)),
    Defect("model_reserved", "model", "reserved zero bytes", _patch(MODEL, 9, "B", 1)),
    Defect("model_reserved_2", "model", "reserved zero bytes", _patch(MODEL, 68, "B", 1)),
    Defect("origin_nan", "model", "origin: expected finite", _patch(MODEL, 16, "d", math.nan)),
    Defect("extent_0", "model", "extent: expected positive", _patch(MODEL, 40, "d", 0.0)),
    Defect("extent_infinite", "model", "extent: expected finite", _patch(MODEL, 40, "d", math.inf)),
    Defect("opacity_boost_nan", "model", "reserved: expected a finite value", _patch(MODEL, 48, "d", math.nan)),
    Defect("scale_origin_huge", "model", "scale_origin: expected finite", _patch(MODEL, 56, "f", 1e30)),
    Defect("scale_step_negative", "model", "scale_step: expected positive", _patch(MODEL, 60, "f", -0.1)),
    Defect("rotation_step_nan", "model", "rotation_step: expected positive", _patch(MODEL, 64, "f", math.nan)),
    Defect("sh_step_0", "model", "sh_steps: expected positive", _patch(MODEL, 72, "f", 0.0)),
    Defect("opacity_table_descending", "model", "opacity_table: .* ascending", _patch(MODEL, 120, "f", 9.0)),
    Defect("opacity_table_nan", "model", "opacity_table: expected finite", _patch(MODEL, 124, "f", math.nan)),
    # octree
    Defect("octree_layout", "octree.nodes", "layout 0, got 1", _entry(NODES, layout=1)),
    Defect("nodes_too_short", "octree.nodes", "got the end", _shorter(NODES)),
    Defect("nodes_too_long", "octree.nodes", "expected the end", _longer(NODES)),
    Defect("nodes_bottomless", "octree.nodes", "only leaves at the greatest depth", _raw(NODES, lambda _: b"\1" * 22)),
    Defect("long_way_to_a_tail", "octree.nodes", "expected a tail", _octree(b"\1\0", b"\0", b"", b"\x0b")),
    Defect("tail_too_deep", "octree.tail_depths", "below the greatest depth", _first(TAIL_DEPTHS, 21)),
    Defect("tail_depths_too_short", "octree.tail_depths", "got the end", _shorter(TAIL_DEPTHS)),
    Defect("tail_depths_too_long", "octree.tail_depths", "expected the end", _octree(b"\0", b"\0\0", b"", b"\x0b")),
    Defect("tail_bits_too_short", "octree.tail_bits", "bytes, got", _shorter(TAIL_BITS)),
    Defect("tail_bits_too_long", "octree.tail_bits", "bytes, got", _longer(TAIL_BITS)),
    Defect("tail_bits_padding", "octree.tail_bits", "padding", _octree(b"\0", b"\1", b"\x01", b"\x0b")),
    Defect("counts_too_many", "octree.counts", "12 splats in all, got more", _first(COUNTS, 127)),
    Defect("counts_overlong", "octree.counts", "shortest LEB128", _octree(b"\0", b"\0", b"", b"\x8b\0")),
    Defect("counts_endless", "octree.counts", "at most 5 bytes", _octree(b"\0", b"\0", b"", b"\xff" * 9)),
    Defect("counts_cut", "octree.counts", "got the end", _octree(b"\0", b"\0", b"", b"\x8b")),
    Defect("counts_too_long", "octree.counts", "expected the end", _octree(b"\0", b"\0", b"", b"\x0b\0")),
    # attributes
    Defect("opacity_layout", "opacity", "at most 2 bytes a symbol, got 4", _entry(OPACITY, layout=4)),
    Defect("opacity_layout_0", "opacity", "at most 2 bytes a symbol, got 0", _entry(OPACITY, layout=0)),
    Defect("sh_layout_3", "sh_dc.luma", "at most 4 bytes a symbol, got 3", _entry(SH_DC, layout=3)),
    Defect("opacity_too_short", "opacity", "raw size of 12 bytes, got 11", _shorter(OPACITY)),
    Defect("opacity_not_in_table", "opacity", "expected indices below 22, got 22", _first(OPACITY, 22)),
    Defect("log_scales_too_long", "log_scales.0", "raw size of", _longer(SCALES)),
    Defect("rotation_too_long_vector", "rotation.x", "<= 1, splat 0 has more", _first(ROTATION, 255)),
    Defect("sh_dc_too_large", "sh_dc.luma", "magnitudes up to 16777216", _wide(SH_DC)),
    Defect("ac_count_too_large", "sh_ac.counts", "expected counts up to 9, got 10", _first(AC_COUNTS, 10)),
    Defect("ac_counts_too_short", "sh_ac.counts", "raw size of 12 bytes, got 11", _shorter(AC_COUNTS)),
    Defect("ac_gaps_too_long", "sh_ac.gaps", "raw size of", _longer(AC_GAPS)),
    Defect("ac_gap_too_large", "sh_ac.gaps", "gap 0 leads beyond", _first(AC_GAPS, 255)),
    Defect("ac_values_too_short", "sh_ac.values", "raw size of", _shorter(AC_VALUES)),
    Defect("ac_value_too_large", "sh_ac.values", "magnitudes up to 16777216", _wide(AC_VALUES)),
    Defect("ac_of_degree_0", "sh_ac.counts", "SH degree 0 has no such section", _degree_0),
)
