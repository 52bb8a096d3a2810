# SPDX-License-Identifier: Apache-2.0
"""Parameters of the encoder's stages: plain scalars and enums, checked when made. The library never sees Hydra."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any

from potr.errors import ConfigError
from potr.format.coder import Entropy

NOISE_MSE = (1 / 255) ** 2 / 12  # of 8-bit photographs: no model can be meant to be closer to them


class Criterion(Enum):
    """What a splat's removal is charged with."""

    PHOTO = "photo"  # change of the error against the photographs
    RENDER = "render"  # change of the render itself (fidelity)
    BOTH = "both"  # the larger of the two


def _check_range(config: Any, name: str, low: float, high: float) -> None:
    value = getattr(config, name)
    if value is None:
        return
    if isinstance(value, bool) or not (
        isinstance(value, int | float) and math.isfinite(value) and low <= value <= high
    ):
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
    """Which splats go (method.md section 2): those whose removal raises the MSE by at most the cap."""

    # Passes before and after compaction.
    early_passes: int = _limits(0, 200, 8)
    late_passes: int = _limits(0, 200, 4)
    # Cap: rise of the MSE over all training pixels that one splat's removal may cost; reached in the last early pass.
    # None: ``relative_cap`` decides.
    cap: float | None = _limits(0.0, 1.0, None)
    # The cap in units of the input model's MSE per splat, which makes it mean the same for every scene.
    relative_cap: float = _limits(0.0, 1e6, 1.0)
    # The first pass's cap as a share of the last one's; it rises geometrically from there.
    first_cap: float = _limits(1e-6, 1.0, 0.1)
    # Share of the splats that one pass may remove at most.
    max_share: float = _limits(1e-4, 1.0, 0.25)
    # Share of the splats that one pass may remove on the ground that the photographs improve; criterion photo only, the
    # others charge nothing below 0.
    max_negative_share: float = _limits(0.0, 1.0, 0.02)
    # A pass whose real change of the MSE is over this many times its budget (removed splats' costs) halves the next.
    tolerance: float = _limits(1.0, 1e6, 2.0)
    criterion: Criterion = Criterion.BOTH
    # Splats that no training view sees go first.
    remove_unseen: bool = True
    # Rounds of closed-form steps towards the photographs, geometry and colour, after each early pass; 0: none. Each
    # round costs two passes over the views.
    refit_rounds: int = _limits(0, 100, 0)
    # As many more after the last early pass.
    final_refit_rounds: int = _limits(0, 100, 0)
    # Instead of the cap: keep this many splats, or this share of them.
    target_splats: int | None = _limits(1, 2**31, None)
    target_share: float | None = _limits(1e-6, 1.0, None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_splats is not None and self.target_share is not None:
            raise ConfigError("PruneConfig: give target_splats or target_share, not both")

    def final_cap(self, mse: float, num_splats: int) -> float:
        """Rise of the MSE that a removal may cost in the end: as given, or relative to a model's MSE and splats."""
        if self.cap is not None:
            return self.cap
        return self.relative_cap * max(mse, NOISE_MSE) / max(num_splats, 1)


@dataclass(frozen=True)
class CompactConfig(_Checked):
    """SH energy compaction (method.md section 3)."""

    enabled: bool = True
    # Closed-form steps towards the photographs before compaction and again before rounding; 0: none. Each but the first
    # costs a pass over the views.
    refit_steps: int = _limits(0, 100, 0)
    # Rise of the MSE for which an AC coefficient is dropped, in units of the pruning cap.
    drop_cost: float = _limits(0.0, 1e6, 0.06)
    # lambda of the energy penalty: price of one squared quantisation step of AC, in units of drop_cost.
    strength: float = _limits(0.0, 1e6, 0.1)
    # Chroma is penalised so many times as much as luma.
    chroma_multiplier: float = _limits(0.0, 1e3, 3.0)
    # Bases more parallel than this over the seen directions are redundant; 1 keeps all.
    redundancy_cosine: float = _limits(0.0, 1.0, 0.5744)
    # A redundant coefficient is dropped for this many times the rise of an ordinary one.
    redundancy_cost: float = _limits(0.0, 1e6, 2.0)


@dataclass(frozen=True)
class QuantizeConfig(_Checked):
    """Steps of the uniform quantisers (method.md section 4)."""

    # Levels per SH unit: degree 0, degrees 1 to 3.
    dc_multiplier: float = _limits(1e-3, 1e5, 11.0)
    ac_multiplier: float = _limits(1e-3, 1e5, 11.0)
    # Step of the chroma channels as a multiple of luma's.
    chroma_step_ratio: float = _limits(0.1, 100.0, 1.0)
    # Choose a splat's SH levels jointly, each taking up the others' rounding errors, in the metric of the views.
    joint_rounding: bool = True
    # Rise of the MSE that one bit of an SH coefficient is worth when levels are chosen, in units of the pruning cap.
    bit_cost: float = _limits(0.0, 1e6, 0.0)
    # The same for a bit of opacity, scale or rotation: their levels are then chosen jointly, too. The error that it
    # is weighed against is a cautious bound, so this is many times bit_cost. 0: each takes the closest level.
    geometry_bit_cost: float = _limits(0.0, 1e6, 0.0)
    # The splats' colours are quantised in so many groups; after each but the last, those still free are refitted, which
    # costs a pass over the views.
    color_groups: int = _limits(1, 16, 1)
    # Each group's levels are chosen so many times; from the second time on it is first refitted to all others, which
    # are quantised. Each further time costs a pass over the views for each group.
    color_rounds: int = _limits(1, 16, 1)
    # Bits of an SH level: by the statistics of the levels chosen so far, or the same for all coefficients.
    measured_rates: bool = False
    # Levels of opacity over 0..1.
    opacity_levels: int = _limits(2, 4096, 22)
    # Levels of a quaternion component over -1..1.
    rotation_levels: int = _limits(3, 32767, 41)
    # Step of the log-scales.
    scale_step: float = _limits(1e-4, 2.0, 0.035)
    # Position step as a share of the splat's own size.
    position_gamma: float = _limits(1e-6, 10.0, 0.25)
    # The coder: by context (format version 3), or byte streams under zstd (version 1).
    entropy: Entropy = Entropy.ZSTD
    zstd_level: int = _limits(1, 22, 22)


@dataclass(frozen=True)
class CodecConfig:
    """Everything the encoder needs beside the model and its views; encoder.quality.config_for makes one."""

    name: str
    prune: PruneConfig
    compact: CompactConfig
    quantize: QuantizeConfig

    def for_splats(self, num_splats: int) -> CodecConfig:
        """The parameters for a model of so many splats: a share to keep becomes a number."""
        share = self.prune.target_share
        if share is None:
            return self
        prune = replace(self.prune, target_splats=max(1, round(share * num_splats)), target_share=None)
        return replace(self, prune=prune)
