# SPDX-License-Identifier: Apache-2.0
"""Damaged bytes end in BitstreamError or, where the damage makes another valid file, in a valid model; cheaply."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from potr.errors import BitstreamError
from potr.format.bitstream import pack_model, unpack_model
from potr.format.container import ENTRY_SIZE, HEADER_SIZE
from potr.format.decode import decode
from tests.golden.defects import DEFECTS, base_file
from tests.helpers.forge import Forge, with_true_checksums
from tests.helpers.hostile import cut_files, refused
from tests.helpers.processes import LIMIT
from tests.helpers.quantized_models import random_quantized

FILE = base_file()
TABLE_END = HEADER_SIZE + ENTRY_SIZE * 18


def test_truncation_at_every_byte():
    assert all(refused(FILE[:size]) for size in range(len(FILE)))


def test_truncation_at_every_byte_with_a_size_that_says_so():
    for cut in cut_files(FILE):
        assert refused(cut), len(cut)


def test_every_bit_flipped():
    for bit in range(8 * len(FILE)):
        damaged = bytearray(FILE)
        damaged[bit // 8] ^= 1 << bit % 8
        assert refused(bytes(damaged)), bit


def test_every_header_and_table_bit_flipped_with_true_checksums():
    passed = 0
    for bit in range(8 * TABLE_END):
        damaged = bytearray(FILE)
        damaged[bit // 8] ^= 1 << bit % 8
        data = with_true_checksums(bytes(damaged))
        if data != FILE:
            passed += not refused(data)
    assert passed == 0  # no bit of header and table is without meaning


@pytest.mark.parametrize("width", [1, 3, 16])
def test_slid_noise(width):
    rng = np.random.default_rng(width)
    for start in range(len(FILE) - width + 1):
        noise = rng.bytes(width)
        damaged = FILE[:start] + noise + FILE[start + width :]
        assert damaged == FILE or refused(damaged), start


@pytest.mark.parametrize("width", [1, 4])
def test_slid_noise_with_true_checksums(width):
    rng = np.random.default_rng(10 + width)
    verdicts = []
    for start in range(len(FILE) - width + 1):
        noise = rng.bytes(width)
        verdicts.append(refused(with_true_checksums(FILE[:start] + noise + FILE[start + width :])))
    assert 0.3 < np.mean(verdicts) < 1  # both ends are reached


@pytest.mark.parametrize(("seed", "degree", "wide"), [(0, 0, False), (1, 1, True), (2, 3, False)])
def test_mutated_raw_sections(seed, degree, wide):
    """Behind the entropy stage: bits flipped, bytes inserted, removed, moved."""
    rng = np.random.default_rng(seed)
    good = pack_model(random_quantized(seed, 30, degree, wide=wide), 1)
    numbers = [entry.id for entry in Forge(good).entries]
    verdicts = []
    for _ in range(1200):
        file = Forge(good)
        number = int(rng.choice(numbers))
        raw = bytearray(file.raw(number))
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(raw) + 1))
            kind = rng.integers(5)
            if kind == 0:
                raw[at:at] = rng.bytes(1)
            elif kind == 1:
                del raw[at : at + 1]
            elif kind == 2:
                raw = raw[at:] + raw[:at]
            elif at < len(raw):
                raw[at] = raw[at] ^ 1 << int(rng.integers(8)) if kind == 3 else int(rng.choice([0, 1, 127, 128, 255]))
        file.set_raw(number, bytes(raw))
        verdicts.append(refused(bytes(file)))
    assert 0.2 < np.mean(verdicts) < 1


def test_swapped_sections_of_equal_size_stay_a_valid_model():
    file = Forge(FILE)
    first, second = file.raw(10), file.raw(11)
    file.set_raw(10, second)
    file.set_raw(11, first)
    model = unpack_model(bytes(file))
    np.testing.assert_array_equal(model.rotation[:, 0], unpack_model(FILE).rotation[:, 1])


def test_refusals_allocate_little():
    """No defect makes the decoder allocate more than some megabytes of Python and numpy memory."""
    files = [defect.make() for defect in DEFECTS]
    for data, defect in zip(files, DEFECTS, strict=True):
        tracemalloc.start()
        try:
            with pytest.raises(BitstreamError):
                decode(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8e6 + 64 * len(data), (defect.name, peak)


def test_refusals_leave_the_process_small(tmp_path):
    """The same for native memory: all defects one after the other in a fresh process."""
    for defect in DEFECTS:
        (tmp_path / f"{defect.name}.potr").write_bytes(defect.make())
    code = (
        "import pathlib, resource, sys\n"
        "from potr.format.decode import decode\n"
        "from potr.errors import BitstreamError\n"
        "files = [p.read_bytes() for p in sorted(pathlib.Path(sys.argv[1]).iterdir())]\n"
        "decode(bytes.fromhex(sys.argv[2]))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "refused = 0\n"
        "for data in files:\n"
        "    try: decode(data)\n"
        "    except BitstreamError: refused += 1\n"
        "print(refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path), FILE.hex()]
    refusals, grown_kib = subprocess.run(
        arguments, capture_output=True, text=True, check=True, timeout=LIMIT
    ).stdout.split()
    assert int(refusals) == len(DEFECTS)
    assert int(grown_kib) < 40_000


def test_memory_of_the_most_splats_a_small_file_may_claim():
    """A valid file of few bytes and many equal splats makes a decoder allocate what docs/format.md (4) says."""
    one = random_quantized(0, 1, 3)
    n = 65536
    repeated = {
        name: np.repeat(getattr(one, name), n, axis=0)
        for name in ("cells", "depths", "opacity", "log_scales", "rotation", "sh")
    }
    data = pack_model(type(one)(**{**one.__dict__, **repeated}), 19)
    assert len(data) < 2000
    tracemalloc.start()
    try:
        assert decode(data).num_splats == n
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1000 * n
