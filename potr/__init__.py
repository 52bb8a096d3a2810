# SPDX-License-Identifier: Apache-2.0
"""POTR: post-training compression of 3D Gaussian Splatting models.

The names below are the whole public interface. They load on first use, so ``import potr`` is quick and loads no
native module.
"""

from __future__ import annotations

import importlib
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potr.encoder.config import CodecConfig, CompactConfig, PruneConfig, QuantizeConfig
    from potr.encoder.encode import Encoded, StageReport, encode
    from potr.encoder.placed_views import PlacedViews, config_for_renders, views_around, without_invisible
    from potr.encoder.quality import config_for
    from potr.encoder.resume import Resume
    from potr.encoder.target import Target, Targeted, encode_to_target
    from potr.errors import (
        BackendUnavailable,
        BitstreamError,
        ConfigError,
        ModelError,
        PotrError,
        SceneError,
        TargetError,
    )
    from potr.format.decode import decode
    from potr.io.folder import load_scene
    from potr.io.ply import load_ply, save_ply
    from potr.model.cameras import Camera, View
    from potr.model.scene import Scene
    from potr.model.splats import SplatModel
    from potr.progress import Progress
    from potr.render.base import ColorStatistics, Rasterizer, RemovalCost
    from potr.render.select import select as select_rasterizer

__version__ = "0.1.0"

__all__ = [
    # files
    "load_ply", "save_ply", "load_scene",
    # codec
    "encode", "encode_to_target", "decode", "config_for", "Target", "Targeted", "Resume", "Progress",
    "views_around", "PlacedViews", "config_for_renders", "without_invisible",
    "CodecConfig", "PruneConfig", "CompactConfig", "QuantizeConfig", "Encoded", "StageReport",
    # rendering
    "select_rasterizer", "Rasterizer", "RemovalCost", "ColorStatistics",
    # values
    "SplatModel", "Camera", "View", "Scene",
    # errors
    "PotrError", "ModelError", "SceneError", "ConfigError", "TargetError", "BackendUnavailable", "BitstreamError",
]  # fmt: skip

_is_run = getattr(sys, "argv", [""])[:1] == ["-m"] and "potr.run" in sys.orig_argv
if _is_run and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # python -m potr.run: Ctrl-C while torch is still being imported ends quietly; main() takes over from there.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

_HOMES = {
    "potr.model.cameras": ("Camera", "View"),
    "potr.encoder.config": ("CodecConfig", "CompactConfig", "PruneConfig", "QuantizeConfig"),
    "potr.format.decode": ("decode",),
    "potr.encoder.encode": ("Encoded", "StageReport", "encode"),
    "potr.encoder.placed_views": ("PlacedViews", "config_for_renders", "views_around", "without_invisible"),
    "potr.encoder.quality": ("config_for",),
    "potr.encoder.resume": ("Resume",),
    "potr.encoder.target": ("Target", "Targeted", "encode_to_target"),
    "potr.errors": (
        "BackendUnavailable",
        "BitstreamError",
        "ConfigError",
        "ModelError",
        "PotrError",
        "SceneError",
        "TargetError",
    ),
    "potr.io.folder": ("load_scene",),
    "potr.io.ply": ("load_ply", "save_ply"),
    "potr.render.base": ("ColorStatistics", "Rasterizer", "RemovalCost"),
    "potr.model.scene": ("Scene",),
    "potr.model.splats": ("SplatModel",),
    "potr.progress": ("Progress",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "select_rasterizer":
        value: Any = importlib.import_module("potr.render.select").select
    elif name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module 'potr' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
