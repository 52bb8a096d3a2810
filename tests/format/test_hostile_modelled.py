# SPDX-License-Identifier: Apache-2.0
"""test_hostile.py for version 2: damage ends in BitstreamError or another valid model; cheaply."""

import struct
import tracemalloc

import numpy as np
import pytest

from potr.bitstream.container import ENTRY_SIZE, HEADER_SIZE, VERSIONS
from potr.codec.decoder import decode, dequantize
from potr.codec.entropy import Entropy
from potr.codec.quantized import validate
from potr.codec.serialize import FREE_SPLATS, pack_model, unpack_model
from potr.errors import BitstreamError
from tests.golden.modelled_defects import MODELLED_DEFECTS, modelled_base_file
from tests.helpers.forge import Forge, with_true_checksums
from tests.helpers.quantized_models import assert_identical, random_quantized

FILE = modelled_base_file()
TABLE_END = HEADER_SIZE + ENTRY_SIZE * 7


def refused(data):
    """Whether decoding ends in BitstreamError; a file that passes must hold a valid model that codes to itself."""
    try:
        model = unpack_model(data)
    except BitstreamError as error:
        if not 0 <= error.offset <= len(data):
            raise AssertionError(f"offset {error.offset} outside the file") from error
        return True
    validate(model)
    assert bool(dequantize(model).means.isfinite().all())
    assert_identical(unpack_model(pack_model(model, 1, Entropy.ANS)), model)
    return False


def test_this_is_version_2():
    assert FILE[8] == max(VERSIONS) == 2


def test_truncation_at_every_byte_with_a_size_that_says_so():
    for size in range(HEADER_SIZE, len(FILE)):
        cut = bytearray(FILE[:size])
        struct.pack_into("<Q", cut, 16, size)
        assert refused(bytes(cut))
        assert refused(with_true_checksums(bytes(cut))), size


def test_every_section_cut_at_every_byte():
    """With a table that says so, so that the coder meets the end: zeros follow, which mostly make no valid model."""
    verdicts = []
    for number in (6, 19, 20, 21, 22, 23):
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
    for bit in range(8 * TABLE_END):
        damaged = bytearray(FILE)
        damaged[bit // 8] ^= 1 << bit % 8
        data = with_true_checksums(bytes(damaged))
        assert data == FILE or refused(data), bit


@pytest.mark.parametrize("width", [1, 4])
def test_slid_noise_with_true_checksums(width):
    rng = np.random.default_rng(10 + width)
    verdicts = []
    for start in range(TABLE_END, len(FILE) - width + 1):
        noise = rng.bytes(width)
        verdicts.append(refused(with_true_checksums(FILE[:start] + noise + FILE[start + width :])))
    assert 0.2 < np.mean(verdicts) < 1


def test_noise_for_as_many_splats_as_a_small_file_may_claim_allocates_no_more_than_a_valid_file():
    n = FREE_SPLATS
    rng = np.random.default_rng(3)
    model = random_quantized(2, n, 1, max_depth=16)
    good = pack_model(model, 1, Entropy.ANS)
    for number in (6, 19, 20, 21, 22, 23):
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
