# SPDX-License-Identifier: Apache-2.0
"""Which results make a curve, in what order, under what name and in what colour."""

import dataclasses
from pathlib import Path

from potr.encoder.quality import PRESETS
from potr.experiment.peers import PEERS
from potr.experiment.tables.curves import STYLES, curves, style_of
from tests.helpers.results import a_result


def test_a_curve_is_a_scene_a_codec_and_its_settings_by_rising_bytes() -> None:
    reasons = a_result().reasons | {"quality": "one point"}
    given = [
        (0.8, 300, "paper", {}),
        (0.1, 100, "paper", {"evaluate.lpips": "none"}),
        (0.5, 200, "default", {}),
        (0.5, 150, "default", {"prune.cap": 1e-8}),
        (None, 900, "spz", {}),
    ]
    runs = [
        a_result(quality=q, bytes=size, codec=codec, settings=settings, bitstream_sha256=str(size), reasons=reasons)
        for q, size, codec, settings in given
    ]
    found = curves(runs)
    assert [(c.label, [p.bytes for p in c.points]) for c in found] == [
        ("default (ours)", [200]),
        ("default (ours), prune.cap=1e-08", [150]),
        ("paper (ours)", [100, 300]),
        ("spz", [900]),
    ]
    assert {c.scene for c in found} == {"garden"}
    assert curves(reversed(runs)) == found


def test_suites_come_in_the_field_s_order_and_scenes_of_none_last() -> None:
    reasons = a_result().reasons | {"suite": "ours"}
    given = {"ball": None, "chair": "SyntheticNeRF", "truck": "TanksAndTemples", "room": "MipNeRF360"}
    runs = [a_result(dataset=name, suite=suite, reasons=reasons) for name, suite in given.items()]
    assert [curve.scene for curve in curves(runs)] == ["room", "truck", "chair", "ball"]


def test_other_cameras_are_another_scene() -> None:
    runs = [
        a_result(),
        a_result(inputs_sha256="small", settings={"dataset.downscale": 2.0}),
        a_result(inputs_sha256="other model"),
    ]
    assert len({curve.scene for curve in curves(runs)}) == 3
    assert [curve.scene for curve in curves(runs[:2])] == ["garden", "garden (downscale=2)"]


def test_a_run_measured_twice_counts_once_and_the_fuller_one_stays() -> None:
    full = dataclasses.replace(a_result().after, lpips=0.1)
    fuller = a_result(
        after=full,
        settings={"evaluate.lpips_views": 2},
        reasons={key: why for key, why in a_result().reasons.items() if key != "after.lpips"},
        folder=Path("z"),
    )
    (curve,) = curves([a_result(folder=Path("a")), fuller])
    assert curve.points == (fuller,)


def test_every_codec_has_a_colour_of_its_own() -> None:
    assert {*PRESETS, *PEERS} <= STYLES.keys()
    for part in ("color", "marker"):
        assert len({getattr(style, part) for style in STYLES.values()}) == len(STYLES)
    assert style_of("from the future") == style_of("from the future")
