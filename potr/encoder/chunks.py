# SPDX-License-Identifier: Apache-2.0
"""Work on splats that do not depend on one another, a chunk of them at a time: what memory and caches bear."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
CHUNK = 1 << 14  # splats
MOST_WORKERS = 8  # each has the memory of a chunk


def map_chunks(work: Callable[[slice], T], count: int, device: torch.device, *, size: int = CHUNK) -> list[T]:
    """``work`` of every stretch of ``size`` of ``count`` splats, in order.

    On the CPU as many threads as torch may use here (at most MOST_WORKERS) take a chunk each, with torch at one thread
    in each: the short operations of a chunk would otherwise be shared by threads that wait for one another longer than
    they work. How many threads torch uses in the threads that there are is left alone; one that begins meanwhile
    begins with one.

    Args:
        work: of a slice of the splats; writes nothing that another slice's reads.
        count: of the splats.
        device: where the work is done.
        size: splats of a chunk; the last may have fewer.
    """
    parts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    threads = torch.get_num_threads()
    workers = min(threads, len(parts), MOST_WORKERS)
    if workers < 2 or device.type != "cpu":
        return [work(part) for part in parts]
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()  # of this thread

    def alike(part: slice) -> T:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return work(part)

    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(alike, parts))
    finally:
        torch.set_num_threads(threads)  # what threads yet to come begin with
