# SPDX-License-Identifier: Apache-2.0
"""The quality factor: one number in (0, 1], larger is better, that sets every parameter of the codec."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from enum import Enum
from typing import Any

from potr.encoder.config import CodecConfig, CompactConfig, PruneConfig, QuantizeConfig
from potr.errors import ConfigError
from potr.format.coder import Entropy

STAGES = ("prune", "compact", "quantize")
# Price of a bit in pruning caps. A splat takes some 80 bits; refits make up for three quarters of what pruning costs.
BIT = 1 / 320


def _paper(quality: float) -> CodecConfig:
    """The paper's parameters where they are known (method.md sections 2 to 5), ours in between."""
    finer = 10 ** (0.6 * (quality - 0.1))
    return CodecConfig(
        name="paper",
        prune=PruneConfig(early_passes=16, late_passes=8, cap=1e-9 * 10 ** (-1.6 * (quality - 0.1))),
        compact=CompactConfig(
            refit_steps=0,
            drop_cost=1 / 32,
            strength=10**-quality,
            chroma_multiplier=3.0,
            redundancy_cosine=_sigmoid(3 * quality),
        ),
        quantize=QuantizeConfig(
            dc_multiplier=11 * finer,
            ac_multiplier=11 * finer,
            joint_rounding=False,
            opacity_levels=round(21 * finer) + 1,
            rotation_levels=2 * round(20 * finer) + 1,
            scale_step=0.035 / finer,
            position_gamma=0.25 / finer,
            entropy=Entropy.ZSTD,
        ),
    )


def _default(quality: float) -> CodecConfig:
    """The best we have; how its constants were chosen is in docs/rate_distortion.md."""
    finer = 10 ** (0.6 * (quality - 0.1))
    return CodecConfig(
        name="default",
        prune=PruneConfig(
            early_passes=5,
            late_passes=0,
            relative_cap=12.0 * 10 ** (-2.0 * (quality - 0.1)),
            first_cap=0.3,
            max_share=0.5,
            refit_rounds=2,
            final_refit_rounds=4,
        ),
        compact=CompactConfig(refit_steps=3, drop_cost=BIT, strength=0.1, chroma_multiplier=1.0, redundancy_cosine=1.0),
        quantize=QuantizeConfig(
            dc_multiplier=9 * finer,
            ac_multiplier=4.5 * finer,
            joint_rounding=True,
            bit_cost=BIT,
            geometry_bit_cost=30 * BIT,
            color_groups=5,
            color_rounds=2,
            measured_rates=True,
            opacity_levels=round(21 * finer) + 1,
            rotation_levels=2 * round(30 * finer) + 1,
            scale_step=0.22 / finer,
            position_gamma=0.45 / finer,
            entropy=Entropy.ANS,
        ),
    )


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


_PRESETS: dict[str, Callable[[float], CodecConfig]] = {"default": _default, "paper": _paper}
PRESETS = tuple(_PRESETS)


def config_for(
    quality: float, preset: str = "default", overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> CodecConfig:
    """The codec's parameters at a quality, with single ones replaced.

    Args:
        quality: in (0, 1].
        preset: one of PRESETS.
        overrides: stage ("prune", "compact", "quantize") to field to value; None values mean "from quality". An
            enum's member may be given by its value.

    Raises:
        ConfigError: quality out of range, unknown preset, stage or field, or a value out of its range.
    """
    if not (isinstance(quality, int | float) and 0 < quality <= 1):
        raise ConfigError(f"quality: expected a number in (0, 1], got {quality!r}")
    if preset not in _PRESETS:
        raise ConfigError(f"codec: expected one of {', '.join(PRESETS)}, got {preset!r}")
    return overridden(_PRESETS[preset](quality), overrides or {})


def overridden(config: CodecConfig, overrides: Mapping[str, Mapping[str, Any]]) -> CodecConfig:
    """The same parameters with single ones replaced.

    Arguments and errors as for ``config_for``.
    """
    for stage, values in overrides.items():
        if stage not in STAGES:
            raise ConfigError(f"overrides: expected a stage of {', '.join(STAGES)}, got {stage!r}")
        config = replace(config, **{stage: _replaced(getattr(config, stage), stage, values)})
    return config


def _replaced(config: Any, stage: str, values: Mapping[str, Any]) -> Any:
    current = {f.name: getattr(config, f.name) for f in fields(config)}
    unknown = sorted(set(values) - set(current))
    if unknown:
        raise ConfigError(f"{stage}: no parameter {', '.join(unknown)}; there are {', '.join(current)}")
    changes = {}
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(current[name], Enum) and not isinstance(value, Enum):
            members = [member.value for member in type(current[name])]
            if value not in members:
                raise ConfigError(f"{stage}.{name}: expected one of {', '.join(members)}, got {value!r}")
            value = type(current[name])(value)
        changes[name] = value
    if "relative_cap" in changes:
        changes.setdefault("cap", None)  # asking for the relative cap takes the preset's absolute one away
    return replace(config, **changes)
