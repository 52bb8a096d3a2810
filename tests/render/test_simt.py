# SPDX-License-Identifier: Apache-2.0
"""The emulation that runs the project's CUDA kernels on the CPU: what it computes, and what it finds wrong."""

import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from potr.model.sh import sh_basis
from potr.render.launcher import Argument
from tests.helpers.processes import LIMIT
from tests.helpers.simt import ORDERS, SimtError, SimtLauncher, needs_gxx

HERE = Path(__file__).resolve().parent
SOURCE = "simt_kernels"
NVCC = shutil.which("nvcc")

pytestmark = needs_gxx


def launcher(order: str = "forward", threads: int = 1, flags: tuple[str, ...] = ()) -> SimtLauncher:
    return SimtLauncher(HERE, order=order, threads=threads, flags=flags)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_sums_by_shuffles_and_shared_memory(order: str, threads: int) -> None:
    values = torch.arange(1, 1001, dtype=torch.float32)
    sums = torch.full((11,), torch.nan)
    launcher(order, threads).launch(SOURCE, "block_sums", 11, 96, values, len(values), sums)
    padded = np.pad(values.numpy(), (0, 56)).reshape(11, 96)
    assert sums.tolist() == padded.sum(1, dtype=np.float64).tolist()


@pytest.mark.parametrize("order", ORDERS)
def test_compaction_by_ballot(order: str) -> None:
    values = torch.randn(256, generator=torch.Generator().manual_seed(1))
    counts, kept = torch.zeros(8, dtype=torch.int32), torch.full((256,), -1, dtype=torch.int32)
    launcher(order).launch(SOURCE, "compact", 2, 128, values, counts, kept)
    for warp, (count, indices) in enumerate(zip(counts.tolist(), kept.view(8, 32).tolist(), strict=True)):
        expected = [i for i in range(32 * warp, 32 * warp + 32) if values[i] >= 0]
        assert (count, indices[:count]) == (len(expected), expected)


@pytest.mark.parametrize("order", ORDERS)
def test_collectives(order: str) -> None:
    v = np.random.default_rng(2).integers(0, 120, 64)
    out = torch.zeros(64, 16, dtype=torch.int64)
    launcher(order).launch(SOURCE, "collectives", 1, 64, torch.from_numpy(v.astype(np.int32)), out)
    for t, row in enumerate(out.tolist()):
        first, lane = t - t % 32, t % 32
        w = v[first : first + 32]
        segment = lane - lane % 8
        assert row[:10] == [
            w[5],
            w[segment + (lane + 9) % 8],
            w[lane ^ 3],
            w[lane - 3] if lane >= 3 else w[lane],
            w[lane + 3] if lane % 16 < 13 else w[lane],
            w[min(lane + 1, 31)],
            w.max(),
            w.sum(),
            np.bitwise_or.reduce(w),
            int((w % 64 == 1).any()) + 2 * int((w < 100).all()),
        ]
        x = int(v[t])
        lowest = (x & -x).bit_length()
        assert row[10:] == [
            (v % 3 == 0).sum(),
            int((v == 7).any()) + 2 * int((v < 100).all()),
            lowest + 100 * (32 - x.bit_length()) + 10000 * 2 * x.bit_count(),
            (int(f"{x:032b}"[::-1], 2) + 64 - x.bit_length() + (lowest + 35 if x else 0)) % 2**32,
            x + max(min(x, 50), 20),
            struct.unpack("<q", struct.pack("<d", x / 2))[0],
        ]


@pytest.mark.parametrize("threads", [1, 2])
def test_atomics(threads: int) -> None:
    values = torch.randint(3, 1000, (512,), dtype=torch.int32, generator=torch.Generator().manual_seed(3))
    bins, total = torch.zeros(8, dtype=torch.int32), torch.zeros(1)
    least, largest = torch.tensor([2**30], dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    bits = torch.zeros(1, dtype=torch.int64)
    launcher("random:4", threads).launch(SOURCE, "atomics", 4, 128, values, bins, total, least, largest, bits)
    assert bins.tolist() == np.bincount(values % 8, minlength=8).tolist()
    assert (total.item(), least.item(), largest.item()) == (values.sum(), values.min(), values.max())
    assert bits.item() % 2**64 == sum(1 << b for b in set((values % 64).tolist()))


def test_the_shared_header_and_vector_types() -> None:
    directions = torch.nn.functional.normalize(torch.randn(32, 3, generator=torch.Generator().manual_seed(5)), dim=1)
    padded = torch.nn.functional.pad(directions, (0, 1))
    out = torch.empty(32, 16)
    launcher().launch(SOURCE, "basis", 1, 32, padded.view(torch.uint8), out, 2.0)
    torch.testing.assert_close(out, 2 * sh_basis(directions, 3))


def test_nothing_to_launch_and_null() -> None:
    values = torch.zeros(4, dtype=torch.int32)
    launcher().launch(SOURCE, "wrong", 0, 32, 6, values, None)
    launcher().launch(SOURCE, "wrong", 3, 32, 0, None, None)
    assert launcher().read_later(torch.tensor([3, 2**40]))() == [3, 2**40]


def test_tensors_that_overlap_share_a_copy() -> None:
    values = torch.ones(256)
    launcher().launch(SOURCE, "block_sums", 2, 128, values, 256, values[128:130])
    assert values.tolist() == 128 * [1] + [128, 255] + 126 * [1]  # the second block adds what the first one wrote


def test_a_missing_barrier_shows_between_orders() -> None:
    def reversed_in(kernel: str, order: str) -> list[int]:
        values = torch.arange(128, dtype=torch.int32)
        launcher(order).launch(SOURCE, kernel, 1, 128, values)
        return values.tolist()

    for order in ORDERS:
        assert reversed_in("reverse", order) == list(range(127, -1, -1))
    forward, backward, random = (reversed_in("reverse_without_barrier", order) for order in ORDERS)
    assert forward != backward
    assert random not in (forward, backward)
    assert -1 in forward  # read before it was written
    assert random == reversed_in("reverse_without_barrier", "random:1")
    assert random != reversed_in("reverse_without_barrier", "random:2")


WRONG = {
    1: "kernel wrong, block 0: the warps of the block part: threads 0-31 wait at __syncthreads (simt_kernels.cu:*); "
    "threads 32-127 have ended",
    2: "kernel wrong, block 0: the lanes of a warp part: threads 32-39, 41-63 wait at __syncthreads "
    "(simt_kernels.cu:*); threads 40 have ended",
    3: "kernel wrong, block 0: the warps of the block part: threads 0-63 wait at __syncthreads (simt_kernels.cu:*); "
    "threads 64-127 wait at __syncthreads (simt_kernels.cu:*)",
    4: "kernel wrong, block 0: the lanes of a warp part: threads 0, 2, 4, 6, 8, 10, 12, 14, ... wait at __ballot_sync "
    "(simt_kernels.cu:*); threads 1, 3, 5, 7, 9, 11, 13, 15, ... have ended",
    5: "kernel wrong, block 0, thread 0: __shfl_sync (simt_kernels.cu:*) with mask 0x0000ffff; expected all lanes",
    6: "kernel wrong, block 0, thread 3: index out of an array's bounds (simt_kernels.cu:*)",
    8: "kernel wrong, block 0, thread 0: shift by too many bits (simt_kernels.cu:*)",
    9: "kernel wrong, block 0, thread 0: null or misaligned pointer (simt_kernels.cu:*)",
    10: "kernel wrong, block 0, thread 1: floating value out of the integer type's range (simt_kernels.cu:*)",
    11: "simt_kernels.cu: wrong: wrote outside argument 1, at byte 512 of 512",
    12: "simt_kernels.cu: wrong: wrote outside argument 1, at byte -9 of 512",
    13: "kernel wrong, block 0: the lanes of a warp part: threads 32-50 have ended; "
    "threads 51-63 wait at __syncwarp (simt_kernels.cu:*)",
}


@pytest.mark.parametrize("what", WRONG)
def test_errors_are_found(what: int) -> None:
    values, vectors = torch.full((128,), 1000, dtype=torch.int32), torch.zeros(128, 4)
    with pytest.raises(SimtError) as error:
        launcher().launch(SOURCE, "wrong", 1, 128, what, values, vectors)
    assert re.sub(r"cu:\d+", "cu:*", str(error.value)) == WRONG[what]
    launcher().launch(SOURCE, "wrong", 1, 128, 0, values, vectors)  # the next launch starts afresh


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_that_is_not_there(threads: int) -> None:
    values = torch.zeros(128, dtype=torch.int32)
    for _ in range(2):
        with pytest.raises(SimtError, match=r"thread 77: access to memory that is not there, at 0x3e80$"):
            launcher("forward", threads).launch(SOURCE, "wrong", 4, 128, 14, values, None)
    launcher("forward", threads).launch(SOURCE, "wrong", 4, 128, 0, values, None)


def test_shared_memory_starts_unset_in_every_block() -> None:
    values = torch.zeros(128, dtype=torch.int32)
    launcher().launch(SOURCE, "wrong", 2, 128, 7, values, None)
    assert values.tolist() == 128 * [-1]


@pytest.mark.parametrize(
    ("kernel", "threads", "arguments", "message"),
    [
        ("reverse", 32, (), "reverse: 0 arguments; expected 1 (*i4)"),
        ("reverse", 32, (torch.zeros(32),), "reverse: argument 0: a tensor of torch.float32 for *i4"),
        (
            "reverse",
            32,
            (torch.zeros(9, 9).int().T,),
            "reverse: argument 0: not a contiguous CPU tensor",
        ),
        ("reverse", 32, (1,), "reverse: argument 0: int for *i4"),
        ("wrong", 32, (1.0, None, None), "wrong: argument 0: float for long long"),
        ("wrong", 32, (None, None, None), "wrong: argument 0: None for long long"),
        ("wrong", 32, (True, None, None), "wrong: argument 0: bool for long long"),
        ("basis", 32, (None, None, 2), "basis: argument 2: int for float"),
        (
            "reverse",
            48,
            (None,),
            "kernel reverse: blocks of 48 threads; expected a multiple of 32 up to 1024",
        ),
        (
            "block_sums",
            160,
            (None, 0, None),
            "kernel block_sums: blocks of 160 threads; expected a multiple of 32 up to 128",
        ),
    ],
)
def test_what_a_gpu_would_refuse(kernel: str, threads: int, arguments: tuple[Argument, ...], message: str) -> None:
    with pytest.raises(SimtError) as error:
        launcher().launch(SOURCE, kernel, 1, threads, *arguments)
    assert str(error.value).removeprefix("simt_kernels.cu: ") == message


def test_an_unknown_kernel() -> None:
    with pytest.raises(SimtError, match=r"nothing: no such kernel; the file has block_sums, compact, "):
        launcher().launch(SOURCE, "nothing", 1, 32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extern "C" __global__ void k(int n) {}', "kernels take pointers, long long and float, nothing else"),
        ('extern "C" __global__ void k(float* x) { x[threadIdx.y] = 0; }', "no member named .y."),
        ('extern "C" __global__ void k(long long* x) { *x = min(*x, 3); }', "call of overloaded .min.* is ambiguous"),
        ('extern "C" __global__ __noinline__ void k(long long* x) {}', "1 __global__ functions, 0 of them"),
    ],
)
def test_what_does_not_compile(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.cu").write_text(text)
    with pytest.raises(SimtError, match=message):
        SimtLauncher(tmp_path).launch("bad", "k", 1, 32, None)


@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
def test_cuda_takes_the_same_kernels(tmp_path: Path) -> None:
    assert NVCC is not None
    command = [NVCC, "-arch=sm_90", "-std=c++20", "-cubin", str(HERE / f"{SOURCE}.cu"), "-o", str(tmp_path / "k.cubin")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert result.returncode == 0, result.stderr


def test_without_the_switch_for_x86() -> None:
    portable = launcher(flags=("-DSIMT_PORTABLE",))
    sums = torch.zeros(1)
    portable.launch(SOURCE, "block_sums", 1, 128, torch.ones(128), 128, sums)
    assert sums.item() == 128
    values = torch.zeros(128, dtype=torch.int32)
    with pytest.raises(SimtError, match="threads 40 have ended"):
        portable.launch(SOURCE, "wrong", 1, 128, 2, values, None)
    portable.launch(SOURCE, "reverse", 1, 128, values)
