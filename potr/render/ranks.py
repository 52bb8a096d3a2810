# SPDX-License-Identifier: Apache-2.0
"""Messages between the processes ("ranks") that share the views of a scene: torch.distributed behind a small interface.

Rank 0 asks, the others answer; see render/sharded.py for what is said.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from potr.errors import BackendUnavailable, RanksLost

MAIN = 0
EXCHANGE = timedelta(minutes=30)  # the longest that one rank may be behind another when they exchange sums
PATIENCE = timedelta(days=7)  # between two questions: rank 0 opens scenes and measures images meanwhile
T = TypeVar("T")


class Ranks(Protocol):
    """What the ranks say to each other. Every rank calls the same methods in the same order.

    Attributes: ``rank`` of this process, ``size`` the number of ranks, ``broken`` whether they are, or may be, out of
    step (nothing repairs that), ``told`` what rank 0 has told the others to keep (rank 0's note).
    """

    broken: bool
    told: Any

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def device(self, kind: str) -> torch.device:
        """This rank's device of a kind ("cpu", "cuda"); BackendUnavailable, on all ranks, if they have none each."""

    def announce(self, message: Any = None) -> Any:
        """Rank 0's message, on every rank; the others wait for it however long it takes."""

    def collect(self, message: T) -> list[T]:
        """Every rank's message, on every rank."""

    def broadcast(self, tensor: Tensor) -> None:
        """Overwrite a contiguous tensor by rank 0's."""

    def exchange(self, send: Tensor) -> Tensor:
        """[R, ...]: send[i] goes to rank i, and [j] of the result came from rank j."""

    def gather(self, tensor: Tensor, into: list[Tensor] | None) -> None:
        """Every rank's tensor into rank 0's list; the others give None."""


class TorchRanks:
    """The ranks that torchrun (or MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE by hand) tells this process of.

    Tensors on the CPU go by gloo, those on a GPU by NCCL, where there is a GPU for each rank of a machine: number
    LOCAL_RANK. Machines have to be alike in this.

    Raises:
        RanksLost: the others do not come, here or in any method later.
    """

    def __init__(self) -> None:
        self.broken, self.told = False, None
        self._local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        backend = "gloo"
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._own_gpu = dist.is_nccl_available() and local_size <= torch.cuda.device_count()
        if self._own_gpu:
            backend = "cpu:gloo,cuda:nccl"
            torch.cuda.set_device(self.device("cuda"))
        with self._contact():
            dist.init_process_group(backend, timeout=EXCHANGE)
            # Small messages have a group of their own, for its other time limit. A rank that dies is noticed at once.
            self._messages: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
        self._rank, self._size = dist.get_rank(), dist.get_world_size()

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def size(self) -> int:
        return self._size

    def device(self, kind: str) -> torch.device:
        if kind != "cuda":
            return torch.device(kind)
        if not self._own_gpu:
            raise BackendUnavailable(
                f"cuda: expected a GPU, and NCCL, for each of the {self.size} processes of this run, found fewer; "
                "start one process for each GPU (torchrun --nproc-per-node), or take backend=cpu"
            )
        return torch.device(kind, self._local_rank)

    def announce(self, message: Any = None) -> Any:
        box = [message]
        with self._contact():
            dist.broadcast_object_list(box, MAIN, group=self._messages)
        return box[0]

    def collect(self, message: T) -> list[T]:
        box: list[Any] = [None] * self.size
        with self._contact():
            dist.all_gather_object(box, message, group=self._messages)
        return box

    def broadcast(self, tensor: Tensor) -> None:
        with self._contact():
            dist.broadcast(tensor, MAIN)

    def exchange(self, send: Tensor) -> Tensor:
        received = torch.empty_like(send)
        with self._contact():
            dist.all_to_all_single(received, send)
        return received

    def gather(self, tensor: Tensor, into: list[Tensor] | None) -> None:
        with self._contact():
            dist.gather(tensor, into, dst=MAIN)

    def leave(self) -> None:
        """End the group. Ranks out of step only drop their connections: there is nobody left to say goodbye to."""
        if not self.broken and dist.is_initialized():
            dist.destroy_process_group()

    @contextmanager
    def _contact(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:  # torch's own errors derive from these
            self.broken = True
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise RanksLost(f"lost contact between the processes of this run ({first_line})") from error
        except BaseException:
            self.broken = True
            raise


def local_share(cores: int) -> int:
    """Of ``cores``, how many each of the ranks on this machine takes."""
    return max(1, cores // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def expected() -> int:
    """How many ranks the environment says there are; 1 outside torchrun."""
    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in names) else 1
