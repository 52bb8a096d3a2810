# SPDX-License-Identifier: Apache-2.0
"""What the host side of the CUDA kernels needs of a machine: to launch them, and to read a few numbers later.

The `cuda` backend launches on a GPU (nvrtc.py). The tests run the same host code and the same kernels on the CPU,
through an emulation of a GPU's threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Argument = Tensor | int | float | None


class Launcher(Protocol):
    """Launches kernels of potr/native/cuda on tensors of one device, in order."""

    @property
    def device(self) -> torch.device: ...

    def launch(self, source: str, kernel: str, blocks: int, threads: int, *arguments: Argument) -> None:
        """Queue a kernel.

        Args:
            source: stem of the .cu file.
            kernel: name of the function in it.
            blocks: of the one-dimensional grid; 0 launches nothing.
            threads: of a block, a multiple of 32.
            arguments: a contiguous tensor on ``device`` goes as a pointer, None as a null pointer, an int as
                ``long long``, a float as ``float``.
        """
        ...

    def read_later(self, values: Tensor) -> Callable[[], list[int]]:
        """A function that waits for the work queued so far, not for what comes after, and gives the integers."""
        ...
