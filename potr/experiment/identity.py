# SPDX-License-Identifier: Apache-2.0
"""Hashes that tell whether two runs are the same: of their settings, of what went in, and of the code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
from enum import Enum
from pathlib import Path
from typing import Any

from potr.encoder.resume import ROOMS, code_sha256, model_sha256, views_sha256
from potr.experiment.schema import RunConfig, changes
from potr.model.scene import Scene

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
    parts = (views_sha256(scene.train_views), views_sha256(scene.test_views))
    return hashlib.sha256("".join((model_sha256(scene.model), *parts)).encode()).hexdigest()


def results_code_sha256() -> str:
    """Of the code that decides a run's result, peers included."""
    return code_sha256(*ROOMS, "experiment/peers")


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


def _hash_json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=lambda v: v.value if isinstance(v, Enum) else str(v))
    return hashlib.sha256(text.encode()).hexdigest()
