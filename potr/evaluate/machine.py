# SPDX-License-Identifier: Apache-2.0
"""What a figure was measured on, and how much memory the process took at most."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from potr.threads import available_cores

_PROC = Path("/proc/self")


@dataclass(frozen=True)
class Machine:
    """Attributes: ``cores`` this process may use, ``threads`` torch uses, ``memory_bytes`` of the machine (None where
    the system does not say), ``gpu`` name or None; the rest are names and versions."""

    cpu: str
    architecture: str
    cores: int
    threads: int
    memory_bytes: int | None
    gpu: str | None
    system: str
    python: str
    torch: str


def describe_machine() -> Machine:
    """The machine this process runs on, as it is now."""
    return Machine(
        cpu=_cpu_name(),
        architecture=platform.machine(),
        cores=available_cores(),
        threads=torch.get_num_threads(),
        memory_bytes=_memory_bytes(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=str(torch.__version__),
    )


def describe_device(device: torch.device) -> str:
    """The name of the processor behind a torch device, for speed figures."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_name() if device.type == "cpu" else str(device)


def reset_peak_memory() -> bool:
    """Start a new count of ``peak_memory_bytes``; False where the system cannot, and the count goes on (Linux only)."""
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory_bytes() -> int | None:
    """The largest resident memory of this process since it started or since ``reset_peak_memory``; None if unknown."""
    high_water = _kibibytes(_PROC / "status", "VmHWM:")
    if high_water is not None:
        return high_water
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine() or "unknown"


def _memory_bytes() -> int | None:
    return _kibibytes(Path("/proc/meminfo"), "MemTotal:")


def _kibibytes(path: Path, key: str) -> int | None:
    """Bytes of a ``key  N kB`` line as Linux writes them."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(key)), None)
