# SPDX-License-Identifier: Apache-2.0
"""Runs the project's CUDA kernels on the CPU: each .cu compiled by g++ against tests/simt, called on CPU tensors.

Compiled objects are kept under build/simt, named by a hash of all that goes in; processes may share the folder.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from potr.render.launcher import Argument
from tests.helpers.processes import LIMIT

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "potr" / "native"
EMULATION = ROOT / "tests" / "simt"
CACHE = ROOT / "build" / "simt"
CHECKS = "bounds,shift,alignment,null,float-cast-overflow,integer-divide-by-zero"
FLAGS = (
    *("-std=c++20", "-O2", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-fopenmp", "-fvisibility=hidden"),
    *("-Wall", "-Werror", "-Wno-unknown-pragmas", "-Wno-sign-compare", "-Wno-format-truncation", "-U_FORTIFY_SOURCE"),
    *(f"-fsanitize={CHECKS}", "-fno-sanitize-recover=all"),
)
CPUINFO = Path("/proc/cpuinfo")
if CPUINFO.is_file() and " fma " in CPUINFO.read_text():
    FLAGS += ("-mfma",)  # fmaf is one instruction; contraction stays off
ORDERS = ("forward", "backward", "random:1")  # what a kernel without races gives the same bits in
BOUNDS = r"(?:__launch_bounds__\s*\(([^,()]+)[^()]*\)\s*)?"
KERNEL = re.compile(rf'extern\s+"C"\s+__global__\s+{BOUNDS}void\s+{BOUNDS}(\w+)\s*\(')
MOST_THREADS = 1024
ERROR_BYTES = 2048  # kErrorBytes of fibres.h
SIGNATURE_BYTES = 1024
GUARD_BYTES = 4096  # before and behind each tensor
GUARD = 0xFB  # a huge negative float, an index far outside
UNTOUCHED = bytes([GUARD]) * (GUARD_BYTES + 64)

needs_gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation of CUDA is compiled by g++")


class SimtError(Exception):
    """A launch that a GPU would refuse, or a kernel that it would run into undefined behaviour."""


class SimtLauncher:
    """The `Launcher` of potr/render/launcher.py on CPU tensors.

    Every tensor is handed over as a copy between guard zones, which must come back untouched; tensors that overlap
    share a copy. float32 goes to ``float*``, any integer or bool to an integer of its size (either sign), uint8 also to
    every other pointer, as raw bytes.

    Args:
        directory: where the .cu files lie.
        order: of the threads between two barriers or warp collectives, of the warps and of the blocks: forward,
            backward, or random:SEED. A result that depends on it is a race.
        threads: CPU threads that share the blocks.
        flags: more of g++'s.

    Raises:
        SimtError: from ``launch``; says which kernel, block and threads, or which argument.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        directory: Path = NATIVE / "cuda",
        *,
        order: str = "forward",
        threads: int = 1,
        flags: tuple[str, ...] = (),
    ) -> None:
        name, _, seed = order.partition(":")
        self._directory, self._threads, self._flags = directory, threads, flags
        self._order, self._seed = ("forward", "backward", "random").index(name), int(seed or 0)

    def launch(self, source: str, kernel: str, blocks: int, threads: int, *arguments: Argument) -> None:
        path = self._directory / f"{source}.cu"
        where = f"{path.name}: {kernel}"
        unit = load(path, self._flags)
        if kernel not in unit.kernels:
            raise SimtError(f"{where}: no such kernel; the file has {', '.join(unit.kernels) or 'none'}")
        check_arguments(where, unit.kernels[kernel], arguments)
        if not 0 <= blocks < 2**31:
            raise SimtError(f"{where}: {blocks} blocks")
        if blocks == 0:
            return

        guarded = GuardedTensors([a for a in arguments if isinstance(a, Tensor)])
        values = [cell(a, guarded) for a in arguments]
        pointers = (ctypes.c_void_p * max(len(values), 1))(*(ctypes.addressof(value) for value in values))
        error = ctypes.create_string_buffer(ERROR_BYTES)
        function = getattr(unit.library, f"simt_launch_{kernel}")
        if function(
            ctypes.c_longlong(blocks),
            ctypes.c_uint(threads),
            ctypes.c_int(self._order),
            ctypes.c_uint64(self._seed),
            ctypes.c_int(self._threads),
            pointers,
            error,
        ):
            raise SimtError(error.value.decode())
        written = guarded.overrun()
        if written is not None:
            tensor, byte = written
            number = next(i for i, a in enumerate(arguments) if a is tensor)
            raise SimtError(f"{where}: wrote outside argument {number}, at byte {byte} of {tensor.nbytes}")
        guarded.copy_back()

    def read_later(self, values: Tensor) -> Callable[[], list[int]]:
        known = values.flatten().tolist()
        return lambda: known


def check_arguments(where: str, expected: Sequence[str], arguments: Sequence[Argument]) -> None:
    """Raises SimtError where an argument is not what the kernel's parameter takes."""
    if len(expected) != len(arguments):
        raise SimtError(f"{where}: {len(arguments)} arguments; expected {len(expected)} ({', '.join(expected)})")
    for number, (parameter, argument) in enumerate(zip(expected, arguments, strict=True)):
        here = f"{where}: argument {number}"
        if isinstance(argument, Tensor):
            if argument.device.type != "cpu" or not argument.is_contiguous():
                raise SimtError(f"{here}: not a contiguous CPU tensor")
            found = f"*{'f' if argument.is_floating_point() else 'i'}{argument.element_size()}"
            if parameter != found and parameter != "*" and not (parameter[0] == "*" and argument.dtype == torch.uint8):
                raise SimtError(f"{here}: a tensor of {argument.dtype} for {parameter}")
        elif argument is None:
            if parameter[0] != "*":
                raise SimtError(f"{here}: None for {parameter}")
        elif type(argument) not in (int, float) or parameter != ("long long" if type(argument) is int else "float"):
            raise SimtError(f"{here}: {type(argument).__name__} for {parameter}")


def cell(argument: Argument, guarded: GuardedTensors) -> ctypes._SimpleCData:
    """An argument as the C value whose address the kernel's call gets."""
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(guarded.address(argument))
    if argument is None:
        return ctypes.c_void_p(None)
    return ctypes.c_longlong(argument) if isinstance(argument, int) else ctypes.c_float(argument)


class GuardedTensors:
    """Copies of tensors with guard zones around; tensors that overlap in memory lie in the same copy."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = [t for t in tensors if t.nbytes]
        self._copies: list[tuple[int, int, Tensor]] = []  # first byte, end, copy with guards
        spans: list[list[int]] = []
        for first, end in sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in self._tensors):
            if spans and first < spans[-1][1]:
                spans[-1][1] = max(end, spans[-1][1])
            else:
                spans.append([first, end])
        for first, end in spans:
            # Whole guards of 4096 bytes and torch's alignment of 64: the copy is aligned as the tensor is.
            lead = GUARD_BYTES + first % 64
            copy = torch.full((lead + end - first + GUARD_BYTES,), GUARD, dtype=torch.uint8)
            ctypes.memmove(copy.data_ptr() + lead, first, end - first)
            self._copies.append((first, end, copy))

    def address(self, tensor: Tensor) -> int:
        at = tensor.data_ptr()
        for first, end, copy in self._copies:
            if first <= at < end:
                return copy.data_ptr() + GUARD_BYTES + first % 64 + at - first
        return at  # of no bytes

    def overrun(self) -> tuple[Tensor, int] | None:
        """A tensor next to a guard byte that was written, and that byte's index counted from the tensor's start."""
        for first, end, copy in self._copies:
            lead = GUARD_BYTES + first % 64
            for begin, size in ((0, lead), (lead + end - first, GUARD_BYTES)):
                if ctypes.string_at(copy.data_ptr() + begin, size) != UNTOUCHED[:size]:
                    written = (copy[begin : begin + size] != GUARD).nonzero()
                    at = first - lead + begin + int(written[0 if begin else -1])
                    nearest = next(t for t in self._tensors if first <= t.data_ptr() < end)
                    return nearest, at - nearest.data_ptr()
        return None

    def copy_back(self) -> None:
        for first, end, copy in self._copies:
            ctypes.memmove(first, copy.data_ptr() + GUARD_BYTES + first % 64, end - first)


def kernels_of(text: str) -> dict[str, str]:
    """The kernels that a .cu file defines, with the largest block that their launch bounds allow, as C++."""
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    found = {name: before or after or str(MOST_THREADS) for before, after, name in KERNEL.findall(code)}
    functions = len(re.findall(r"\b__global__\b", code))
    if len(found) != functions:
        raise SimtError(f'{functions} __global__ functions, {len(found)} of them extern "C" __global__ void NAME(')
    return found


@dataclass(frozen=True)
class Unit:
    """A loaded .cu file, and what its kernels' parameters take: "long long", "float", "*f4" (pointer to float), "*"."""

    library: ctypes.CDLL
    kernels: dict[str, list[str]]


@cache
def load(source: Path, flags: tuple[str, ...] = ()) -> Unit:
    """A .cu file's kernels, compiled if they were not yet."""
    kernels = kernels_of(source.read_text())
    code = f'#include "simt.h"\n#include "{source}"\n'
    code += "".join(f"SIMT_KERNEL({name}, {bound})\n" for name, bound in kernels.items())
    flags = FLAGS + flags
    headers = sorted([*NATIVE.rglob("*.h"), *EMULATION.glob("*.h")])
    ingredients = [code.encode(), " ".join(flags).encode(), source.read_bytes(), *(h.read_bytes() for h in headers)]
    digest = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in ingredients)).hexdigest()[:24]
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / f"{source.stem}-{digest}.so"
    with open(CACHE / f"{source.stem}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes that want the same file wait for the first
        if not path.is_file():
            compile_unit(code, path, flags)
    library = ctypes.CDLL(str(path))
    return Unit(library, {name: parameters(library, name) for name in kernels})


def parameters(library: ctypes.CDLL, kernel: str) -> list[str]:
    text = ctypes.create_string_buffer(SIGNATURE_BYTES)
    getattr(library, f"simt_signature_{kernel}")(text)
    return text.value.decode().split(",")[:-1]


def compile_unit(code: str, library: Path, flags: Sequence[str]) -> None:
    """Compiles and links in two steps: linking with -fsanitize would add the library that simt.h stands in for."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        cpp, obj, new = (Path(folder) / f"kernels{suffix}" for suffix in (".cpp", ".o", ".so"))
        cpp.write_text(code)
        for command in (
            ["g++", *flags, f"-I{EMULATION}", "-c", str(cpp), "-o", str(obj)],
            ["g++", "-shared", "-fopenmp", "-Wl,-z,defs", str(obj), "-o", str(new)],
        ):
            result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
            if result.returncode:
                raise SimtError(f"g++ refuses {library.name}:\n{result.stderr}")
        new.replace(library)
