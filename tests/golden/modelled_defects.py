# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a file of version 3 beyond what defects.py has for all versions."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from potr.format.bitstream import pack_model
from potr.format.coder import Entropy
from tests.golden.cases import ZSTD_LEVEL
from tests.golden.defects import MODEL, OPACITY, Damage, Defect
from tests.helpers.forge import Forge
from tests.helpers.quantized_models import random_quantized

OCTREE, LOG_SCALES, ROTATION, SH_DC, AC_LUMA, AC_CHROMA = 19, 20, 21, 22, 24, 25
SIZES = {OCTREE: 13, OPACITY: 2, LOG_SCALES: 6, ROTATION: 6, SH_DC: 12, AC_LUMA: 12, AC_CHROMA: 24}


def modelled_base_file() -> bytes:
    """12 splats of degree 1."""
    return pack_model(random_quantized(1, 12, 1), ZSTD_LEVEL, Entropy.ANS)


def _base_of_degree_0() -> bytes:
    """No AC, whose contexts have the opacity and which would be refused first."""
    return pack_model(random_quantized(1, 12, 0), ZSTD_LEVEL, Entropy.ANS)


def _coded(number: int, change: Callable[[bytes], bytes]) -> Damage:
    def damage(f: Forge) -> None:
        f.entry(number).coded = change(f.entry(number).coded)

    return damage


def _ranges(number: int, lowest: int, bits: int) -> Damage:
    """Another range of the first column."""
    return _coded(number, lambda coded: struct.pack("<iB", lowest, bits) + coded[5:])


def _entry(number: int, **fields: int) -> Damage:
    return lambda f: f.entry(number).__dict__.update(fields)


def _splats(n: int) -> Damage:
    """That many, and raw sizes that fit."""

    def damage(f: Forge) -> None:
        f.patch(MODEL, 0, "I", n)
        for number, size in SIZES.items():
            f.entry(number).raw_size = n * size

    return damage


def _degree_0(f: Forge) -> None:
    raw = f.raw(MODEL)
    f.set_raw(MODEL, raw[:8] + b"\0" + raw[9 : 72 + 12] + raw[72 + 48 :])


def _defect(name: str, section: str, reason: str, damage: Damage) -> Defect:
    return Defect(f"modelled_{name}", section, reason, damage, modelled_base_file)


NOISE = np.random.default_rng(0).bytes(200)
ONES = b"\xff" * 8 + NOISE

MODELLED_DEFECTS = (
    _defect("under_zstd", "table", "unknown coder id 1", _entry(OPACITY, coder=1)),
    _defect("model", "table", "unknown coder id 2", _entry(MODEL, coder=2)),
    _defect("layout", "table", "layout 0, got 2", _entry(OPACITY, layout=2)),
    _defect("section_of_version_1", "table", "unknown section id 5", _entry(OPACITY, id=5)),
    _defect("section_of_version_2", "table", "unknown section id 23", _entry(AC_LUMA, id=23)),
    _defect("missing_chroma", "table", "a section 'sh_ac.chroma'", lambda f: f.entries.remove(f.entry(AC_CHROMA))),
    _defect("missing", "table", "a section 'rotation'", lambda f: f.entries.remove(f.entry(ROTATION))),
    _defect("raw_size", "opacity", "raw size of 24 bytes, got 25", _entry(OPACITY, raw_size=25)),
    _defect("ac_of_degree_0", "sh_ac.luma", "SH degree 0 has no such section", _degree_0),
    _defect("ranges_cut", "opacity", "expected 5 bytes of ranges", _coded(OPACITY, lambda coded: coded[:3])),
    _defect("too_many_bits", "log_scales", "at most 26 bits, got 27", _ranges(LOG_SCALES, 0, 27)),
    _defect("lowest_too_low", "rotation", "-32768..32767, got -32769", _ranges(ROTATION, -32769, 3)),
    _defect("lowest_too_high", "sh_dc", "lowest value", _ranges(SH_DC, 2**24 + 1, 3)),
    _defect("scale_too_large", "log_scales", "values up to 65535", _ranges(LOG_SCALES, 65535, 20)),
    Defect("modelled_not_in_table", "opacity", "expected indices below 22", _ranges(OPACITY, 22, 0), _base_of_degree_0),
    _defect("too_long_vector", "rotation", "<= 1, splat 0 has more", _ranges(ROTATION, 1000, 5)),
    _defect("sh_dc_too_large", "sh_dc", "magnitudes up to 16777216", _ranges(SH_DC, 2**24, 26)),
    _defect("trailing", "sh_ac.luma", "the end after the last symbol", _coded(AC_LUMA, lambda c: c + b"\1" * 9)),
    _defect("trailing_zero", "sh_ac.chroma", "no zero byte at the end", _coded(AC_CHROMA, lambda coded: coded + b"\0")),
    _defect("one_splat", "octree", "at most 1 leaves, got more", _splats(1)),
    _defect("fewer_splats", "octree", "expected 11 splats in all, got more", _splats(11)),
    _defect("more_splats", "octree", "counts: .* splats are in no leaf", _splats(60_000)),
    _defect("no_splats", "octree", "the end after the last symbol", _splats(0)),
    _defect("octree_noise", "octree", "", _coded(OCTREE, lambda _: NOISE)),
    _defect("octree_ones", "octree", "", _coded(OCTREE, lambda _: b"\xff" * 40)),
    _defect("octree_empty", "octree", "", _coded(OCTREE, lambda _: b"")),
    _defect(
        "rotation_ones", "rotation", "below the coder's range", _coded(ROTATION, lambda c: c[:15] + b"\xff" * 8 + NOISE)
    ),
    _defect("ac_ones", "sh_ac.luma", "below the coder's range", _coded(AC_LUMA, lambda _: b"\xff" * 8 + NOISE)),
    _defect("ac_noise", "sh_ac.luma", "", _coded(AC_LUMA, lambda _: NOISE)),
    _defect("ac_noise_in_chroma", "sh_ac.chroma", "", _coded(AC_CHROMA, lambda _: NOISE)),
)
