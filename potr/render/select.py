# SPDX-License-Identifier: Apache-2.0
"""Choosing a rasteriser backend by name."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potr.errors import BackendUnavailable, ConfigError
from potr.render.base import Rasterizer

log = logging.getLogger(__name__)

BACKENDS = {
    "cuda": ("potr.render.cuda", "CudaRasterizer"),
    "cpu": ("potr.render.cpu", "CpuRasterizer"),
    "reference": ("potr.render.reference", "ReferenceRasterizer"),
}
AUTOMATIC = ("cuda", "cpu")  # best first


def select(name: str = "auto", *, threads: int | None = None, options: Mapping[str, Any] | None = None) -> Rasterizer:
    """A rasteriser backend; its modules are imported only now.

    Logs which one it is, and for "auto" why none better; as a warning where a GPU is there that could have been used.

    Args:
        name: "auto" (the best that runs here), "cuda", "cpu" or "reference".
        threads: CPU threads, at most MAX_THREADS; by default as ``available_threads`` says.
        options: further arguments of CudaRasterizer, where that is the backend.

    Raises:
        ConfigError: the name is not one of these; threads outside [1, MAX_THREADS].
        BackendUnavailable: the backend cannot run here; says why and how to get it.
    """
    reasons: list[str] = []
    for candidate in AUTOMATIC if name == "auto" else (name,):
        try:
            rasterizer = _create(candidate, threads, options)
        except BackendUnavailable as error:
            if name != "auto":
                raise
            reasons.append(str(error))
        else:
            level = logging.WARNING if reasons and gpu_is_there() else logging.INFO
            log.log(level, "backend: %s", "; not ".join([signature(rasterizer), *reasons]))
            return rasterizer
    raise BackendUnavailable("no rasterizer backend runs here: " + "; ".join(reasons))


def gpu_is_there() -> bool:
    """Whether the machine shows an NVIDIA GPU that nobody has hidden by CUDA_VISIBLE_DEVICES, be it usable or not."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return not hidden and any(Path("/dev").glob("nvidia[0-9]*"))


def signature(rasterizer: Rasterizer) -> str:
    """What decides a backend's last bits: its name and its instruction set, where it has one."""
    return f"{rasterizer.name} {getattr(rasterizer, 'instruction_set', '')}".strip()


def _create(name: str, threads: int | None, options: Mapping[str, Any] | None) -> Rasterizer:
    if name not in BACKENDS:
        raise ConfigError(f"rasterizer: expected one of auto, {', '.join(BACKENDS)}, got '{name}'")
    module, class_name = BACKENDS[name]
    try:
        backend: type[Rasterizer] = getattr(importlib.import_module(module), class_name)
    except ImportError as error:
        raise BackendUnavailable(
            f"{name}: its native module does not load ({error}); build it with `make setup` or `pip install .`"
        ) from error
    own = dict(options or {}) if name == "cuda" else {}
    return backend(threads=threads, **own)  # type: ignore[call-arg]  # the Protocol says nothing of constructors
