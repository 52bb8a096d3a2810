# SPDX-License-Identifier: Apache-2.0
"""Hashes that tell whether two runs are the same: of their settings, of what went in, and of the code that measured."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import subprocess
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from potr.experiment.schema import RunConfig, changes
from potr.model.cameras import View
from potr.model.scene import Scene
from potr.model.splats import SplatModel

_PACKAGE = Path(__file__).resolve().parent.parent
_LONGEST_NAME = 120


def run_name(config: RunConfig) -> str:
    """``q0.5``, followed by every other setting that differs from the defaults: ``q0.5,prune.cap=1e-08``.

    A codec that is not the default goes first, and alone if quality means nothing to it: ``spz``. A target stands in
    the place of the quality: ``target.size_mb=5``.
    """
    changed = changes(config)
    codec = changed.pop("codec.name", None)
    quality = config.asked_quality
    head = [*([codec] if codec else []), *([] if quality is None else [f"q{quality:g}"])]
    head += [f"{key}={changed.pop(key)}" for key in [*changed] if key.startswith("target.")]
    name = ",".join([*head, *(f"{key}={value}" for key, value in changed.items())])
    if len(name) > _LONGEST_NAME or "/" in name:
        name = ",".join([*head, f"{len(changed)}-settings-{_hash_json(changed)[:8]}"])
    return name


def config_sha256(config: RunConfig) -> str:
    """Of everything that shapes the result: the settings and the codec parameters they resolve to."""
    own = config.codec_config()
    return _hash_json([config.asked_quality, changes(config), None if own is None else dataclasses.asdict(own)])


def inputs_sha256(scene: Scene) -> str:
    """Of the model and of all views: names, cameras, backgrounds, and photographs as they lie in their files."""
    digest = hashlib.sha256()
    _add_model(digest, scene.model)
    for views in (scene.train_views, scene.test_views):
        digest.update(f"{len(views)} views".encode())
        for view in views:
            _add_view(digest, view)
    return digest.hexdigest()


def measurement_sha256(model: SplatModel, views: Sequence[View], settings: Any) -> str:
    """Of a measurement: the model, the views with their photographs, the settings, and the code that measures."""
    digest = hashlib.sha256(_hash_json(settings).encode())
    _add_model(digest, model)
    for view in views:
        _add_view(digest, view)
    digest.update(code_sha256("", "io", "rasterizer", "evaluate").encode())
    return digest.hexdigest()


def code_sha256(*folders: str) -> str:
    """Of the Python sources in these folders of the package, of the native rasteriser and of the CUDA kernels."""
    sources = [path for folder in folders for path in sorted((_PACKAGE / folder).glob("*.py"))]
    native = importlib.util.find_spec("potr._rasterizer")
    digest = hashlib.sha256()
    kernels = [*sorted((_PACKAGE / "native").glob("*.h")), *sorted((_PACKAGE / "native" / "cuda").glob("*.*"))]
    for path in [*sources, *kernels, *([Path(native.origin)] if native and native.origin else [])]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def git_commit() -> str | None:
    """Commit of the checkout, with ``+`` when files differ from it; None outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_PACKAGE.parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _add_model(digest: Any, model: SplatModel) -> None:
    for f in dataclasses.fields(model):
        tensor: torch.Tensor = getattr(model, f.name)
        digest.update(f"{f.name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().numpy().data)


def _add_view(digest: Any, view: View) -> None:
    camera = view.camera
    numbers = [camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy, *view.background]
    digest.update(json.dumps([view.name, numbers, camera.viewmat.tolist(), view.photo_sha256()]).encode())


def _hash_json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=lambda v: v.value if isinstance(v, Enum) else str(v))
    return hashlib.sha256(text.encode()).hexdigest()
