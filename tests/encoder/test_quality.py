# SPDX-License-Identifier: Apache-2.0
import pytest

from potr.encoder.config import CodecConfig, Criterion, PruneConfig
from potr.encoder.quality import PRESETS, config_for
from potr.errors import ConfigError

QUALITIES = [0.01, 0.1, 0.3, 0.5, 0.8, 1.0]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_is_monotone_in_quality(preset: str) -> None:
    configs = [config_for(q, preset) for q in QUALITIES]
    for finer in ("dc_multiplier", "ac_multiplier", "opacity_levels", "rotation_levels"):
        values = [getattr(c.quantize, finer) for c in configs]
        assert values == sorted(values)
    for coarser in ("scale_step", "position_gamma"):
        values = [getattr(c.quantize, coarser) for c in configs]
        assert values == sorted(values, reverse=True)
    caps = [c.prune.relative_cap if c.prune.cap is None else c.prune.cap for c in configs]
    assert caps == sorted(caps, reverse=True)
    assert caps[0] > caps[-1]


def test_the_known_parameters_of_the_paper_at_its_quality() -> None:
    config = config_for(0.1, "paper")
    assert config.prune.cap == pytest.approx(1e-9)
    assert config.compact.strength == pytest.approx(0.7943282347242815)
    assert config.compact.redundancy_cosine == pytest.approx(0.574442516811659)
    assert config.compact.chroma_multiplier == 3
    assert config.prune.max_negative_share == 0.02
    assert (config.quantize.dc_multiplier, config.quantize.ac_multiplier) == (11, 11)


@pytest.mark.parametrize("quality", [0, -1, 1.01, float("nan"), "0.5"])
def test_a_quality_out_of_range_is_refused(quality: object) -> None:
    with pytest.raises(ConfigError, match=r"quality: expected a number in \(0, 1\]"):
        config_for(quality)  # type: ignore[arg-type]


def test_overrides_replace_single_parameters() -> None:
    base = config_for(0.4)
    changed = config_for(0.4, overrides={"prune": {"cap": 1e-8, "criterion": "photo", "first_cap": None}})
    assert config_for(0.4, "paper", {"prune": {"relative_cap": 2.0}}).prune.cap is None
    assert changed.prune.cap == 1e-8
    assert changed.prune.criterion is Criterion.PHOTO
    assert changed.prune.first_cap == base.prune.first_cap
    assert changed.quantize == base.quantize


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"prunes": {}}, "unknown stage 'prunes'; did you mean 'prune'.*allowed: prune, compact, quantize"),
        ({"prune": {"capp": 1}}, "unknown parameter 'prune.capp'; did you mean 'prune.cap'"),
        ({"prune": {"cap": 2.0}}, r"PruneConfig.cap: expected a number in \[0.0, 1.0\], got 2.0"),
        ({"prune": {"criterion": "both ways"}}, "expected one of photo, render, both"),
    ],
)
def test_wrong_overrides_name_what_is_allowed(overrides: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_for(0.5, overrides=overrides)


def test_two_targets_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="not both"):
        PruneConfig(target_splats=10, target_share=0.5)


def test_a_codec_config_has_no_defaults_that_would_be_no_preset() -> None:
    with pytest.raises(TypeError, match="missing 4 required positional arguments"):
        CodecConfig()  # type: ignore[call-arg]
