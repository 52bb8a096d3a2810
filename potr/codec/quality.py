# SPDX-License-Identifier: Apache-2.0
"""The quality factor: one number in (0, 1], larger is better, that sets every parameter of the codec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potr.codec.config import CodecConfig

PRESETS = ("paper",)


def config_for(
    quality: float, preset: str = "paper", overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> CodecConfig:
    """The codec's parameters at a quality, with single ones replaced.

    Args:
        quality: in (0, 1].
        preset: one of PRESETS.
        overrides: stage ("prune", "compact", "quantize") to field to value; None values mean "from quality".

    Raises:
        ConfigError: quality out of range, unknown preset, stage or field, or a value out of its range.
    """
    raise NotImplementedError
