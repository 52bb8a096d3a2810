# SPDX-License-Identifier: Apache-2.0
"""For the CUDA benchmarks: times, memory and what they were measured on. Works on the CPU too, where tests run it."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from potr.evaluate.machine import describe_machine
from potr.evaluate.speed import Event

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("project", "sort splats", "emit", "sort entries", "blend", "gather")
_cuda_event = partial(torch.cuda.Event, enable_timing=True)


def wait(device: torch.device) -> None:
    """Until all the work queued on a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Of one call, wall-clock, the device idle before and after."""
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def median_ms(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Milliseconds of a call, the median after one that does not count."""
    call()
    return 1e3 * statistics.median(seconds_of(call, device) for _ in range(repeats))


def reset_peak(device: torch.device) -> None:
    """Start a new count of ``peak_bytes``."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """The most device memory that tensors took at once since ``reset_peak``, the model's among them; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


class StepTimer:
    """A rasteriser's ``on_step``: an event in the stream after each step of each view.

    Args:
        event: makes an event of the current stream.
    """

    def __init__(self, event: Callable[[], Event] = _cuda_event) -> None:
        self._event = event
        self._marks: list[tuple[str, Event]] = []

    def __call__(self, step: str) -> None:
        mark = self._event()
        mark.record()
        self._marks.append((step, mark))

    def milliseconds(self) -> dict[str, float]:
        """Each step's median over the views since the last call, without the first view, and forget them.

        A step that a view does more than once (in bands, or since its lists had not fitted) counts as their sum.
        """
        marks, self._marks = self._marks, []
        if not marks:
            return {}
        marks[-1][1].synchronize()
        views: list[dict[str, float]] = []
        for (_, before), (step, after) in pairwise(marks):
            if step == "project":
                views.append({})
            if views:  # else it is the first view's
                views[-1][step] = views[-1].get(step, 0.0) + before.elapsed_time(after)
        return {s: statistics.median(view.get(s, 0.0) for view in views) for s in STEPS if any(s in v for v in views)}


def environment() -> dict[str, Any]:
    """Date, machine, versions and commit; what cannot be found out is None."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **asdict(describe_machine()),
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda_of_torch": torch.version.cuda,
        "nvrtc": _nvrtc(),
        "commit": os.environ.get("POTR_COMMIT") or _output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
    }


def _nvrtc() -> str | None:
    try:
        from cuda.bindings import nvrtc
    except ImportError:
        return None
    status, major, minor = nvrtc.nvrtcVersion()
    return f"{major}.{minor}" if int(status) == 0 else None


def _output(*command: str) -> str | None:
    """The first line that a program prints; None if it is not there or fails."""
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(printed.splitlines()), "").strip() or None
