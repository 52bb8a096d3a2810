# SPDX-License-Identifier: Apache-2.0
"""Launching the CUDA kernels on torch's tensors and streams through cuda-core; and what is missing where that fails."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from potr.errors import BackendUnavailable, install_command
from potr.render import cubins
from potr.render.launcher import Argument

OLDEST = (8, 0)  # compute capability that the kernels are written for
INSTALL = {12: install_command("cuda12"), 13: install_command("cuda")}
_TORCH_INDEX = "https://download.pytorch.org/whl/cu130"


class CudaLauncher:
    """Launches the kernels of potr/native/cuda on one GPU, on the stream that is torch's current one at the call.

    A source is compiled, or read from the cache, at its first kernel's first launch (``cubins``). Launches come back
    before the kernel has run; memory lives as torch's allocator has it, stream by stream: a tensor used on a stream
    other than the one it was made on needs ``record_stream``, as with torch's own operators.

    Args:
        device: "cuda" (the current one) or "cuda:N".

    Raises:
        BackendUnavailable: kernels cannot run there; says what is missing.
    """

    def __init__(self, device: torch.device | str = "cuda") -> None:
        device = torch.device(device)
        reason = why_not(device)
        if reason is not None:
            raise BackendUnavailable(f"cuda: {reason}")
        self._index = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", self._index)  # a tensor's device always has its number
        self.arch = _architecture(self.device)  # "sm_90"
        self._core = _cuda_core()
        self._sources: dict[str, Any] = {}
        self._kernels: dict[tuple[str, str], tuple[Any, tuple[int, ...] | None]] = {}
        self._streams: dict[int, Any] = {}
        self._thread = threading.local()

    def prepare(self, *sources: str) -> None:
        """Compile sources, or read them from the cache, now and not at their first launch.

        Raises:
            BackendUnavailable: one does not compile.
        """
        for source in sources:
            if source not in self._sources:
                code = cubins.cubin(source, self.arch)
                self._sources[source] = self._core.ObjectCode.from_cubin(code, name=source)

    def launch(self, source: str, kernel: str, blocks: int, threads: int, *arguments: Argument) -> None:
        """See ``Launcher.launch``.

        Raises:
            BackendUnavailable: the source does not compile or the driver does not take it.
            ValueError, TypeError: an argument is not what the kernel takes (a mistake of the caller's).
        """
        if blocks == 0:
            return
        if threads % 32 or not 0 < threads <= 1024 or not 0 < blocks < 2**31:
            raise ValueError(f"{source}.{kernel}: cannot launch {blocks} blocks of {threads} threads")
        with torch.cuda.device(self.device):
            self._make_current()
            function, sizes = self._kernel(source, kernel)
            try:
                values = marshal(arguments, self.device, sizes)
            except (TypeError, ValueError) as error:
                error.add_note(f"in a launch of {source}.{kernel}")
                raise
            self._core.launch(self._stream(), self._core.LaunchConfig(grid=blocks, block=threads), function, *values)

    def read_later(self, values: Tensor) -> Callable[[], list[int]]:
        """See ``Launcher.read_later``: an asynchronous copy to pinned memory, and an event after it."""
        with torch.cuda.device(self.device):
            copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            copy.copy_(values, non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()

        def read() -> list[int]:
            copied.synchronize()
            return [int(value) for value in copy.reshape(-1).tolist()]

        return read

    def _stream(self) -> Any:
        """torch's current stream, as cuda-core has it: the same handle. torch does not destroy its streams."""
        handle = torch.cuda.current_stream(self.device).cuda_stream
        if handle not in self._streams:
            self._streams[handle] = self._core.Stream.from_handle(handle)
        return self._streams[handle]

    def _make_current(self) -> None:
        """Give this thread torch's context, the device's primary one; torch itself does when it first needs it."""
        if not getattr(self._thread, "ready", False):
            self._core.Device(self._index).set_current()
            self._thread.ready = True

    def _kernel(self, source: str, kernel: str) -> tuple[Any, tuple[int, ...] | None]:
        """The loaded kernel and its parameters' sizes in bytes (None where the driver does not tell)."""
        known = self._kernels.get((source, kernel))
        if known is not None:
            return known
        self.prepare(source)
        try:
            function = self._sources[source].get_kernel(kernel)
        except Exception as error:  # CUDAError, which cuda-core does not export
            raise BackendUnavailable(
                f"cuda: {kernel} of {source}.cu, compiled for {self.arch}, does not load on {self.device}: {error}"
            ) from error
        try:
            sizes = tuple(int(parameter.size) for parameter in function.arguments_info)
        except NotImplementedError:  # a driver older than 12.4
            sizes = None
        self._kernels[source, kernel] = function, sizes
        return function, sizes


_launchers: dict[torch.device, CudaLauncher] = {}


def launcher_on(device: torch.device | str = "cuda") -> CudaLauncher:
    """A device's launcher, the same one each time, so that kernels are loaded once. Raises like ``CudaLauncher``."""
    launcher = CudaLauncher(device) if torch.device(device) not in _launchers else _launchers[torch.device(device)]
    return _launchers.setdefault(launcher.device, launcher)


def marshal(
    arguments: Sequence[Argument], device: torch.device, sizes: Sequence[int] | None = None
) -> list[int | ctypes.c_float]:
    """A kernel's arguments as cuda-core takes them: 8-byte integers (pointers too) and c_float.

    Args:
        arguments: tensors, None, ints, floats.
        device: where tensors must be.
        sizes: of the kernel's parameters in bytes, if known.

    Raises:
        TypeError: an argument of another kind.
        ValueError: a tensor elsewhere or not contiguous, an int beyond 64 bits, or arguments that do not fit ``sizes``.
    """
    values: list[int | ctypes.c_float] = []
    for position, argument in enumerate(arguments):
        if isinstance(argument, Tensor):
            if argument.device != device:
                raise ValueError(f"argument {position}: expected a tensor on {device}, got one on {argument.device}")
            if not argument.is_contiguous():
                raise ValueError(f"argument {position}: expected a contiguous tensor, got strides {argument.stride()}")
            values.append(argument.data_ptr())
        elif argument is None:
            values.append(0)
        elif isinstance(argument, int):
            if not -(2**63) <= argument < 2**63:
                raise ValueError(f"argument {position}: {argument} does not fit a long long")
            values.append(int(argument))  # cuda-core would pass a bool as one byte
        elif isinstance(argument, float):
            values.append(ctypes.c_float(argument))  # and a Python float as a double
        else:
            raise TypeError(
                f"argument {position}: expected a tensor, int, float or None, got {type(argument).__name__}"
            )
    given = [4 if isinstance(value, ctypes.c_float) else 8 for value in values]
    if sizes is not None and given != list(sizes):
        raise ValueError(f"the kernel's parameters take {list(sizes)} bytes, the arguments {given}")
    return values


def why_not(device: torch.device | str = "cuda") -> str | None:
    """What keeps the kernels from running on a device, in a sentence that says how to get it; None if nothing does."""
    device = torch.device(device)
    return _torch_lacks(device) or _packages_lack() or _gpu_lacks(device) or _driver_lacks()


def _torch_lacks(device: torch.device) -> str | None:
    if torch.version.cuda is None:
        kind = "ROCm" if torch.version.hip else "CPU"
        install = f"pip install torch --index-url {_TORCH_INDEX}"
        return f"torch {torch.__version__} is a {kind} build; install one with CUDA: {install}"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        devices = torch.cuda.device_count()
    except (RuntimeError, AssertionError) as error:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hint = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is '{visible}')"
        return f"torch {torch.__version__} finds no GPU{hint}: {str(error).strip() or type(error).__name__}"
    if device.type != "cuda" or (device.index or 0) >= devices:
        return f"there is no CUDA device '{device}'; torch sees cuda:0 to cuda:{devices - 1}"
    return None


def _packages_lack() -> str | None:
    install = INSTALL[12 if str(torch.version.cuda).startswith("12.") else 13]
    try:
        _cuda_core()
        cubins.nvrtc_version()
    except ImportError as error:
        return f"the package cuda-core or cuda-bindings does not load ({error}): {install}"
    except RuntimeError as error:
        return f"NVRTC, CUDA's run-time compiler, is not there ({_first_line(error)}): {install}"
    return None


def _gpu_lacks(device: torch.device) -> str | None:
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    gpu = f"{name} (compute capability {capability[0]}.{capability[1]})"
    if capability < OLDEST:
        return f"{gpu} is too old; expected {OLDEST[0]}.{OLDEST[1]} (Ampere) or newer"
    supported = cubins.supported_architectures()
    if cubins.architecture(capability, supported) is None:
        major, minor = cubins.nvrtc_version()
        known = ", ".join(f"sm_{a}" for a in supported)
        return (
            f"NVRTC {major}.{minor} does not compile for {gpu}, only for {known}; another NVRTC may: "
            f"pip install --upgrade {'nvidia-cuda-nvrtc-cu12' if major == 12 else 'nvidia-cuda-nvrtc'}"
        )
    return None


def _driver_lacks() -> str | None:
    """Within a major version of CUDA any driver runs any cubin ("minor version compatibility"); older majors do not."""
    driver, nvrtc = _driver_version(), cubins.nvrtc_version()
    if driver[0] >= nvrtc[0]:
        return None
    return (
        f"the driver knows CUDA up to {driver[0]}.{driver[1]}, and NVRTC {nvrtc[0]}.{nvrtc[1]} writes for CUDA "
        f"{nvrtc[0]}: update the driver, or {INSTALL.get(driver[0], INSTALL[12])} with a torch for CUDA {driver[0]}"
    )


def _driver_version() -> tuple[int, int]:
    """The newest CUDA version that the driver knows, (13, 0)."""
    from cuda.bindings import driver

    status, version = driver.cuDriverGetVersion()
    if status != driver.CUresult.CUDA_SUCCESS:
        raise BackendUnavailable(f"cuda: cuDriverGetVersion: {status.name}")
    return int(version) // 1000, int(version) % 1000 // 10


def _architecture(device: torch.device) -> str:
    arch = cubins.architecture(torch.cuda.get_device_capability(device), cubins.supported_architectures())
    assert arch is not None  # why_not has looked
    return arch


def _cuda_core() -> Any:
    import cuda.core

    if not hasattr(cuda.core, "ObjectCode"):
        raise ImportError(f"cuda-core {cuda.core.__version__} is older than 1.0.1")
    return cuda.core


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
