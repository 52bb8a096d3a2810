# SPDX-License-Identifier: Apache-2.0
"""The ladder leads from codec=paper to codec=default, and no parameter is forgotten on the way."""

from dataclasses import asdict
from itertools import pairwise

import pytest

from potr.encoder.config import CodecConfig
from potr.encoder.quality import RUNG_NAMES, RUNGS, config_for, rung_config
from potr.errors import ConfigError

QUALITIES = [0.01, 0.1, 0.3, 0.5, 0.8, 1.0]


def parameters(config: CodecConfig) -> dict[str, object]:
    stages = {stage: values for stage, values in asdict(config).items() if stage != "name"}
    return {f"{stage}.{key}": value for stage, values in stages.items() for key, value in values.items()}


@pytest.mark.parametrize("quality", QUALITIES)
def test_the_ends_are_the_presets(quality: float) -> None:
    assert rung_config(quality, RUNG_NAMES[0]) == config_for(quality, "paper")
    last, default = rung_config(quality, RUNG_NAMES[-1]), config_for(quality, "default")
    given, wanted = parameters(last), parameters(default)
    missing = [path for path in wanted if given[path] != wanted[path]]
    assert not missing, f"no rung of potr/encoder/quality.py takes {', '.join(missing)}"
    assert last == default


@pytest.mark.parametrize("quality", QUALITIES)
def test_every_rung_changes_something_and_only_what_it_says(quality: float) -> None:
    configs = [parameters(rung_config(quality, name)) for name in RUNG_NAMES]
    for rung, (before, after) in zip(RUNGS[1:], pairwise(configs), strict=True):
        changed = {path for path in after if after[path] != before[path]}
        assert changed, rung.name
        assert changed <= {*rung.takes, *rung.scaled}, rung.name
    assert len(set(RUNG_NAMES)) == len(RUNGS)


def test_a_bit_has_one_price_from_its_rung_on() -> None:
    prices = []
    for name in RUNG_NAMES[RUNG_NAMES.index("rdoq") :]:
        config = rung_config(0.3, name)
        assert config.prune.cap is None
        prices.append(config.prune.relative_cap * config.quantize.bit_cost)
    assert prices == pytest.approx([prices[0]] * len(prices))


def test_rungs_that_prune_alike_are_few_and_stand_together() -> None:
    prunes = [rung_config(0.1, name).prune for name in RUNG_NAMES]
    assert len(set(prunes)) == 1 + sum(before != after for before, after in pairwise(prunes))
    assert prunes.count(config_for(0.1, "paper").prune) == 3


def test_an_unknown_rung_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rung: expected one of paper, ans.*got 'an'"):
        rung_config(0.1, "an")
