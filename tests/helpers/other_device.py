# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a GPU: tensors on a device of their own, worked on by the CPU, that mix with no CPU tensor.

A CUDA device can be had neither here nor in CI. Code that must keep its tensors where the model is can be run on this
one. What a GPU refuses (an operation on tensors of two devices, numpy() of one elsewhere) it refuses too, and also what
a GPU would do at the price of a hidden copy, an index from the CPU. It calls itself "meta", for which torch needs
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from potr.model.cameras import RGB, Camera, View
from potr.model.splats import SplatModel
from potr.render import nvrtc
from potr.render.base import ColorStatistics, GeometryStatistics, RemovalCost
from potr.render.launcher import Argument
from potr.render.select import select
from tests.helpers.simt import SimtLauncher

DEVICE = torch.device("meta")
CPU = torch.device("cpu")
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class OnOtherDevice(Tensor):
    """A tensor there; ``values`` has its content."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> OnOtherDevice:
        tensor = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
        )
        tensor.values = values
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside `with OtherDevice()`")


class OtherDevice(TorchDispatchMode):
    """While it is entered, ``.to("meta")`` and ``device="meta"`` make tensors of the other device.

    ``copied`` counts the bytes that went from there to the CPU, by dtype; numbers read one by one do not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copied: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        there = [t for t in tensors if isinstance(t, OnOtherDevice)]
        here = [t for t in tensors if not isinstance(t, OnOtherDevice) and t.ndim > 0]
        if there and here and func not in _COPIES:
            raise RuntimeError(f"{func}: tensors of two devices, {[tuple(t.shape) for t in tensors]}")
        device = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if device == DEVICE:
            kwargs["device"] = CPU
        if there and device == CPU:
            self.copied[there[0].dtype] += there[0].nbytes
        result = func(*tree_map(_content, args), **tree_map(_content, kwargs))
        if func is torch.ops.aten.copy_.default:
            return args[0]
        if device is CPU or (device is not None and device != DEVICE) or (device is None and not there):
            return result
        known = {id(t.values): t for t in there}  # what worked in place gives what it was given

        def wrapped(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return known[id(value)] if id(value) in known else OnOtherDevice(value)

        return tree_map(wrapped, result)


def _content(value: Any) -> Any:
    return value.values if isinstance(value, OnOtherDevice) else value


class OtherRasterizer:
    """The cpu backend for models on the other device (or here, as any backend); its own copies do not count."""

    name, device = "other", DEVICE

    def __init__(self) -> None:
        self._cpu = select("cpu", threads=1)

    def render(self, model: SplatModel, camera: Camera, background: RGB) -> Tensor:
        image = self._cpu.render(_here(model), camera, background)
        return OnOtherDevice(image) if model.device == DEVICE else image

    def removal_cost(self, model: SplatModel, views: Sequence[View], *arguments: Any, **options: Any) -> RemovalCost:
        return _where(model, self._cpu.removal_cost(_here(model), views, *arguments, **options))

    def color_statistics(
        self, model: SplatModel, views: Sequence[View], *arguments: Any, **options: Any
    ) -> ColorStatistics:
        return _where(model, self._cpu.color_statistics(_here(model), views, *arguments, **options))

    def geometry_statistics(
        self, model: SplatModel, views: Sequence[View], *arguments: Any, **options: Any
    ) -> GeometryStatistics:
        return _where(model, self._cpu.geometry_statistics(_here(model), views, *arguments, **options))


class OtherLauncher:
    """The emulation of CUDA, for tensors of the other device."""

    device = DEVICE

    def __init__(self) -> None:
        self.simt, self.launched = SimtLauncher(), set[str]()

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch) -> OtherLauncher:
        """One that the SH solver finds on the other device."""
        launcher = cls()
        monkeypatch.setattr(nvrtc, "launcher_on", lambda device: launcher)
        return launcher

    def launch(self, source: str, kernel: str, blocks: int, threads: int, *arguments: Argument) -> None:
        self.launched.add(kernel)
        assert all(isinstance(a, OnOtherDevice) for a in arguments if isinstance(a, Tensor))
        self.simt.launch(source, kernel, blocks, threads, *(_content(a) for a in arguments))


def _here(model: SplatModel) -> SplatModel:
    return SplatModel(**{f.name: _content(getattr(model, f.name)) for f in fields(model)})


def _where(model: SplatModel, result: Any) -> Any:
    """A result, on the model's device."""
    named = {f.name: getattr(result, f.name) for f in fields(result)}
    if model.device == CPU:
        return result
    return type(result)(**{k: OnOtherDevice(v) if isinstance(v, Tensor) else v for k, v in named.items()})
