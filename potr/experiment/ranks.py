# SPDX-License-Identifier: Apache-2.0
"""A run on the processes that torchrun starts: rank 0 runs as if alone, the others compute statistics for it."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from potr.errors import RanksLost
from potr.render.base import Rasterizer
from potr.render.ranks import MAIN, TorchRanks, expected, local_share
from potr.render.select import select
from potr.render.sharded import ShardedRasterizer, dismiss, serve
from potr.threads import available_cores

_LOST = 2  # exit code

_ranks: TorchRanks | None = None  # of this process, as torch has one process group


def lead(work: Callable[[], None]) -> None:
    """Call ``work`` on rank 0 while the other ranks help; outside torchrun just call it.

    The others answer rank 0's questions until ``work`` ends. They say nothing and write nothing but the cache of the
    photographs they read, and exit: with 0, or with 2 where they lost rank 0.
    """
    global _ranks
    if expected() == 1:
        work()
        return
    if int(os.environ["RANK"]) != MAIN:
        sys.exit(_help())
    try:
        _ranks = TorchRanks()
    except RanksLost as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_LOST)
    torch.set_num_threads(available_cores())  # torchrun says 1; the others rest while torch works here
    code: str | int | None = None
    try:
        work()
    except SystemExit as end:
        code = end.code
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one interruption is enough
        ranks, _ranks = _ranks, None
        with suppress(RanksLost):
            dismiss(ranks)
            ranks.leave()
        if ranks.broken and isinstance(code, int):
            _end_at_once(code)


def _end_at_once(code: int) -> None:
    """Exit without Python's teardown, in which a thread of gloo's that still waits may abort the process."""
    atexit._run_exitfuncs()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def count() -> int:
    """How many processes compute statistics."""
    return 1 if _ranks is None else _ranks.size


def own_threads(threads: int | None) -> int | None:
    """What rank 0 works with by itself: all cores while the others rest, for torchrun sets OMP_NUM_THREADS to 1."""
    return available_cores() if threads is None and _ranks is not None else threads


def shared(rasterizer: Rasterizer, threads: int | None, options: Mapping[str, Any] | None = None) -> Rasterizer:
    """A backend like ``rasterizer`` whose statistics come from all ranks; itself where this process is alone.

    Args:
        rasterizer: one that ``select`` makes.
        threads: of each rank; None gives each its share of its machine's cores.
        options: as ``select`` takes them.
    """
    if _ranks is None:
        return rasterizer
    return ShardedRasterizer(partial(_backend, rasterizer.name, threads, options), _ranks)


def _backend(name: str, threads: int | None, options: Mapping[str, Any] | None) -> Rasterizer:
    share = local_share(available_cores()) if threads is None else threads
    return select(name, threads=share, options=options)


def _help() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 decides what an interruption means
    logging.getLogger("potr").addHandler(logging.NullHandler())
    torch.set_num_threads(local_share(available_cores()))
    try:
        ranks = TorchRanks()
        serve(ranks)
        ranks.leave()
    except RanksLost:
        return _LOST
    return 0
