# SPDX-License-Identifier: Apache-2.0
"""Statistics from several ranks: the same bits as from one, and what happens when a rank fails."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from threading import BrokenBarrierError
from typing import Any

import pytest
import torch
from torch import Tensor

from potr.errors import BackendUnavailable, PotrError, RanksLost, SceneError
from potr.model.cameras import WHITE, View
from potr.progress import Progress
from potr.render import sharded
from potr.render.base import Rasterizer
from potr.render.blocks import VIEWS_PER_BLOCK, in_blocks, sum_of_blocks
from potr.render.cpu import CpuRasterizer
from potr.render.select import select
from potr.render.sharded import ShardedRasterizer
from tests.helpers.scenes import look_at_camera, random_model, random_views
from tests.helpers.thread_ranks import ThreadRanks, on_ranks

KINDS = ("removal_cost", "color_statistics")
CPU = partial(select, "cpu", threads=1)


def assert_same_bits(actual: Any, expected: Any) -> None:
    for f in fields(expected):
        a, b = getattr(actual, f.name), getattr(expected, f.name)
        if isinstance(b, Tensor):
            assert (a.dtype, a.shape) == (b.dtype, b.shape), f.name
            assert a.numpy().tobytes() == b.numpy().tobytes(), f.name
        else:
            assert a == b, f.name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_statistics_are_the_sums_of_their_blocks(backend: str, kind: str) -> None:
    # What the Protocol promises, and all that sharing the views among ranks needs.
    views = random_views(50, 2 * VIEWS_PER_BLOCK + 3 if backend == "cpu" else VIEWS_PER_BLOCK + 1)
    model, ask = random_model(51, num_splats=120), getattr(select(backend, threads=1), kind)
    reported: list[int] = []
    by_blocks = sum_of_blocks(
        lambda block, progress: ask(model, block, progress=progress),
        views,
        Progress(lambda _, done, total: reported.append(done)),
    )
    assert_same_bits(ask(model, views), by_blocks)
    assert reported == list(range(1, len(views) + 1))


def test_the_cpu_backend_adds_up_hessians_by_these_blocks() -> None:
    # float32 sums in another order differ in their last bits: the test above could otherwise not fail.
    views, model = random_views(52, 2 * VIEWS_PER_BLOCK), random_model(53, num_splats=300)
    whole = CPU().color_statistics(model, views)
    other = sum((CPU().color_statistics(model, [view]).hessian for view in views), torch.zeros_like(whole.hessian))
    assert not torch.equal(whole.hessian, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("size", "views", "splats"),
    [(2, 19, 120), (3, 19, 121), (3, 41, 50), (5, 17, 7), (2, 8, 33), (4, 1, 10), (2, 0, 10), (3, 9, 0), (4, 30, 2)],
    ids=lambda value: str(value),
)
def test_ranks_give_the_bits_of_one(
    size: int, views: int, splats: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Even and uneven blocks, fewer blocks or splats than ranks, and an exchange in many small pieces.
    monkeypatch.setattr(sharded, "EXCHANGE_BYTES", 4096)
    model, scene = random_model(54, num_splats=splats), random_views(55, views)
    expected = getattr(CPU(), kind)(model, scene, WHITE)
    told: list[tuple[str, int, int]] = []

    def work(ranks: ThreadRanks) -> Any:
        ask = getattr(ShardedRasterizer(CPU, ranks), kind)
        return ask(model, scene, WHITE, progress=Progress(lambda *step: told.append(step), "a stage"))

    assert_same_bits(on_ranks(size, work), expected)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert not views or told[-1] == ("a stage", views, views)
    assert all(done < views for _, done, _ in told[:-1])


def test_questions_follow_each_other_and_views_are_sent_once() -> None:
    model, views = random_model(56), random_views(57, 20)
    sent: list[bool] = []

    def work(ranks: ThreadRanks) -> list[Any]:
        announce = ranks.announce
        ranks.announce = lambda question=None: sent.append(bool(question and question.setting)) or announce(question)
        first, second = ShardedRasterizer(CPU, ranks), ShardedRasterizer(partial(select, "reference"), ranks)
        return [
            first.removal_cost(model, views),
            first.color_statistics(model.select(torch.arange(20)), list(views)),
            first.removal_cost(model, views[:9]),
            second.removal_cost(model, views[:9]),
        ]

    one, few, reference = CPU(), views[:9], select("reference")
    expected = [
        one.removal_cost(model, views),
        one.color_statistics(model.select(torch.arange(20)), views),
        one.removal_cost(model, few),
        reference.removal_cost(model, few),
    ]
    for actual, wanted in zip(on_ranks(3, work), expected, strict=True):
        assert_same_bits(actual, wanted)
    assert sent == [True, False, True, True, False]  # the last is the dismissal


def test_each_view_is_computed_once_and_no_rank_is_idle() -> None:
    seen: dict[int, int] = {}

    class Counting(CpuRasterizer):
        def removal_cost(self, model: Any, views: Sequence[View], *rest: Any, **options: Any) -> Any:
            seen[id(self)] = seen.get(id(self), 0) + len(views)
            return super().removal_cost(model, views, *rest, **options)

    def work(ranks: ThreadRanks) -> Any:
        return ShardedRasterizer(_Local(Counting), ranks).removal_cost(random_model(58), random_views(59, 40))

    on_ranks(5, work)
    assert list(seen.values()) == [VIEWS_PER_BLOCK] * 5


def test_the_traffic_is_a_share_of_every_block() -> None:
    model, views, size = random_model(60, num_splats=64), random_views(61, 32), 4

    def work(ranks: ThreadRanks) -> int:
        ShardedRasterizer(CPU, ranks).color_statistics(model, views)
        return ranks.sent

    assert on_ranks(size, work) == 64 * (136 * 4 + 16 * 3 * 4 + 8 + 8 + 4)  # one round: its own block, once


class _Local:
    """Makes what the test says; travels between the threads as itself."""

    made: dict[int, Callable[[], Rasterizer]] = {}  # noqa: RUF012

    def __init__(self, make: Callable[[], Rasterizer]) -> None:
        self.key = id(make)
        self.made[self.key] = make

    def __call__(self) -> Rasterizer:
        return self.made[self.key]()


def _unreadable() -> Tensor:
    raise SceneError("/photos/7.png: not a readable image")


def _interrupting(stage: str, done: int, total: int) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", [1, 9], ids=["on rank 0", "on another rank"])
def test_a_refusal_of_any_rank_reaches_rank_0_and_the_others_stay(where: int) -> None:
    model, views = random_model(62), random_views(63, 20)
    bad = [replace(view, image=_unreadable) if i == where else view for i, view in enumerate(views)]

    def work(ranks: ThreadRanks) -> Any:
        rasterizer = ShardedRasterizer(CPU, ranks)
        with pytest.raises(PotrError, match=r"photos/7\.png: not a readable image") as refusal:
            rasterizer.color_statistics(model, bad)
        assert str(refusal.value).startswith("process 1 of 3: ") == (where == 9)
        with pytest.raises(KeyboardInterrupt):
            rasterizer.removal_cost(model, views, progress=Progress(_interrupting))
        return rasterizer.removal_cost(model, views)

    assert_same_bits(on_ranks(3, work), CPU().removal_cost(model, views))


def test_a_bug_in_another_rank_is_told_with_its_traceback() -> None:
    views = random_views(64, 20)
    views[8] = replace(views[8], image=partial(int, "seven"))

    def work(ranks: ThreadRanks) -> None:
        with pytest.raises(RuntimeError, match=r"(?s)process 1 of 2:\nTraceback .*invalid literal"):
            ShardedRasterizer(CPU, ranks).removal_cost(random_model(65), views)

    on_ranks(2, work)


def test_ranks_that_would_give_other_bits_are_refused() -> None:
    def work(ranks: ThreadRanks) -> None:
        rasterizer = ShardedRasterizer(CPU, ranks)
        rasterizer._own.instruction_set = "x86-64-v1"  # type: ignore[attr-defined]
        with pytest.raises(BackendUnavailable, match=r"different backends.*x86-64-v1.*POTR_INSTRUCTION_SET"):
            rasterizer.removal_cost(random_model(66), random_views(67))

    on_ranks(2, work)


def test_a_model_on_a_device_that_not_every_rank_has_is_refused_before_it_is_sent() -> None:
    model, views = random_model(64), random_views(65, 3)

    def work(ranks: ThreadRanks) -> None:
        def device(kind: str) -> torch.device:
            if kind == "meta":
                raise BackendUnavailable("a device for each rank")
            return torch.device(kind)

        ranks.device = device  # type: ignore[method-assign]
        shared = ShardedRasterizer(CPU, ranks)
        assert shared.device == torch.device("cpu")
        with pytest.raises(BackendUnavailable, match="a device for each rank"):
            shared.removal_cost(model.to("meta"), views)
        assert_same_bits(shared.removal_cost(model, views), CPU().removal_cost(model, views))

    on_ranks(2, work)


def test_ranks_out_of_step_are_not_asked_again() -> None:
    def cut(send: Tensor) -> Tensor:
        raise RanksLost("gone")

    def work(ranks: ThreadRanks) -> None:
        ranks.exchange = cut  # type: ignore[method-assign]
        rasterizer = ShardedRasterizer(CPU, ranks)
        with pytest.raises(RanksLost, match="gone"):
            rasterizer.removal_cost(random_model(68), random_views(69))
        with pytest.raises(RanksLost, match="out of step"):
            rasterizer.removal_cost(random_model(68), random_views(69))

    with pytest.raises(BrokenBarrierError):  # the helper is left alone
        on_ranks(2, work)


def test_rendering_and_the_name_are_the_backends() -> None:
    def work(ranks: ThreadRanks) -> tuple[str, Tensor]:
        rasterizer = ShardedRasterizer(CPU, ranks)
        return rasterizer.name, rasterizer.render(random_model(70), look_at_camera(0.1), WHITE)

    name, image = on_ranks(2, work)
    assert name == "cpu"
    assert torch.equal(image, CPU().render(random_model(70), look_at_camera(0.1), WHITE))


def test_blocks() -> None:
    views = random_views(71, 2 * VIEWS_PER_BLOCK + 1)
    assert [len(block) for block in in_blocks(views)] == [VIEWS_PER_BLOCK, VIEWS_PER_BLOCK, 1]
    assert in_blocks([]) == [[]]
