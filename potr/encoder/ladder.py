# SPDX-License-Identifier: Apache-2.0
"""The way from ``codec=paper`` to ``codec=default``, one technique added at a time: experiment=ablation sweeps over it.

A rung takes the default's values, at the run's quality, for its parameters and keeps the others of the rung before. To
add a technique: give it a ``Rung`` here, and its name to conf/experiment/ablation.yaml; the tests say what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from potr.encoder.config import CodecConfig
from potr.encoder.quality import STAGES, config_for
from potr.errors import ConfigError

# The refit of geometry lets pruning go four times as far. Rungs without it have a quarter of the cap, as default had
# before it (until commit c8ced14), and a bit is four times as many caps, so that it has one price in MSE from "rdoq".
# The price is in caps: before "relative_cap", where the cap is the paper's own, it would stand to nothing.
_WITHOUT_GEOMETRY_REFIT = 4.0


@dataclass(frozen=True)
class Rung:
    """One technique on top of the rung before.

    Attributes:
        name: as in ``rung=``.
        adds: the technique, for tables.
        takes: "stage.parameter" whose value becomes the default's.
        scaled: "stage.parameter" whose value becomes this multiple of the default's, until a later rung takes it.
    """

    name: str
    adds: str
    takes: tuple[str, ...] = ()
    scaled: Mapping[str, float] = field(default_factory=dict)


RUNGS = (
    Rung("paper", "the paper's steps under zstd: codec=paper"),
    Rung("ans", "entropy coding by context", ("quantize.entropy",)),
    Rung("colour_refit", "closed-form refit of colours", ("compact.refit_steps",)),
    Rung(
        "relative_cap",
        "pruning by the model's own error, all of it before compaction",
        ("prune.cap", "prune.early_passes", "prune.late_passes", "prune.first_cap", "prune.max_share"),
        {"prune.relative_cap": 1 / _WITHOUT_GEOMETRY_REFIT},
    ),
    Rung(
        "rdoq",
        "joint rounding of SH levels, with a price per bit",
        (
            *("quantize.joint_rounding", "quantize.dc_multiplier", "quantize.ac_multiplier"),
            *("compact.strength", "compact.chroma_multiplier", "compact.redundancy_cosine"),
        ),
        {"quantize.bit_cost": _WITHOUT_GEOMETRY_REFIT, "compact.drop_cost": _WITHOUT_GEOMETRY_REFIT},
    ),
    Rung(
        "steps",
        "steps of rotation, scale and position by their measured worth",
        (
            *("quantize.opacity_levels", "quantize.rotation_levels"),
            *("quantize.scale_step", "quantize.position_gamma"),
        ),
    ),
    Rung(
        "geometry_refit",
        "refit of geometry and colours after every pass",
        (
            *("prune.refit_rounds", "prune.final_refit_rounds", "prune.relative_cap"),
            *("quantize.bit_cost", "compact.drop_cost"),
        ),
    ),
    Rung("geometry_rdoq", "opacity, scale and rotation levels with a price per bit", ("quantize.geometry_bit_cost",)),
    Rung("measured_rates", "bits of SH levels by the statistics of levels chosen before", ("quantize.measured_rates",)),
    Rung(
        "default",
        "colours quantised in groups, two rounds, the rest refitted: codec=default",
        ("quantize.color_groups", "quantize.color_rounds"),
    ),
)
RUNG_NAMES = tuple(rung.name for rung in RUNGS)


def rung_config(quality: float, name: str) -> CodecConfig:
    """The codec's parameters on a rung; on the first and the last they are those of the preset of that name.

    Raises:
        ConfigError: unknown rung, or a quality out of range.
    """
    if name not in RUNG_NAMES:
        raise ConfigError(f"rung: expected one of {', '.join(RUNG_NAMES)}, got {name!r}")
    config, default = config_for(quality, "paper"), config_for(quality, "default")
    for rung in RUNGS[: RUNG_NAMES.index(name) + 1]:
        config = _stepped(config, default, rung)
    return replace(config, name=name)


def _stepped(config: CodecConfig, default: CodecConfig, rung: Rung) -> CodecConfig:
    changes: dict[str, dict[str, object]] = {stage: {} for stage in STAGES}
    for path, factor in (*((path, None) for path in rung.takes), *rung.scaled.items()):
        stage, _, parameter = path.partition(".")
        value = getattr(getattr(default, stage), parameter)
        changes[stage][parameter] = value if factor is None else factor * value
    return replace(config, **{stage: replace(getattr(config, stage), **values) for stage, values in changes.items()})
