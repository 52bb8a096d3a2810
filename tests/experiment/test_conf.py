# SPDX-License-Identifier: Apache-2.0
"""conf/: every file composes, and refuses what is misspelt or out of range."""

import dataclasses
import inspect
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from potr.encoder.config import Criterion
from potr.encoder.quality import PRESETS, RUNG_NAMES, STAGES, config_for, overridden, rung_config
from potr.errors import ConfigError
from potr.experiment import schema
from potr.experiment.identity import run_name
from potr.experiment.schema import BackendChoice
from potr.experiment.tables import write
from potr.experiment.tables.published import published
from potr.format.coder import Entropy
from potr.render.cuda import CudaRasterizer

CONF = schema.conf_folder()
FILES = sorted(CONF.rglob("*.yaml"))
GROUPS = sorted({path.parent.name for path in FILES if path.parent != CONF and "hydra" not in path.parts})


def composed(*overrides: str) -> schema.RunConfig:
    schema.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return schema.resolve(compose("run", overrides=list(overrides)))


def needed(group: str, option: str) -> list[str]:
    return ["dataset.path=somewhere"] if (group, option) == ("dataset", "folder") else []


def test_the_defaults_are_the_library_s_defaults() -> None:
    config = composed()
    assert config == dataclasses.replace(schema.RunConfig(), dataset=schema.DatasetConfig(name="demo"))
    assert config.overrides() == {}
    assert config.codec_config() == config_for(0.5)


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name in GROUPS], ids=str)
def test_every_option_composes(path: Path) -> None:
    group, option = path.parent.name, path.stem
    config = composed(f"{group}={option}", *needed(group, option))
    ours = config.codec.name in PRESETS
    assert config.codec_config() == (
        config_for(config.quality, config.codec.name, config.overrides()) if ours else None
    )


def test_every_group_and_option_changes_something_or_is_the_default() -> None:
    usual = schema.to_yaml(composed())
    defaults = {"demo", "default", "from_quality", "auto", "none", "standard", "local", "rate_distortion"}
    for path in FILES:
        group, option = path.parent.name, path.stem
        if group in GROUPS and (option not in defaults or (group, option) in {("prune", "none"), ("compact", "none")}):
            assert schema.to_yaml(composed(f"{group}={option}", *needed(group, option))) != usual, path


@pytest.mark.parametrize("stage", STAGES)
def test_from_quality_lists_every_codec_parameter_and_sets_none(stage: str) -> None:
    listed = OmegaConf.to_container(OmegaConf.load(CONF / stage / "from_quality.yaml"))
    assert listed == {field.name: None for field in dataclasses.fields(STAGES[stage])}


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("prune.cap=1e-8", 1e-8),
        ("prune.early_passes=3", 3),
        ("prune.criterion=photo", Criterion.PHOTO),
        ("prune.remove_unseen=false", False),
        ("prune.target_splats=1000", 1000),
        ("quantize.ac_multiplier=20", 20.0),
        ("compact.enabled=no", False),
    ],
)
def test_every_kind_of_codec_parameter_can_be_overridden(override: str, value: Any) -> None:
    config = composed(override)
    stage, field = override.partition("=")[0].split(".")
    assert getattr(getattr(config.codec_config(), stage), field) == value
    assert schema.changes(config).keys() == {f"{stage}.{field}"}


def test_every_single_codec_parameter_can_be_overridden() -> None:
    usual = config_for(0.5)
    for stage, kind in STAGES.items():
        for field in dataclasses.fields(kind):
            value = getattr(getattr(usual, stage), field.name)
            text = value.value if isinstance(value, Enum) else "null" if value is None else value
            assert composed(f"{stage}.{field.name}={text}").codec_config() == usual


def test_entropy_is_a_choice_of_its_own_and_follows_the_preset() -> None:
    assert composed().codec_config().quantize.entropy is Entropy.ANS
    assert composed("codec=paper").codec_config().quantize.entropy is Entropy.ZSTD
    assert composed("codec=paper", "entropy=ans").codec_config().quantize.entropy is Entropy.ANS
    chosen = composed("entropy=zstd")
    assert chosen.codec_config().quantize.entropy is Entropy.ZSTD
    assert schema.changes(chosen) == {"entropy": "zstd"}
    assert schema.with_codec_resolved(chosen).codec_config() == chosen.codec_config()


@pytest.mark.parametrize("override", ["prune.capp=1", "qualty=0.3", "dataset.pth=x", "evaluate.lpps=vgg"])
def test_a_misspelt_key_fails_at_composition(override: str) -> None:
    with pytest.raises(ConfigCompositionException, match="Could not override"):
        composed(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rung=an", "unknown value of rung: 'an'; did you mean 'ans'"),
        ("codec=paper rung=ans", "rung=ans and codec=paper contradict each other: leave codec out"),
        ("entropy=lzma", r"unknown value of entropy: 'lzma'.*ans, zstd"),
        ("quality=0", r"quality: expected a number in \(0, 1\], got 0.0"),
        ("quality=1.5", r"quality: expected a number in \(0, 1\], got 1.5"),
        ("quality=nan", r"quality: expected a number in \(0, 1\], got nan"),
        ("prune.cap=2", r"PruneConfig.cap: expected a number in \[0.0, 1.0\], got 2.0"),
        ("prune.criterion=photos", "expected one of photo, render, both, got 'photos'"),
        ("evaluate.lpips=vg", "did you mean 'vgg'. allowed: none, vgg, alex"),
        ("backend.name=gpu", "allowed: auto, cuda, cpu, reference"),
        ("backend.max_entries=0", r"backend.max_entries: expected 1 to 2\^30, got 0"),
        ("backend.photo_gb=-1", "backend.photo_gb: expected a number of at least 0, got -1"),
        ("backend=cpu backend.photo_gb=1", "backend.photo_gb: backend=cpu has no such option, backend=cuda has"),
        ("codec.name=papers", "did you mean 'paper'"),
        ("tracker.name=mlflow", "allowed: none, wandb"),
        ("tracker.mode=on-line", "did you mean 'online'. allowed: auto, online, offline, disabled"),
        ("tracker.timeout=0", r"tracker.timeout: expected seconds in \[1, 86400\], got 0.0"),
        ("dataset.downscale=0.5", "dataset.downscale: expected a factor of at least 1"),
        ("dataset.background=pink", "background: expected black, white or #rrggbb, got 'pink'"),
        ("dataset=folder", "dataset=folder needs the scene's folder: dataset.path=DIR"),
        ("threads=0", "threads: expected 1 to 1024, got 0"),
        ("threads=100000", "threads: expected 1 to 1024, got 100000"),
        ("+prune.speed=2", "unknown key 'prune.speed'.*allowed: prune.early_passes"),
        ("+speed=2", "unknown key 'speed'.*allowed: dataset, codec"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed(*override.split())


def test_options_of_the_cuda_backend() -> None:
    assert composed("backend=cuda").backend == BackendChoice("cuda")
    assert composed("backend=cuda").backend.options == {}
    given = composed("backend=cuda", "backend.max_entries=1000", "backend.photo_gb=0.5")
    assert given.backend.options == {"max_entries": 1000, "photo_bytes": 500_000_000}
    assert composed("backend.photo_gb=2").backend == BackendChoice("auto", photo_gb=2.0)
    assert set(inspect.signature(CudaRasterizer).parameters) > given.backend.options.keys()


def test_the_resolved_configuration_is_the_same_run_written_out() -> None:
    config = composed("quality=0.3", "prune.cap=1e-8", "quantize=fine")
    resolved = schema.with_codec_resolved(config)
    assert resolved.codec_config() == config.codec_config()
    text = schema.to_yaml(resolved)
    for said in ("cap: 1.0e-08\n", "criterion: both\n", "dc_multiplier: 1024.0\n", "early_passes: "):
        assert said in text
    assert "early_passes: null" not in text


def swept(experiment: str) -> dict[str, str]:
    schema.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        composed = compose("run", overrides=[f"experiment={experiment}"], return_hydra_config=True)
        return {str(key): str(values) for key, values in composed.hydra.sweeper.params.items()}


@pytest.mark.parametrize("experiment", write.DOCUMENTS)
def test_every_experiment_sweeps_over_values_that_there_are(experiment: str) -> None:
    config = composed(f"experiment={experiment}")
    assert config.sweep == experiment
    for key, values in swept(experiment).items():
        if (CONF / key).is_dir():
            options = {path.stem for path in (CONF / key).glob("*.yaml")}
            assert values == "glob(*)" or set(values.split(",")) <= options
        else:
            low, *_, high = values.split(",")
            assert composed(f"{key}={low}") != composed(f"{key}={high}")


def test_the_main_table_has_every_scene_of_the_paper() -> None:
    scenes = [scene for suite in published().scenes_of.values() for scene in suite]
    assert swept("main_table")["dataset"].split(",") == scenes


def test_the_ablation_sweeps_over_every_rung() -> None:
    assert swept("ablation")["rung"].split(",") == list(RUNG_NAMES)


def test_a_rung_is_a_codec_and_its_ends_are_the_presets() -> None:
    assert composed("rung=paper", "quality=0.3") == composed("codec=paper", "quality=0.3")
    assert composed("rung=default") == composed()
    middle = composed("rung=ans", "quality=0.3", "prune.criterion=photo")
    assert schema.changes(middle) == {"rung": "ans", "prune.criterion": "photo"}
    expected = overridden(rung_config(0.3, "ans"), {"prune": {"criterion": "photo"}})
    assert middle.codec_config() == expected == schema.with_codec_resolved(middle).codec_config()
    assert run_name(middle) == "q0.3,rung=ans,prune.criterion=photo"


def test_colors() -> None:
    assert schema.parse_color("white") == (1.0, 1.0, 1.0)
    assert schema.parse_color("#ff0080") == (1.0, 0.0, 128 / 255)
