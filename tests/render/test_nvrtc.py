# SPDX-License-Identifier: Apache-2.0
"""Launching kernels: what is missing where it fails, and what reaches the driver (a fake, but for `gpu` tests)."""

import ctypes
import math
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from potr.errors import BackendUnavailable, install_command
from potr.render import cubins, nvrtc
from tests.helpers.cuda_sources import kernels_of

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two H200 on which everything is there."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(nvrtc, "_cuda_core", lambda: None)
    monkeypatch.setattr(nvrtc, "_driver_version", lambda: (13, 0))
    monkeypatch.setattr(cubins, "nvrtc_version", lambda: (13, 5))
    monkeypatch.setattr(cubins, "supported_architectures", lambda: [75, 80, 86, 90, 100, 120])


def raising(error: Exception) -> Any:
    def call(*_: object) -> None:
        raise error

    return call


def refused(device: str = "cuda") -> str:
    """Why not; and that the launcher says the same."""
    reason = nvrtc.why_not(device)
    assert reason is not None
    with pytest.raises(BackendUnavailable) as raised:
        nvrtc.CudaLauncher(device)
    assert str(raised.value) == f"cuda: {reason}"
    return reason


@pytest.mark.usefixtures("machine")
class TestWhyNot:
    def test_nothing_is_missing(self) -> None:
        assert nvrtc.why_not() is None
        assert nvrtc.why_not("cuda:1") is None

    @pytest.mark.parametrize(("hip", "kind"), [(None, "CPU"), ("6.4", "ROCm")])
    def test_torch_of_another_build(self, hip: str | None, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", None)
        monkeypatch.setattr(torch.version, "hip", hip)
        reason = refused()
        assert f"torch {torch.__version__} is a {kind} build" in reason
        assert "pip install torch --index-url https://download.pytorch.org/whl/cu130" in reason

    def test_no_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(torch.cuda, "init", raising(RuntimeError("Found no NVIDIA driver on your system.")))
        assert refused() == f"torch {torch.__version__} finds no GPU: Found no NVIDIA driver on your system."

    def test_gpus_hidden_by_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr(torch.cuda, "init", raising(RuntimeError("No CUDA GPUs are available")))
        assert refused().endswith("finds no GPU (CUDA_VISIBLE_DEVICES is ''): No CUDA GPUs are available")

    @pytest.mark.parametrize("device", ["cuda:2", "cpu"])
    def test_no_such_device(self, device: str) -> None:
        assert refused(device) == f"there is no CUDA device '{device}'; torch sees cuda:0 to cuda:1"

    def test_no_cuda_core(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nvrtc, "_cuda_core", raising(ModuleNotFoundError("No module named 'cuda'")))
        assert refused().endswith(f"(No module named 'cuda'): {install_command('cuda')}")

    def test_an_old_cuda_core(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()  # the real _cuda_core
        monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(core=SimpleNamespace(__version__="0.4.2")))
        monkeypatch.setitem(sys.modules, "cuda.core", SimpleNamespace(__version__="0.4.2"))
        with pytest.raises(ImportError, match=r"cuda-core 0\.4\.2 is older than 1\.0\.1"):
            nvrtc._cuda_core()

    def test_no_nvrtc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cubins, "nvrtc_version", raising(RuntimeError('Failure finding "nvrtc":\nmany lines')))
        reason = refused()
        assert reason == (
            'NVRTC, CUDA\'s run-time compiler, is not there (Failure finding "nvrtc":): '
            "python -m pip install -c constraints.txt -e '.[cuda]' in POTR's checkout, with its .venv active"
        )

    def test_a_torch_for_cuda_12_is_told_the_packages_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", "12.8")
        monkeypatch.setattr(nvrtc, "_cuda_core", raising(ModuleNotFoundError("No module named 'cuda'")))
        assert ": python -m pip install -e '.[cuda12]' in" in refused()

    def test_an_old_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
        assert refused() == "Tesla T4 (compute capability 7.5) is too old; expected 8.0 (Ampere) or newer"

    def test_a_gpu_newer_than_nvrtc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (14, 0))
        assert refused() == (
            "NVRTC 13.5 does not compile for NVIDIA H200 (compute capability 14.0), only for sm_75, sm_80, sm_86, "
            "sm_90, sm_100, sm_120; another NVRTC may: pip install --upgrade nvidia-cuda-nvrtc"
        )

    def test_an_old_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nvrtc, "_driver_version", lambda: (12, 8))
        reason = refused()
        assert reason.startswith(
            "the driver knows CUDA up to 12.8, and NVRTC 13.5 writes for CUDA 13: update the driver"
        )
        assert "pip install -e '.[cuda12]'" in reason

    def test_an_older_driver_of_the_same_major_version_will_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nvrtc, "_driver_version", lambda: (13, 0))
        monkeypatch.setattr(cubins, "nvrtc_version", lambda: (13, 9))
        assert nvrtc.why_not() is None


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch is built with CUDA")
def test_on_this_machine_torch_is_a_cpu_build() -> None:
    assert "is a CPU build" in refused()


class TestMarshal:
    def test_widths_as_cuda_core_lays_them_out(self) -> None:
        """What cuda-core would hand to the driver, read back byte by byte."""
        handler = pytest.importorskip("cuda.core._kernel_arg_handler")
        tensor = torch.arange(3.0)
        values = nvrtc.marshal((tensor, None, -5, 2**40, True, 0.1, math.inf), CPU, [8, 8, 8, 8, 8, 4, 4])
        holder = handler.ParamHolder(values)
        slots = (ctypes.c_void_p * len(values)).from_address(holder.ptr)
        integers = [ctypes.c_longlong.from_address(address).value for address in slots[:5]]
        assert integers == [tensor.data_ptr(), 0, -5, 2**40, 1]
        floats = [ctypes.c_float.from_address(address).value for address in slots[5:]]
        assert floats == [ctypes.c_float(0.1).value, math.inf]

    def test_an_empty_tensor_is_a_null_pointer(self) -> None:
        assert nvrtc.marshal((torch.empty(0, 3),), CPU) == [0]

    @pytest.mark.parametrize(
        ("argument", "said"),
        [
            (torch.zeros(2, 3).T, r"argument 1: expected a contiguous tensor, got strides \(1, 3\)"),
            (torch.zeros(2, device="meta"), r"argument 1: expected a tensor on cpu, got one on meta"),
            (2**63, r"argument 1: 9223372036854775808 does not fit a long long"),
        ],
        ids=["strides", "device", "int"],
    )
    def test_what_cannot_go(self, argument: Any, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            nvrtc.marshal((1.0, argument), CPU)

    def test_other_kinds(self) -> None:
        with pytest.raises(TypeError, match=r"argument 0: expected a tensor, int, float or None, got str"):
            nvrtc.marshal(("text",), CPU)  # type: ignore[arg-type]

    @pytest.mark.parametrize("arguments", [(1,), (1, 2.0, 3.0), (1, 2)], ids=["one short", "one more", "an int"])
    def test_a_kernel_of_other_parameters(self, arguments: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match=r"the kernel's parameters take \[8, 4\] bytes, the arguments"):
            nvrtc.marshal(arguments, CPU, [8, 4])


class FakeCore:
    """What the launcher uses of cuda.core, with one kernel `scale(float*, long long, float)`; keeps what it is told."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.current: list[int] = []
        self.launches: list[tuple[int, int, int, str, list[Any]]] = []
        self.tells_parameters = True
        self.ObjectCode = SimpleNamespace(from_cubin=self._from_cubin)
        self.LaunchConfig = SimpleNamespace
        self.Stream = SimpleNamespace(from_handle=self._from_handle)
        self.streams: list[int] = []

    def Device(self, index: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(set_current=lambda: self.current.append(index))

    def launch(self, stream: Any, config: Any, kernel: Any, *values: Any) -> None:
        self.launches.append((stream.handle, config.grid, config.block, kernel.name, list(values)))

    def _from_handle(self, handle: int) -> SimpleNamespace:
        self.streams.append(handle)
        return SimpleNamespace(handle=handle)

    def _from_cubin(self, code: bytes, name: str) -> SimpleNamespace:
        self.loaded.append(f"{name} {code.decode()}")
        return SimpleNamespace(get_kernel=self._get_kernel)

    def _get_kernel(self, name: str) -> Any:
        if name != "scale":
            raise RuntimeError("CUDA_ERROR_NOT_FOUND")
        return FakeKernel(name, [8, 8, 4] if self.tells_parameters else None)


class FakeKernel:
    def __init__(self, name: str, sizes: list[int] | None) -> None:
        self.name = name
        self._sizes = sizes

    @property
    def arguments_info(self) -> list[SimpleNamespace]:
        if self._sizes is None:
            raise NotImplementedError("New in driver 12.4")
        return [SimpleNamespace(offset=0, size=size) for size in self._sizes]


@pytest.fixture
def core(machine: None, monkeypatch: pytest.MonkeyPatch) -> FakeCore:
    core = FakeCore()
    monkeypatch.setattr(nvrtc, "_cuda_core", lambda: core)
    monkeypatch.setattr(cubins, "cubin", lambda source, arch: f"{source} {arch}".encode())
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=1234))
    return core


@pytest.fixture
def launcher(core: FakeCore) -> nvrtc.CudaLauncher:
    launcher = nvrtc.CudaLauncher("cuda:1")
    assert launcher.device == torch.device("cuda:1")
    launcher.device = CPU  # where the tests' tensors are
    return launcher


def test_a_launch_reaches_the_driver(core: FakeCore, launcher: nvrtc.CudaLauncher) -> None:
    tensor = torch.zeros(4)
    for _ in range(2):
        launcher.launch("probe", "scale", 3, 64, tensor, 4, 0.5)
    assert core.loaded == ["probe probe sm_90"]  # once
    assert core.current == [1]
    stream, blocks, threads, name, values = core.launches[1]
    assert (stream, blocks, threads, name) == (1234, 3, 64, "scale")
    assert values[:2] == [tensor.data_ptr(), 4]
    assert isinstance(values[2], ctypes.c_float)
    assert values[2].value == 0.5
    assert core.streams == [1234]  # once


def test_every_thread_gets_the_context(core: FakeCore, launcher: nvrtc.CudaLauncher) -> None:
    def launch() -> None:
        launcher.launch("probe", "scale", 1, 32, None, 4, 0.5)

    launch()
    other = threading.Thread(target=launch)
    other.start()
    other.join()
    launch()
    assert core.current == [1, 1]
    assert len(core.launches) == 3


def test_no_blocks_launch_nothing(core: FakeCore, launcher: nvrtc.CudaLauncher) -> None:
    launcher.launch("probe", "scale", 0, 64, None, 0, 0.5)
    assert not core.launches
    assert not core.loaded


@pytest.mark.parametrize(("blocks", "threads"), [(1, 48), (1, 0), (1, 2048), (-1, 32), (2**31, 32)])
def test_impossible_grids(blocks: int, threads: int, launcher: nvrtc.CudaLauncher) -> None:
    with pytest.raises(ValueError, match=rf"probe.scale: cannot launch {blocks} blocks of {threads} threads"):
        launcher.launch("probe", "scale", blocks, threads, None, 0, 0.5)


def test_wrong_arguments_name_the_kernel(core: FakeCore, launcher: nvrtc.CudaLauncher) -> None:
    with pytest.raises(ValueError, match="parameters take") as raised:
        launcher.launch("probe", "scale", 1, 32, None, 4)
    assert raised.value.__notes__ == ["in a launch of probe.scale"]
    assert not core.launches


def test_drivers_that_do_not_tell_parameters(core: FakeCore, launcher: nvrtc.CudaLauncher) -> None:
    core.tells_parameters = False
    launcher.launch("probe", "scale", 1, 32, None, 4, 0.5)
    assert len(core.launches) == 1


def test_a_kernel_that_does_not_load(launcher: nvrtc.CudaLauncher) -> None:
    with pytest.raises(
        BackendUnavailable, match=r"gone of probe\.cu, compiled for sm_90, does not load on .*NOT_FOUND"
    ):
        launcher.launch("probe", "gone", 1, 32)


def test_reading_later_waits_for_its_copy(launcher: nvrtc.CudaLauncher, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy goes to pinned memory without waiting; the event comes after it, and is waited for before it is read."""
    done: list[str] = []
    copies: list[torch.Tensor] = []
    empty = torch.empty

    def pinned(shape: torch.Size, *, dtype: torch.dtype, pin_memory: bool) -> torch.Tensor:
        assert pin_memory
        copies.append(empty(shape, dtype=dtype))
        return copies[-1]

    class Event:
        def record(self) -> None:
            assert copies[0].tolist() == [[3, -4]]  # queued before
            copies[0].zero_()  # as if the copy were still under way
            done.append("recorded")

        def synchronize(self) -> None:
            copies[0].copy_(torch.tensor([[3, -4]]))
            done.append("waited")

    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    read = launcher.read_later(torch.tensor([[3, -4]]))
    assert done == ["recorded"]
    assert read() == [3, -4]
    assert done == ["recorded", "waited"]


PROBE = """
extern "C" __global__ void scale(float* p, long long n, float factor, const float* nothing) {
  const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i < n && nothing == nullptr) p[i] *= factor;
}
extern "C" __global__ void wait(long long* p, long long cycles) {
  const long long begin = clock64();
  while (clock64() - begin < cycles) {}
  if (threadIdx.x == 0) p[0] += 1;
}
"""


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.fixture
    def gpu(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nvrtc.CudaLauncher:
        (tmp_path / "probe.cu").write_text(PROBE)
        real = cubins.cubin
        monkeypatch.setattr(
            cubins, "cubin", lambda source, arch: real(source, arch, folder=tmp_path, cache=tmp_path / "cache")
        )
        return nvrtc.CudaLauncher()

    def test_a_kernel_runs_on_tensors(self, gpu: nvrtc.CudaLauncher) -> None:
        p = torch.arange(1000.0, device=gpu.device)
        gpu.launch("probe", "scale", 8, 128, p, 900, 0.5, None)
        expected = torch.arange(1000.0)
        expected[:900] *= 0.5
        assert torch.equal(p.cpu(), expected)

    def test_parameters_are_checked(self, gpu: nvrtc.CudaLauncher) -> None:
        with pytest.raises(ValueError, match=r"the kernel's parameters take \[8, 8, 4, 8\] bytes"):
            gpu.launch("probe", "scale", 8, 128, torch.zeros(8, device=gpu.device), 8, 0.5)

    def test_the_current_stream_is_used_in_order(self, gpu: nvrtc.CudaLauncher) -> None:
        stream = torch.cuda.Stream(gpu.device)
        counter = torch.zeros(1, dtype=torch.int64, device=gpu.device)
        stream.wait_stream(torch.cuda.current_stream(gpu.device))
        with torch.cuda.stream(stream):
            gpu.launch("probe", "wait", 1, 32, counter, 20_000_000)
            assert not stream.query()  # still running: it is on this stream
            doubled = counter * 2
            read = gpu.read_later(doubled)
        assert read() == [2]

    def test_read_later_waits_for_what_came_before_only(self, gpu: nvrtc.CudaLauncher) -> None:
        counter = torch.full((1,), 7, dtype=torch.int64, device=gpu.device)
        later = torch.zeros(1, dtype=torch.int64, device=gpu.device)
        torch.cuda.synchronize(gpu.device)
        read = gpu.read_later(counter)
        gpu.launch("probe", "wait", 1, 32, later, 200_000_000)
        assert read() == [7]
        assert not torch.cuda.current_stream(gpu.device).query()

    def test_another_thread(self, gpu: nvrtc.CudaLauncher) -> None:
        p = torch.ones(32, device=gpu.device)
        thread = threading.Thread(target=gpu.launch, args=("probe", "scale", 1, 32, p, 32, 3.0, None))
        thread.start()
        thread.join()
        assert p.tolist() == [3.0] * 32

    @pytest.mark.parametrize("source", cubins.sources())
    def test_every_kernel_loads(self, source: str) -> None:
        """The driver takes what NVRTC made for this very GPU, and tells its parameters."""
        launcher = nvrtc.CudaLauncher()
        for name in kernels_of(cubins.SOURCES / f"{source}.cu"):
            _, sizes = launcher._kernel(source, name)
            assert sizes is None or set(sizes) <= {4, 8}
