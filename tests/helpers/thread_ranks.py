# SPDX-License-Identifier: Apache-2.0
"""Ranks that are threads of one process and talk through a shared list: what torch.distributed does, without it."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from potr.render.sharded import dismiss, serve

TIMEOUT = 60.0  # seconds, after which a rank that waits in vain raises BrokenBarrierError


class ThreadRanks:
    """One of ``size`` ranks; ``sent`` counts the bytes of tensors that left this one."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, board: list[Any]) -> None:
        self.rank, self.size, self._barrier, self._board = rank, size, barrier, board
        self.broken, self.told = False, None
        self.sent = 0

    def device(self, kind: str) -> torch.device:
        return torch.device(kind)

    def announce(self, message: Any = None) -> Any:
        return self.collect(message)[0]

    def collect(self, message: Any) -> list[Any]:
        return [pickle.loads(m) for m in self._swap(pickle.dumps(message))]

    def broadcast(self, tensor: Tensor) -> None:
        tensor.copy_(self._swap(tensor.clone())[0])

    def exchange(self, send: Tensor) -> Tensor:
        self.sent += send.numel() * send.element_size()
        return torch.stack([sent[self.rank] for sent in self._swap(send.clone())])

    def gather(self, tensor: Tensor, into: list[Tensor] | None) -> None:
        for target, part in zip(into or [], self._swap(tensor.clone()), strict=False):
            target.copy_(part)

    def _swap(self, mine: Any) -> list[Any]:
        self._board[self.rank] = mine
        self._barrier.wait()
        all_of_them = list(self._board)
        self._barrier.wait()
        return all_of_them


def on_ranks(size: int, work: Callable[[ThreadRanks], Any]) -> Any:
    """What ``work`` returns on rank 0 while ``size - 1`` threads serve; raises what it raised, or a server did."""
    barrier, board = threading.Barrier(size, timeout=TIMEOUT), [None] * size
    ranks = [ThreadRanks(rank, size, barrier, board) for rank in range(size)]
    failures: list[BaseException] = []

    def helper(mine: ThreadRanks) -> None:
        try:
            serve(mine)
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=helper, args=(mine,)) for mine in ranks[1:]]
    for thread in threads:
        thread.start()
    try:
        return work(ranks[0])
    finally:
        dismiss(ranks[0])
        if ranks[0].broken:
            barrier.abort()
        for thread in threads:
            thread.join(TIMEOUT)
        if failures:
            raise failures[0]
