# SPDX-License-Identifier: Apache-2.0
"""The whole encoder on one screen: prune, compact, prune, quantise, serialise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potr.cameras import View
from potr.codec.config import CodecConfig
from potr.progress import Progress, silent
from potr.rasterizer.base import Rasterizer
from potr.splats import SplatModel


@dataclass(frozen=True)
class StageReport:
    """What a stage did. ``details`` is JSON-able (numbers, strings, lists, dicts)."""

    name: str
    seconds: float
    splats_before: int
    splats_after: int
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Encoded:
    """A bitstream and how it came about."""

    data: bytes
    stages: tuple[StageReport, ...]
    config: CodecConfig


def encode(
    model: SplatModel,
    views: Sequence[View],
    *,
    quality: float = 0.5,
    config: CodecConfig | None = None,
    rasterizer: Rasterizer | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Encoded:
    """Compress a model, judged by its training views.

    Args:
        model: the trained model.
        views: the training views, with photographs; each brings its background.
        quality: in (0, 1], larger is better; ignored where ``config`` is given.
        config: every parameter (codec.quality.config_for makes one from a quality).
        rasterizer: a backend; the best available by default.
        checkpoint: a file that an interrupted prune resumes from; written after every pass, removed at the end.
        progress: told of every view of every pass.

    Raises:
        SceneError: there are no views, or none of them sees a splat.
    """
    raise NotImplementedError
