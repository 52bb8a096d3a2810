# SPDX-License-Identifier: Apache-2.0
import pytest

from potr.codec.config import Criterion
from potr.errors import ConfigError
from potr.experiment.overrides import coerce, parse_overrides


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
