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
    from potr.cameras import Camera, View
    from potr.codec.config import CodecConfig, CompactConfig, PruneConfig, QuantizeConfig
    from potr.codec.decoder import decode
    from potr.codec.encoder import Encoded, StageReport, encode
    from potr.codec.own_renders import PlacedViews, config_for_renders, views_around, without_invisible
    from potr.codec.quality import config_for
    from potr.codec.target import Target
    from potr.errors import (
        BackendUnavailable,
        BitstreamError,
        ConfigError,
        ModelError,
        PotrError,
        SceneError,
        TargetError,
    )
    from potr.evaluate.targeted import Targeted, encode_to_target
    from potr.io.folder import load_scene
    from potr.io.ply import load_ply, save_ply
    from potr.rasterizer.base import ColorStatistics, Rasterizer, RemovalCost
    from potr.rasterizer.select import select as select_rasterizer
    from potr.scene import Scene
    from potr.splats import SplatModel

__version__ = "0.1.0"

__all__ = [
    # files
    "load_ply", "save_ply", "load_scene",
    # codec
    "encode", "encode_to_target", "decode", "config_for", "Target", "Targeted",
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
    "potr.cameras": ("Camera", "View"),
    "potr.codec.config": ("CodecConfig", "CompactConfig", "PruneConfig", "QuantizeConfig"),
    "potr.codec.decoder": ("decode",),
    "potr.codec.encoder": ("Encoded", "StageReport", "encode"),
    "potr.codec.own_renders": ("PlacedViews", "config_for_renders", "views_around", "without_invisible"),
    "potr.codec.quality": ("config_for",),
    "potr.codec.target": ("Target",),
    "potr.errors": (
        "BackendUnavailable",
        "BitstreamError",
        "ConfigError",
        "ModelError",
        "PotrError",
        "SceneError",
        "TargetError",
    ),
    "potr.evaluate.targeted": ("Targeted", "encode_to_target"),
    "potr.io.folder": ("load_scene",),
    "potr.io.ply": ("load_ply", "save_ply"),
    "potr.rasterizer.base": ("ColorStatistics", "Rasterizer", "RemovalCost"),
    "potr.scene": ("Scene",),
    "potr.splats": ("SplatModel",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "select_rasterizer":
        value: Any = importlib.import_module("potr.rasterizer.select").select
    elif name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module 'potr' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
