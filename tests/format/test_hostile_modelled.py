# SPDX-License-Identifier: Apache-2.0
"""test_hostile.py for version 3: damage ends in BitstreamError or another valid model; cheaply."""

import tracemalloc

import numpy as np
import pytest

from potr import _format
from potr.errors import BitstreamError
from potr.format.bitstream import FREE_SPLATS, pack_model, unpack_model
from potr.format.coder import Entropy
from potr.format.container import ENTRY_SIZE, HEADER_SIZE, VERSIONS
from potr.format.decode import decode
from tests.golden.modelled_defects import MODELLED_DEFECTS, modelled_base_file
from tests.helpers import hostile
from tests.helpers.forge import Forge, with_true_checksums
from tests.helpers.hostile import cut_files
from tests.helpers.quantized_models import random_quantized

FILE = modelled_base_file()
TABLE_END = HEADER_SIZE + ENTRY_SIZE * 8
SECTIONS = (6, 19, 20, 21, 22, 24, 25)


def refused(data):
    return hostile.refused(data, Entropy.ANS)


def test_this_is_the_other_version():
    assert {1, FILE[8]} == set(VERSIONS)


def test_truncation_at_every_byte_with_a_size_that_says_so():
    for cut in cut_files(FILE):
        assert refused(cut), len(cut)


def test_every_section_cut_at_every_byte():
    """With a table that says so, so that the coder meets the end: zeros follow, which mostly make no valid model."""
    verdicts = []
    for number in SECTIONS:
        coded = Forge(FILE).entry(number).coded
        for size in range(len(coded)):
            file = Forge(FILE)
            file.entry(number).coded = coded[:size]
            verdicts.append(refused(bytes(file)))
    assert 0.05 < np.mean(verdicts) < 1


def test_every_bit_flipped():
    for bit in range(0, 8 * len(FILE)):
        damaged = bytearray(FILE)
        damaged[bit // 8] ^= 1 << bit % 8
        assert refused(bytes(damaged)), bit


def test_every_header_and_table_bit_flipped_with_true_checksums():
    file = FILE
    for bit in range(8 * TABLE_END):
        damaged = bytearray(file)
        damaged[bit // 8] ^= 1 << bit % 8
        data = with_true_checksums(bytes(damaged))
        assert data == file or refused(data), bit


@pytest.mark.parametrize("width", [1, 4])
def test_slid_noise_with_true_checksums(width):
    rng = np.random.default_rng(10 + width)
    file, verdicts = FILE, []
    for start in range(TABLE_END, len(file) - width + 1):
        noise = rng.bytes(width)
        verdicts.append(refused(with_true_checksums(file[:start] + noise + file[start + width :])))
    assert 0.2 < np.mean(verdicts) < 1


@pytest.mark.parametrize("broken", [6, 20, 24])
def test_chroma_does_not_wait_for_luma_that_never_comes(broken):
    """Nor for opacity and scales: whatever breaks before, decoding ends, with that section's error."""
    good = pack_model(random_quantized(5, 3000, 3), 1, Entropy.ANS)
    file = Forge(good)
    coded = file.entry(broken).coded
    file.entry(broken).coded = coded[:100] + b"\xff" * 3000 if broken == 24 else coded[:4]
    with pytest.raises(BitstreamError) as caught:
        decode(bytes(file))
    assert caught.value.section == {6: "opacity", 20: "log_scales", 24: "sh_ac.luma"}[broken]


def test_noise_for_as_many_splats_as_a_small_file_may_claim_allocates_no_more_than_a_valid_file():
    n = FREE_SPLATS
    rng = np.random.default_rng(3)
    model = random_quantized(2, n, 1, max_depth=16)
    good = pack_model(model, 1, Entropy.ANS)
    for number in SECTIONS:
        file = Forge(good)
        file.entry(number).coded = file.entry(number).coded[:15] + rng.bytes(1000)
        data = bytes(file)
        tracemalloc.start()
        try:
            refused(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1000 * n, number


def test_refusals_allocate_little():
    for defect in MODELLED_DEFECTS:
        data = defect.make()
        tracemalloc.start()
        try:
            with pytest.raises(BitstreamError):
                decode(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8e6 + 64 * len(data), (defect.name, peak)


def test_a_model_of_improbably_few_bytes_is_written_with_zstd():
    one = random_quantized(0, 1, 0)
    n = FREE_SPLATS + 20_000
    names = ("cells", "depths", "opacity", "log_scales", "rotation", "sh")
    repeated = {name: np.repeat(getattr(one, name), n, axis=0) for name in names}
    model = type(one)(**{**one.__dict__, **repeated})
    data = pack_model(model, 1, Entropy.ANS)
    assert (data[8], len(data) >= n - FREE_SPLATS) == (1, True)
    assert unpack_model(data).num_splats == n


@pytest.mark.parametrize("decode_ac", ["decode_sh_ac_luma", "decode_sh_ac_chroma"])
def test_ac_of_a_model_that_has_none_is_refused(decode_ac: str) -> None:
    neighbors = _format.Neighbors(np.zeros((1, 3), np.uint32), np.zeros(1, np.uint8))
    opacity, scales, sh = np.zeros(1, np.uint16), np.zeros((1, 3), np.uint16), np.zeros((1, 1, 3), np.int32)
    with pytest.raises(ValueError, match="expected 4, 9 or 16 coefficients"):
        getattr(_format, decode_ac)(b"", neighbors, opacity, scales, sh, _format.AcLuma(1))
