# SPDX-License-Identifier: Apache-2.0
import pytest
from hydra._internal.utils import get_args_parser

from potr.encoder.config import Criterion
from potr.encoder.quality import coerce, parse_overrides, refuse_options
from potr.errors import ConfigError
from potr.experiment import schema
from potr.run import HYDRA_OPTIONS


def test_text_becomes_the_field_s_type() -> None:
    assert parse_overrides(
        ["prune.cap=1e-8", "prune.early_passes=4", "prune.criterion=BOTH", "compact.enabled=off"]
    ) == {
        "prune": {"cap": 1e-8, "early_passes": 4, "criterion": Criterion.BOTH},
        "compact": {"enabled": False},
    }
    assert parse_overrides(["prune.target_splats=null"]) == {"prune": {"target_splats": None}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune.cap", "'prune.cap': expected STAGE.FIELD=VALUE"),
        ("cap=1", "'cap=1': expected STAGE.FIELD=VALUE"),
        ("prun.cap=1", "unknown stage 'prun'; did you mean 'prune'. allowed: prune, compact, quantize"),
        ("prune.capp=1", "unknown parameter 'prune.capp'; did you mean 'prune.cap'."),
        ("prune.cap=small", "prune.cap: expected a number, got 'small'"),
        ("prune.early_passes=2.5", "prune.early_passes: expected a whole number, got '2.5'"),
        ("prune.remove_unseen=perhaps", "prune.remove_unseen: expected true or false, got 'perhaps'"),
        ("prune.criterion=best", "prune.criterion: expected one of photo, render, both, got 'best'"),
    ],
)
def test_wrong_text_is_refused_with_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_overrides([text])


def test_typed_values_pass_through_and_are_checked() -> None:
    assert coerce("prune", "early_passes", 4.0) == 4
    with pytest.raises(ConfigError, match=r"prune\.early_passes: expected a whole number, got 2\.5"):
        coerce("prune", "early_passes", 2.5)
    with pytest.raises(ConfigError, match=r"prune\.cap: expected a number, got True"):
        coerce("prune", "cap", True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--quality 0.3", "--quality 0.3: did you mean quality=0.3? "),
        ("dataset=demo --quality=0.3", "--quality=0.3: did you mean quality=0.3? "),
        ("-m --quality 0.1,0.3 codec=paper", "did you mean quality=0.1,0.3? "),
        ("--size-mb 5", "did you mean target.size_mb=5? "),
        ("--prune.cap 1e-8", "did you mean prune.cap=1e-8? "),
        ("--downscale 2", "did you mean dataset.downscale=2? "),
        ("--experiment peers", "did you mean experiment=peers? "),
        ("--qualty 0.3", "did you mean quality=0.3? "),
        ("--force quality=0.3", "--force: did you mean force=VALUE? "),
        ("--frobnicate", "--frobnicate: settings are KEY=VALUE"),
    ],
)
def test_an_option_where_a_setting_is_meant(arguments: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        refuse_options(arguments.split(), schema.setting_names(), HYDRA_OPTIONS)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "arguments", ["", "-m quality=0.1,0.3", "--multirun", "--cfg job --resolve", "--hel", "seed=-1"]
)
def test_hydra_s_own_options_stay(arguments: str) -> None:
    refuse_options(arguments.split(), schema.setting_names(), HYDRA_OPTIONS)


def test_no_option_of_hydra_is_refused() -> None:
    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    assert known == set(HYDRA_OPTIONS)
