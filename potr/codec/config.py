# SPDX-License-Identifier: Apache-2.0
"""Parameters of the encoder's stages: plain scalars and enums, checked when made. The library never sees Hydra."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from potr.errors import ConfigError


class Criterion(Enum):
    """What a splat's removal is charged with."""

    PHOTO = "photo"  # change of the error against the photographs
    RENDER = "render"  # change of the render itself (fidelity)
    BOTH = "both"  # the larger of the two


def _check_range(config: Any, name: str, low: float, high: float) -> None:
    value = getattr(config, name)
    if value is None:
        return
    if not (isinstance(value, int | float) and math.isfinite(value) and low <= value <= high):
        raise ConfigError(f"{type(config).__name__}.{name}: expected a number in [{low}, {high}], got {value!r}")


def _limits(low: float, high: float, default: Any) -> Any:
    return field(default=default, metadata={"range": (low, high)})


class _Checked:
    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            if "range" in f.metadata:
                _check_range(self, f.name, *f.metadata["range"])


@dataclass(frozen=True)
class PruneConfig(_Checked):
    """Which splats go (method.md section 2). A splat goes when its removal raises the MSE by at most ``cap``."""

    early_passes: int = _limits(0, 200, 8)  # before compaction
    late_passes: int = _limits(0, 200, 4)  # after it
    cap: float = _limits(
        0.0, 1.0, 1e-9
    )  # dMSE allowed a splat, on the MSE over all training pixels; reached in the last early pass
    first_cap: float = _limits(0.0, 1.0, 0.1)  # the first pass's cap as a share of cap; it rises geometrically
    max_share: float = _limits(0.0, 1.0, 0.25)  # of the splats there are, that one pass may remove at most
    max_negative_share: float = _limits(
        0.0, 1.0, 0.02
    )  # of the splats there are, that one pass may remove because the photographs improve
    criterion: Criterion = Criterion.BOTH
    remove_unseen: bool = True  # splats that no training view sees go first
    target_splats: int | None = _limits(1, 2**31, None)  # instead of the cap: keep this many
    target_share: float | None = _limits(0.0, 1.0, None)  # instead of the cap: keep this share


@dataclass(frozen=True)
class CompactConfig(_Checked):
    """SH energy compaction (method.md section 3)."""

    enabled: bool = True
    strength: float = _limits(0.0, 1e6, 0.7943)  # lambda of the energy penalty
    chroma_multiplier: float = _limits(0.0, 1e3, 3.0)  # chroma is penalised so many times as much
    redundancy_cosine: float = _limits(
        0.0, 1.0, 0.5744
    )  # basis functions more parallel than this over the seen views are redundant
    rounds: int = _limits(1, 16, 3)  # of sparsification and re-solving


@dataclass(frozen=True)
class QuantizeConfig(_Checked):
    """Steps of the uniform quantisers (method.md section 4)."""

    dc_multiplier: float = _limits(1e-3, 1e5, 11.0)  # levels per SH unit, degree 0
    ac_multiplier: float = _limits(1e-3, 1e5, 11.0)  # levels per SH unit, degrees 1 to 3
    chroma_step_ratio: float = _limits(0.1, 100.0, 1.0)  # step of the chroma channels as a multiple of luma's
    opacity_levels: int = _limits(2, 4096, 22)  # over opacity 0..1
    rotation_levels: int = _limits(3, 65535, 41)  # over a quaternion component's range -1..1
    scale_levels: int = _limits(2, 65535, 401)  # over the range of the log-scales
    position_gamma: float = _limits(1e-6, 10.0, 0.25)  # position step as a share of the splat's own size
    position_floor: float = _limits(0.0, 1.0, 1.4e-5)  # smallest position step as a share of the model's extent
    opacity_boost: float = _limits(0.0, 10.0, 0.33)  # hint carried to decoders, not applied
    zstd_level: int = _limits(1, 22, 22)


@dataclass(frozen=True)
class CodecConfig:
    """Everything the encoder needs beside the model and its views."""

    name: str = "paper"
    prune: PruneConfig = PruneConfig()
    compact: CompactConfig = CompactConfig()
    quantize: QuantizeConfig = QuantizeConfig()
