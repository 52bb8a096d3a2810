# SPDX-License-Identifier: Apache-2.0
"""What a run is, as frozen dataclasses; the only module that knows OmegaConf and Hydra's ConfigStore.

``register()`` gives Hydra the schema, ``resolve()`` turns what Hydra composed into a ``RunConfig``. Nothing behind
this door sees a DictConfig.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from potr.encoder.config import CodecConfig, CompactConfig, PruneConfig, QuantizeConfig
from potr.encoder.quality import (
    PRESETS,
    RUNG_NAMES,
    STAGES,
    Overrides,
    config_for,
    field_types,
    overridden,
    rung_config,
    unknown,
)
from potr.encoder.target import Target
from potr.errors import ConfigError
from potr.evaluate.weights import Network
from potr.experiment.peers import PEERS, peer_class
from potr.experiment.scenes.places import DEFAULT_DATA, DEFAULT_MODELS
from potr.experiment.scenes.suites import SUITES, suite_scene
from potr.experiment.sweep.launcher import LauncherConfig
from potr.format.coder import Entropy
from potr.render.select import BACKENDS
from potr.threads import checked_threads

KINDS = ("demo", "folder", "suite")
LPIPS_NETWORKS = ("none", *(network.value for network in Network))
TRACKERS = ("none", "wandb")
TRACKER_MODES = ("auto", "online", "offline", "disabled")


def _unnamed(default: Any) -> Any:
    """A field that does not show in the run folder's name: it is there already, or changes nothing in the result."""
    return field(default=default, metadata={"named": False})


def _overrides_of(config: type) -> Any:
    """The stage config with every field optional and None by default, which is "from quality"."""
    hints = {name: str if issubclass(kind, Enum) else kind for name, kind in field_types(config).items()}
    return dataclasses.make_dataclass(
        config.__name__.replace("Config", "Overrides"),
        [(name, Optional[kind], None) for name, kind in hints.items()],  # noqa: UP045 - evaluated at run time
        frozen=True,
        namespace={"__module__": __name__},
    )


PruneOverrides = _overrides_of(PruneConfig)
CompactOverrides = _overrides_of(CompactConfig)
QuantizeOverrides = _overrides_of(QuantizeConfig)


@dataclass(frozen=True)
class DatasetConfig:
    kind: str = _unnamed("demo")
    suite: str | None = _unnamed(None)
    name: str | None = _unnamed(None)
    path: str | None = _unnamed(None)
    model: str | None = _unnamed(None)
    scene: str | None = _unnamed(None)
    images: str | None = None
    downscale: float = 1.0
    background: str | None = None
    max_views: int | None = None
    clean: bool = False

    def __post_init__(self) -> None:
        _one_of("dataset.kind", self.kind, KINDS)
        if self.kind == "folder" and not self.path:
            raise ConfigError("dataset=folder needs the scene's folder: dataset.path=DIR")
        if self.suite is not None:
            _one_of("dataset.suite", self.suite, SUITES)
        if self.kind == "suite":
            suite_scene(self.scene or "")
        if not (math.isfinite(self.downscale) and self.downscale >= 1):
            raise ConfigError(f"dataset.downscale: expected a factor of at least 1, got {self.downscale}")
        _at_least("dataset.max_views", self.max_views, 1)
        if self.background is not None:
            parse_color(self.background)


@dataclass(frozen=True)
class PathsConfig:
    data: str = DEFAULT_DATA
    models: str = DEFAULT_MODELS


@dataclass(frozen=True)
class CodecChoice:
    """One of our presets, or a peer with those of its options that differ from its defaults."""

    name: str = "default"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _one_of("codec.name", self.name, (*PRESETS, *PEERS))
        options = peer_class(self.name).options if self.name in PEERS else {}
        for key in self.options:
            if key not in options:
                raise ConfigError(unknown(f"option of codec {self.name}:", key, tuple(options)))
        given = {key: value for key, value in self.options.items() if value is not None}
        if self.name in PEERS:
            peer_class(self.name).check(given)
        changed = {key: value for key, value in given.items() if value != options[key].default}
        object.__setattr__(self, "options", changed)

    @property
    def has_quality(self) -> bool:
        """Whether quality makes a difference to this codec."""
        return self.name in PRESETS or peer_class(self.name).quality_sets is not None


@dataclass(frozen=True)
class BackendChoice:
    """Attributes: ``max_entries`` and ``photo_gb`` are CudaRasterizer's, photo_bytes in GB; None is its own choice."""

    name: str = "auto"
    max_entries: int | None = None
    photo_gb: float | None = None

    def __post_init__(self) -> None:
        _one_of("backend.name", self.name, ("auto", *BACKENDS))
        if self.max_entries is not None and not 1 <= self.max_entries <= 1 << 30:
            raise ConfigError(f"backend.max_entries: expected 1 to 2^30, got {self.max_entries}")
        if self.photo_gb is not None and not 0 <= self.photo_gb < float("inf"):
            raise ConfigError(f"backend.photo_gb: expected a number of at least 0, got {self.photo_gb}")
        for key in ("max_entries", "photo_gb"):
            if getattr(self, key) is not None and self.name not in ("auto", "cuda"):
                raise ConfigError(f"backend.{key}: backend={self.name} has no such option, backend=cuda has")

    @property
    def options(self) -> dict[str, Any]:
        """What ``select`` passes on."""
        photo_bytes = None if self.photo_gb is None else round(1e9 * self.photo_gb)
        given = {"max_entries": self.max_entries, "photo_bytes": photo_bytes}
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True)
class TrackerConfig:
    name: str = "none"
    mode: str = "auto"
    project: str | None = None
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    images: bool = True
    artifact: bool = False
    timeout: float = 120.0

    def __post_init__(self) -> None:
        _one_of("tracker.name", self.name, TRACKERS)
        _one_of("tracker.mode", self.mode, TRACKER_MODES)
        if not (math.isfinite(self.timeout) and 1 <= self.timeout <= 86400):
            raise ConfigError(f"tracker.timeout: expected seconds in [1, 86400], got {self.timeout}")


@dataclass(frozen=True)
class EvaluateConfig:
    lpips: str = "vgg"
    lpips_views: int | None = 3
    fps_seconds: float = 1.0
    pictures: int = _unnamed(3)

    def __post_init__(self) -> None:
        _one_of("evaluate.lpips", self.lpips, LPIPS_NETWORKS)
        _at_least("evaluate.lpips_views", self.lpips_views, 1)
        _at_least("evaluate.pictures", self.pictures, 0)
        if not (math.isfinite(self.fps_seconds) and 0 <= self.fps_seconds <= 600):
            raise ConfigError(f"evaluate.fps_seconds: expected a number in [0, 600], got {self.fps_seconds}")


@dataclass(frozen=True)
class TargetConfig:
    """At most one of the three; without any the run is at ``quality``."""

    size_mb: float | None = None
    psnr_drop: float | None = None
    splats: int | None = None

    def __post_init__(self) -> None:
        self.chosen()

    def chosen(self) -> Target | None:
        """The target, where there is one; ConfigError if there are several."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return Target(**given) if given else None


@dataclass(frozen=True)
class RunConfig:
    """One run: a scene, a quality, the codec's parameters, and how it is measured.

    ``prune``, ``compact`` and ``quantize`` have the fields of the stage configs, None meaning "from quality".
    ``entropy`` is another name of ``quantize.entropy``. ``rung`` is a codec on the way from codec=paper to
    codec=default (potr.encoder.quality); its ends are those two, and become them here.
    """

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    codec: CodecChoice = field(default_factory=CodecChoice)
    rung: str | None = None
    prune: Any = field(default_factory=PruneOverrides)
    compact: Any = field(default_factory=CompactOverrides)
    quantize: Any = field(default_factory=QuantizeOverrides)
    backend: BackendChoice = field(default_factory=BackendChoice)
    tracker: TrackerConfig = field(default_factory=TrackerConfig, metadata={"named": False})
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    paths: PathsConfig = field(default_factory=PathsConfig, metadata={"named": False})
    launcher: LauncherConfig = field(default_factory=LauncherConfig, metadata={"named": False})
    quality: float = _unnamed(0.5)
    entropy: str | None = None
    target: TargetConfig = field(default_factory=TargetConfig)
    seed: int = 0
    threads: int | None = _unnamed(None)
    outputs: str = _unnamed("outputs")
    cache: bool = _unnamed(True)
    sweep: str | None = _unnamed(None)
    force: bool = _unnamed(False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.quality) and 0 < self.quality <= 1):
            raise ConfigError(f"quality: expected a number in (0, 1], got {self.quality}")
        if self.threads is not None:
            checked_threads(self.threads)
        _at_least("seed", self.seed, 0)
        if self.entropy is not None:
            _one_of("entropy", self.entropy, tuple(member.value for member in Entropy))
            if self.quantize.entropy not in (None, self.entropy):
                raise ConfigError(
                    f"entropy={self.entropy} and quantize.entropy={self.quantize.entropy} contradict each other"
                )
        self._check_rung()
        target = self.target.chosen()
        if target is not None and self.codec.name not in PRESETS:
            raise ConfigError(f"{target}: codec={self.codec.name} is not searched; only {' and '.join(PRESETS)} are")
        if target is not None and self.quality != RunConfig.quality:
            raise ConfigError(f"{target} and quality={self.quality:g} contradict each other: give one of the two")

    def _check_rung(self) -> None:
        if self.rung is None:
            return
        _one_of("rung", self.rung, RUNG_NAMES)
        if self.codec != CodecChoice():
            raise ConfigError(f"rung={self.rung} and codec={self.codec.name} contradict each other: leave codec out")
        if self.rung in PRESETS:
            object.__setattr__(self, "codec", CodecChoice(self.rung))
            object.__setattr__(self, "rung", None)

    @property
    def asked_quality(self) -> float | None:
        """The quality; None where it means nothing to the codec, or is what a search is to find."""
        return self.quality if self.codec.has_quality and self.target.chosen() is None else None

    def codec_config(self) -> CodecConfig | None:
        """The resolved parameters of our codec, None for a peer's; ConfigError if one is out of its range."""
        given = self.overrides()
        if self.codec.name in PRESETS:
            return self.codec_config_at(self.quality)
        if given:
            keys = ", ".join(f"{stage}.{key}" for stage, values in given.items() for key in values)
            raise ConfigError(f"codec={self.codec.name} has none of our codec's parameters, got {keys}")
        peer_class(self.codec.name).check(self.peer_options())
        return None

    def codec_config_at(self, quality: float) -> CodecConfig:
        """The parameters of our codec at another quality."""
        own = config_for(quality, self.codec.name) if self.rung is None else rung_config(quality, self.rung)
        return overridden(own, self.overrides())

    def peer_options(self) -> dict[str, Any]:
        """The options of a peer that differ from its defaults; where it has a seed, the run's unless it is given."""
        seed = {"seed": self.seed} if "seed" in peer_class(self.codec.name).options else {}
        return {**seed, **self.codec.options}

    def dataset_name(self) -> str:
        """Under which the scene's results lie."""
        dataset = self.dataset
        return dataset.name or (Path(str(dataset.path)).resolve().name if dataset.path else dataset.kind)

    def overrides(self) -> Overrides:
        """The codec parameters that do not come from quality: stage to field to value."""
        given = {stage: dict(vars(getattr(self, stage))) for stage in STAGES}
        if self.entropy is not None:
            given["quantize"]["entropy"] = self.entropy
        found = {
            stage: {key: value for key, value in values.items() if value is not None} for stage, values in given.items()
        }
        return {stage: values for stage, values in found.items() if values}


def setting_names(node: Any = None, prefix: str = "") -> list[str]:
    """Every KEY of KEY=VALUE on the command line: dotted names of settings, and the groups of conf/."""
    node = RunConfig() if node is None else node
    names = [] if prefix else [path.name for path in sorted(conf_folder().iterdir()) if path.is_dir()]
    for f in fields(node):
        value = getattr(node, f.name)
        names += setting_names(value, f"{prefix}{f.name}.") if is_dataclass(value) else [f"{prefix}{f.name}"]
    return names


def conf_folder() -> Path:
    """conf/: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def with_codec_resolved(config: RunConfig) -> RunConfig:
    """The same run with every codec parameter written out instead of None; as it is where a search finds them."""
    codec = config.codec_config()
    if codec is None or config.target.chosen() is not None:
        return config
    stages: dict[str, Any] = {}
    for stage in STAGES:
        values = dataclasses.asdict(getattr(codec, stage))
        plain = {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}
        stages[stage] = dataclasses.replace(getattr(config, stage), **plain)
    return dataclasses.replace(config, **stages)


def register() -> None:
    """Give Hydra the schema, as ``run_schema``."""
    node = OmegaConf.structured(RunConfig)
    _clear_read_only(node)
    ConfigStore.instance().store(name="run_schema", node=node)


def resolve(composed: DictConfig) -> RunConfig:
    """What Hydra composed, as a checked ``RunConfig``.

    Raises:
        ConfigError: a value is out of its range, or a key was added that a run does not have.
    """
    _refuse_added(composed, RunConfig(), "")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, RunConfig), "conf/run.yaml lists run_schema first"
    config.codec_config()  # the stages' ranges, now rather than after a minute of work
    return config


def to_yaml(config: Any) -> str:
    """A dataclass of dataclasses as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def changes(config: Any, default: Any | None = None) -> dict[str, Any]:
    """The settings that differ from the defaults and shape the result, as dotted names to values."""
    default = type(config)() if default is None else default
    found: dict[str, Any] = {}
    for f in fields(config):
        if not f.metadata.get("named", True):
            continue
        value, usual = getattr(config, f.name), getattr(default, f.name)
        if is_dataclass(value):
            found |= {f"{f.name}.{key}": v for key, v in changes(value, usual).items()}
        elif isinstance(value, dict):
            found |= {f"{f.name}.{key}": v for key, v in value.items()}
        elif value != usual:
            found[f.name] = value
    return found


def parse_color(text: str) -> tuple[float, float, float]:
    """``black``, ``white`` or ``#rrggbb`` as RGB in 0..1."""
    code = {"black": "#000000", "white": "#ffffff"}.get(text, text)
    try:
        if len(code) != 7 or code[0] != "#":
            raise ValueError
        red, green, blue = bytes.fromhex(code[1:])
    except ValueError:
        raise ConfigError(f"background: expected black, white or #rrggbb, got '{text}'") from None
    return red / 255, green / 255, blue / 255


def _clear_read_only(node: DictConfig) -> None:
    # A frozen dataclass becomes a read-only node, and every override of it would fail.
    OmegaConf.set_readonly(node, None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            _clear_read_only(child)


def _refuse_added(node: DictConfig, known: Any, prefix: str) -> None:
    # Hydra's +KEY=VALUE gets past the schema.
    names = [f.name for f in fields(known)]
    for key in node:
        if str(key) not in names:
            raise ConfigError(unknown("key", f"{prefix}{key!s}", [prefix + name for name in names]))
        child, known_child = node._get_node(key), getattr(known, str(key))
        if isinstance(child, DictConfig) and is_dataclass(known_child):
            _refuse_added(child, known_child, f"{prefix}{key!s}.")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(unknown(f"value of {name}:", value, allowed))


def _at_least(name: str, value: int | None, low: int) -> None:
    if value is not None and value < low:
        raise ConfigError(f"{name}: expected a whole number of at least {low}, got {value}")
