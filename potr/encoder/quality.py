# SPDX-License-Identifier: Apache-2.0
"""Words to a configuration: a quality, a preset, a rung between the presets, and single parameters given as text.

The quality factor is one number in (0, 1], larger is better, that sets every parameter of the codec.
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any

from potr.encoder.config import CodecConfig, CompactConfig, PruneConfig, QuantizeConfig
from potr.errors import ConfigError
from potr.format.coder import Entropy

STAGES: Mapping[str, type] = {"prune": PruneConfig, "compact": CompactConfig, "quantize": QuantizeConfig}
Overrides = dict[str, dict[str, Any]]
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
            raise ConfigError(unknown("stage", stage, STAGES))
        given = {key: coerce(stage, key, value) for key, value in values.items()}
        changes = {key: value for key, value in given.items() if value is not None}
        if "relative_cap" in changes:
            changes.setdefault("cap", None)  # asking for the relative cap takes the preset's absolute one away
        config = replace(config, **{stage: replace(getattr(config, stage), **changes)})
    return config


def parse_overrides(texts: Sequence[str]) -> Overrides:
    """``["prune.cap=1e-8", ...]`` as stage to field to value.

    Raises:
        ConfigError: not of the form STAGE.FIELD=VALUE, an unknown stage or field, or a value of another type.
    """
    overrides: Overrides = {}
    for text in texts:
        path, equals, value = text.partition("=")
        stage, dot, key = path.strip().partition(".")
        if not (equals and dot and key):
            raise ConfigError(f"'{text}': expected STAGE.FIELD=VALUE, for example prune.cap=1e-8")
        overrides.setdefault(stage, {})[key] = coerce(stage, key, value.strip())
    return overrides


def coerce(stage: str, key: str, value: Any) -> Any:
    """A value as the type of a stage config's field; text is read, None (or "null") means "from quality".

    Raises:
        ConfigError: unknown stage or field (the allowed ones are listed), or a value of another type.
    """
    if stage not in STAGES:
        raise ConfigError(unknown("stage", stage, STAGES))
    expected = field_types(STAGES[stage])
    if key not in expected:
        raise ConfigError(unknown("parameter", f"{stage}.{key}", [f"{stage}.{name}" for name in expected]))
    if value is None or value == "null":
        return None
    kind = expected[key]
    try:
        return _read(kind, value)
    except (ValueError, KeyError):
        wanted = "one of " + ", ".join(m.value for m in kind) if issubclass(kind, Enum) else _WANTED[kind]
        raise ConfigError(f"{stage}.{key}: expected {wanted}, got {value!r}") from None


_SWITCHES = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}
_WANTED = {bool: "true or false", int: "a whole number", float: "a number"}


def _read(kind: type, value: Any) -> Any:
    if issubclass(kind, Enum):
        return value if isinstance(value, kind) else kind(str(value).lower())
    if kind is bool:
        return value if isinstance(value, bool) else _SWITCHES[str(value).lower()]
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
        raise ValueError
    read: Any = kind
    return read(value)


def field_types(config: type) -> dict[str, type]:
    """Field to type, without the ``| None`` of optional fields."""
    hints = typing.get_type_hints(config)
    return {f.name: _without_none(hints[f.name]) for f in fields(config)}


def _without_none(hint: Any) -> type:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    return typing.cast(type, hint)


def refuse_options(arguments: Sequence[str], names: Iterable[str], options: Iterable[str]) -> None:
    """ConfigError for ``--quality 0.3`` where quality=0.3 is meant.

    Args:
        arguments: of the command line.
        names: the keys that there are.
        options: those with dashes that are allowed; beginnings of long ones are.
    """
    names, options = list(names), tuple(options)
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        option, equals, value = argument.partition("=")
        wanted = option.strip("-").replace("-", "_")
        shortened = len(option) > 3 and wanted not in names and any(known.startswith(option) for known in options)
        if option in options or shortened or not option.startswith("-") or not option.strip("-")[:1].isalpha():
            continue
        if not equals and following and "=" not in following and not following.startswith("--"):
            argument, value = f"{argument} {following}", following
        found = [name for name in names if name == wanted] or [n for n in names if n.split(".")[-1] == wanted]
        near = found or difflib.get_close_matches(wanted, names, n=1)
        hint = " or ".join(f"{name}={value or 'VALUE'}" for name in near)
        hint = f"did you mean {hint}? " if hint else ""
        raise ConfigError(f"{argument}: {hint}settings are KEY=VALUE, without dashes; --help lists them")


def unknown(what: str, name: str, allowed: Iterable[str]) -> str:
    """The message for a name that does not exist: the nearest one first, then all of them."""
    allowed = list(allowed)
    near = difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown {what} '{name}'; {hint}allowed: {', '.join(allowed)}"


# The way from codec=paper to codec=default, one technique added at a time: experiment=ablation sweeps over it. To add a
# technique: give it a Rung here, and its name to conf/experiment/ablation.yaml; the tests say what is missing.

# The refit of geometry lets pruning go four times as far. Rungs without it have a quarter of the cap, as default had
# before it (until commit c8ced14), and a bit is four times as many caps, so that it has one price in MSE from "rdoq".
# The price is in caps: before "relative_cap", where the cap is the paper's own, it would stand to nothing.
_WITHOUT_GEOMETRY_REFIT = 4.0


@dataclass(frozen=True)
class Rung:
    """One technique on top of the rung before, whose other parameters it keeps.

    Attributes:
        name: as in ``rung=``.
        adds: the technique, for tables.
        takes: "stage.parameter" whose value becomes the default's, at the run's quality.
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
