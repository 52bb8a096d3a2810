# SPDX-License-Identifier: Apache-2.0
"""One scene's statistics from several processes, the same bits as from one.

Rank 0 runs the encoder. When it wants statistics it sends the model to the others, which wait in ``serve``. Blocks of
views (render/blocks.py) are dealt to the ranks in turn. After each round every rank adds up its share of the splats
over the round's blocks, in their order: no rank holds more than its own block, its share of the sums and a small
buffer. In the end rank 0 collects the shares. Nothing is decided anywhere but on rank 0.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import torch
from torch import Tensor

from potr.errors import BackendUnavailable, PotrError, RanksLost
from potr.model.cameras import RGB, Camera, View
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import ColorStatistics, GeometryStatistics, Rasterizer, RemovalCost
from potr.render.blocks import VIEWS_PER_BLOCK, Sums, add, in_blocks
from potr.render.ranks import MAIN, Ranks
from potr.render.select import signature

EXCHANGE_BYTES = 32 << 20  # size of the buffers of sums on their way between ranks

Make = Callable[[], Rasterizer]


@dataclass(frozen=True, eq=False)
class _Setting:
    """What rarely changes between two questions."""

    make: Make
    views: tuple[View, ...]

    def same(self, other: object) -> bool:
        return (
            isinstance(other, _Setting)
            and self.make is other.make
            and len(self.views) == len(other.views)
            and all(a is b for a, b in zip(self.views, other.views, strict=True))
        )


@dataclass(frozen=True)
class _Question:
    """What rank 0 asks of all: ``kind`` is the Rasterizer's method; without a setting the last one holds."""

    kind: str
    setting: _Setting | None
    background: RGB | None
    shapes: dict[str, tuple[int, ...]]  # of the model's tensors
    device: str


@dataclass(frozen=True)
class _Part:
    """What a rank says of its block: on which backend, the squared error and samples, or what went wrong."""

    backend: str = ""
    sse: float = 0.0
    samples: int = 0
    refused: str | None = None
    bug: str | None = None


class ShardedRasterizer:
    """A backend on several ranks, for rank 0, while the others are in ``serve``. It renders by itself.

    Args:
        make: creates the backend, on every rank; picklable, as must be the views.
        ranks: this process and the others.

    Its methods raise RanksLost if a rank is gone, BackendUnavailable if the ranks' processors do not give the same
    bits or have no device like the model's, and PotrError for what another rank was refused.
    """

    def __init__(self, make: Make, ranks: Ranks) -> None:
        self._make, self._ranks, self._own = make, ranks, make()

    @property
    def name(self) -> str:
        return self._own.name

    @property
    def device(self) -> torch.device:
        """Of this rank; each has its own of the same kind."""
        return self._own.device

    @property
    def instruction_set(self) -> str:
        """Of every rank, for they have to agree."""
        return str(getattr(self._own, "instruction_set", ""))

    def render(self, model: SplatModel, camera: Camera, background: RGB) -> Tensor:
        return self._own.render(model, camera, background)

    def removal_cost(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> RemovalCost:
        return self._ask(RemovalCost, "removal_cost", model, views, background, progress)

    def color_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> ColorStatistics:
        return self._ask(ColorStatistics, "color_statistics", model, views, background, progress)

    def geometry_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> GeometryStatistics:
        return self._ask(GeometryStatistics, "geometry_statistics", model, views, background, progress)

    @torch.no_grad()
    def _ask(
        self, result: type[Sums], kind: str, model: SplatModel, views: Sequence[View], background: RGB | None,
        progress: Progress,
    ) -> Sums:  # fmt: skip
        ranks = self._ranks
        if ranks.broken:
            raise RanksLost("the processes of this run fell out of step in an earlier failure; start it again")
        ranks.device(model.device.type)  # before the others hear of it
        setting = _Setting(self._make, tuple(views))
        news = None if setting.same(ranks.told) else setting
        tensors = {f.name: getattr(model, f.name).detach() for f in fields(model)}
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        ranks.told, ranks.broken = None, True  # until all have heard it, until all are done
        ranks.announce(_Question(kind, news, background, shapes, model.device.type))
        for tensor in tensors.values():
            ranks.broadcast(tensor)
        ranks.told = setting
        sums = _share(ranks, _Task(lambda: self._own, kind, model, background), setting.views, progress)
        if views:
            progress(len(views), len(views))
        return result(**sums)


def serve(ranks: Ranks) -> None:
    """Answer rank 0 until it has no more questions.

    Raises:
        RanksLost: rank 0, or another one, is gone.
    """
    backend = views = None
    while (question := ranks.announce()) is not None:
        ranks.broken = True
        device = ranks.device(question.device)
        tensors = {name: torch.empty(shape, device=device) for name, shape in question.shapes.items()}
        for tensor in tensors.values():
            ranks.broadcast(tensor)
        if question.setting is not None:
            backend, views = cache(question.setting.make), question.setting.views
        assert backend is not None, "the first question has a setting"
        assert views is not None, "the first question has a setting"
        try:
            _share(ranks, _Task(backend, question.kind, SplatModel(**tensors), question.background), views, silent)
        except Exception:
            if ranks.broken:
                raise  # otherwise rank 0 tells of it


def dismiss(ranks: Ranks) -> None:
    """Tell the others that there are no more questions."""
    if not ranks.broken:
        ranks.announce(None)


@dataclass(frozen=True, eq=False)
class _Task:
    """A question without its views."""

    backend: Make
    kind: str
    model: SplatModel
    background: RGB | None

    def attempt(self, block: Sequence[View], progress: Progress) -> tuple[_Part, Any, BaseException | None]:
        """What to say of a block, its statistics, and what was raised instead."""
        try:
            backend = self.backend()
            sums = getattr(backend, self.kind)(self.model, block, self.background, progress=progress)
            return _Part(signature(backend), sums.sse, sums.samples), sums, None
        except PotrError as error:
            return _Part(refused=str(error)), None, error
        except BaseException as error:  # an interruption, too, has to be told before it takes its way
            return _Part(bug=traceback.format_exc()), None, error


def _share(ranks: Ranks, task: _Task, views: Sequence[View], progress: Progress) -> dict[str, Any]:
    """This rank's part in an answer; on rank 0 the fields of the result, elsewhere none.

    Leaves ``ranks.broken`` at False if all ranks come to the same end, be it an error.
    """
    blocks = in_blocks(views)
    shares: dict[str, Tensor] = {}
    shapes: dict[str, torch.Size] = {}
    sse, samples = 0.0, 0
    for first in range(0, len(blocks), ranks.size):
        dealt = blocks[first : first + ranks.size]

        def report(_: str, done: int, __: int, /, first: int = first, ranks_busy: int = len(dealt)) -> None:
            # All ranks are taken to be as far as this one; the last view is reported when all are through.
            progress(min(first * VIEWS_PER_BLOCK + done * ranks_busy, len(views) - 1), len(views))

        part, sums, error = task.attempt(dealt[ranks.rank] if ranks.rank < len(dealt) else (), Progress(report))
        parts = ranks.collect(part)
        error = error or _failure(parts)
        if error is not None:
            ranks.broken = False
            raise error
        for field in fields(sums):
            if isinstance(tensor := getattr(sums, field.name), Tensor):
                share = shares.get(field.name)
                shares[field.name] = _add_round(ranks, field.name, tensor, share, len(dealt))
                shapes[field.name] = tensor.shape
        for told in parts[: len(dealt)]:
            sse, samples = sse + told.sse, samples + told.samples
        del sums, tensor
    whole = {name: _gather(ranks, shares.pop(name), shape) for name, shape in shapes.items()}
    ranks.broken = False
    return {**whole, "sse": sse, "samples": samples} if ranks.rank == MAIN else {}


def _failure(parts: Sequence[_Part]) -> Exception | None:
    """Why the ranks' parts of a round cannot be added up."""
    for rank, part in enumerate(parts):
        if part.refused is not None:
            return PotrError(f"process {rank} of {len(parts)}: {part.refused}")
        if part.bug is not None:
            return RuntimeError(f"process {rank} of {len(parts)}:\n{part.bug}")
    backends = sorted({part.backend for part in parts})
    if len(backends) > 1:
        return BackendUnavailable(
            f"the processes of this run use different backends ({'; '.join(backends)}) and would not give the bytes "
            "that one gives; POTR_INSTRUCTION_SET sets one that all machines have"
        )
    return None


def _add_round(ranks: Ranks, name: str, tensor: Tensor, share: Tensor | None, blocks: int) -> Tensor:
    """[ceil(N / R), C]: this rank's rows of a sum, the first ``blocks`` ranks' blocks added to it in order.

    Args:
        tensor: [N, ...] this rank's block.
        share: the rows so far; None before the first round.
    """
    flat = tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None]
    n, columns = flat.shape
    rows = -(-n // ranks.size)
    new = share is None
    share = flat.new_empty(rows, columns) if share is None else share
    step = max(1, EXCHANGE_BYTES // (ranks.size * columns * flat.element_size()))
    for start in range(0, rows, step):
        own = share[start : start + step]
        send = flat.new_zeros(ranks.size, len(own), columns)
        for rank in range(ranks.size):
            piece = flat[rank * rows + start :][: len(own)]
            send[rank, : len(piece)] = piece
        received = ranks.exchange(send)
        for block in range(blocks):
            if new and block == 0:
                own.copy_(received[0])
            else:
                add(name, own, received[block])
    return share


def _gather(ranks: Ranks, share: Tensor, shape: torch.Size) -> Tensor | None:
    """[N, ...] on rank 0 from every rank's rows."""
    rows, columns = share.shape
    whole = share.new_empty(ranks.size * rows, columns) if ranks.rank == MAIN else None
    if rows:
        ranks.gather(share, None if whole is None else list(whole.view(ranks.size, rows, columns)))
    return None if whole is None else whole[: shape[0]].reshape(shape)
