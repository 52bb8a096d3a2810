# SPDX-License-Identifier: Apache-2.0
"""The threads of the native loops: any number of them, asked from several at once, in a child of fork(), asleep."""

import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from potr.encoder.sh_solver import CompactParameters, compact
from potr.render import cpu
from potr.render.cpu import CpuRasterizer
from potr.threads import MAX_THREADS
from tests.helpers.scenes import random_model, random_views
from tests.render.test_backends import all_results

MODEL, VIEWS = random_model(20, num_splats=6000, log_scale=-2.5), random_views(21, 3, width=130, height=90)


def everything(raster: CpuRasterizer) -> dict[str, Tensor]:
    geometry = raster.geometry_statistics(MODEL, VIEWS)
    return {**all_results(raster, MODEL, VIEWS), "geometry": geometry.hessian, "slope": geometry.gradient}


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return everything(CpuRasterizer(threads=1))


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


@pytest.mark.parametrize("tape_bytes", [1, 1 << 18, 1 << 20])
def test_bounded_tapes_change_nothing(
    expected: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, tape_bytes: int
) -> None:
    monkeypatch.setattr(cpu, "TAPE_BYTES", tape_bytes)
    for threads in (1, 3):
        assert_same(everything(CpuRasterizer(threads=threads)), expected)


def test_the_most_threads_that_are_allowed(expected: dict[str, Tensor]) -> None:
    assert_same(everything(CpuRasterizer(threads=MAX_THREADS)), expected)


def in_threads(work: list[Callable[[], object]]) -> None:
    """All of it at once; raises what any of it raised."""
    errors: list[BaseException] = []

    def run(one: Callable[[], object]) -> None:
        try:
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_one_rasterizer_serves_several_python_threads(expected: dict[str, Tensor]) -> None:
    raster = CpuRasterizer(threads=2)
    in_threads([lambda: assert_same(everything(raster), expected) for _ in range(4)])


def test_several_rasterizers_share_the_threads(expected: dict[str, Tensor]) -> None:
    in_threads([lambda n=n: assert_same(everything(CpuRasterizer(threads=n)), expected) for n in (1, 2, 3, 4)])


def test_the_solver_gives_the_same_bits_on_any_number_of_threads() -> None:
    generator = torch.Generator().manual_seed(3)
    sh = torch.randn(5000, 16, 3, generator=generator)
    hessian = torch.zeros(5000, 136)
    hessian[:, [i * (i + 3) // 2 for i in range(16)]] = torch.rand(5000, 16, generator=generator)
    parameters = CompactParameters((0.01,) * 3, (0.05,) * 3, 1.0, 0.0)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(compact(hessian, sh, parameters))
    finally:
        torch.set_num_threads(before)
    assert 0 < int((results[0] == 0).sum()) < results[0].numel()
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork() on this system")
def test_a_child_of_fork_has_threads_of_its_own(expected: dict[str, Tensor]) -> None:
    raster = CpuRasterizer(threads=3)
    image = raster.render(MODEL, VIEWS[0].camera, VIEWS[0].background)  # the parent's threads are there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of fork() beside threads
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        same = torch.equal(raster.render(MODEL, VIEWS[0].camera, VIEWS[0].background), image)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert torch.equal(image, expected["image"])


def test_waiting_threads_sleep_whatever_the_environment_says(tmp_path: Path) -> None:
    program = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.render.test_threads import MODEL, VIEWS
from potr.render.cpu import CpuRasterizer
raster = CpuRasterizer(threads=4)
raster.render(MODEL, VIEWS[0].camera, VIEWS[0].background)
used, begin = time.process_time(), time.perf_counter()
time.sleep(0.5)
print((time.process_time() - used) / (time.perf_counter() - begin))
"""
    environment = {**os.environ, "OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "infinite", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert float(done.stdout) < 0.1  # three threads that spin take a core or more


def test_native_modules_do_not_load_openmp() -> None:
    program = """
from potr import _render, _solver
print([line for line in open("/proc/self/maps") if "gomp" in line])
"""
    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc/self/maps on this system")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "[]\n"
