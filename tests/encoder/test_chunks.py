# SPDX-License-Identifier: Apache-2.0
"""Chunks of splats on several threads: in order, alike, and nothing left behind."""

import threading

import pytest
import torch

from potr.encoder.chunks import map_chunks

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def seen_by_a_new_thread() -> int:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join(timeout=60)
    return seen[0]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 95])
def test_every_splat_once_and_in_order(threads: int, count: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parts = map_chunks(lambda part: range(count)[part], count, CPU, size=10)
    finally:
        torch.set_num_threads(before)
    assert [i for part in parts for i in part] == list(range(count))
    assert all(len(part) == 10 for part in parts[:-1])


@pytest.mark.usefixtures("two_threads")
def test_torch_has_one_thread_at_work_and_as_many_as_before_afterwards() -> None:
    both = threading.Barrier(2, timeout=60)  # two chunks are worked on at a time

    def work(part: slice) -> tuple[int, str]:
        both.wait()
        return torch.get_num_threads(), threading.current_thread().name

    done = map_chunks(work, 2, CPU, size=1)
    assert [threads for threads, _ in done] == [1, 1]
    assert len({name for _, name in done} | {threading.current_thread().name}) == 3
    assert torch.get_num_threads() == seen_by_a_new_thread() == 2


@pytest.mark.usefixtures("two_threads")
def test_what_goes_wrong_is_raised_and_leaves_nothing_behind() -> None:
    def work(part: slice) -> None:
        if part.start == 3:
            raise ValueError("chunk 3")

    with pytest.raises(ValueError, match="chunk 3"):
        map_chunks(work, 10, CPU, size=1)
    assert torch.get_num_threads() == seen_by_a_new_thread() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_the_work_is_done_in_the_caller_s_mode(mode: type) -> None:
    def modes(_: slice) -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    with mode():
        assert set(map_chunks(modes, 4, CPU, size=1)) == {modes(slice(0))}


@pytest.mark.usefixtures("two_threads")
def test_elsewhere_than_on_the_cpu_one_chunk_follows_the_other() -> None:
    names = map_chunks(lambda _: threading.current_thread().name, 3, torch.device("meta"), size=1)
    assert names == [threading.current_thread().name] * 3
