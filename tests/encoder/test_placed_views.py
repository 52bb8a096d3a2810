# SPDX-License-Identifier: Apache-2.0
"""Views for a model that came alone: robust to floaters, inside where there is no outside, and always the same."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import potr
from potr import cli
from potr.encoder.placed_views import (
    TRAINING,
    USUAL_MSE,
    around,
    config_for_renders,
    inside,
    layout,
    spiral,
    views_around,
    without_invisible,
)
from potr.encoder.quality import config_for
from potr.errors import SceneError
from potr.evaluate.measure import evaluate
from potr.io.ply import save_ply
from potr.model.splats import SplatModel
from potr.render.select import select
from tests.helpers.scene_folder import ball_of_splats

RASTERIZER = select("cpu", threads=1)


def joined(models: Sequence[SplatModel]) -> SplatModel:
    names = [f.name for f in dataclasses.fields(SplatModel)]
    return SplatModel(**{name: torch.cat([getattr(model, name) for model in models]) for name in names})


def moved(model: SplatModel, by: tuple[float, float, float], scale: float = 1.0) -> SplatModel:
    means = model.means * scale + torch.tensor(by)
    return dataclasses.replace(model, means=means, log_scales=model.log_scales + torch.tensor(scale).log())


def with_floaters() -> SplatModel:
    """A ball about (5, -2, 3) and a twentieth as many floaters, far and large."""
    return joined(
        [moved(ball_of_splats(400, 0), (5.0, -2.0, 3.0)), moved(ball_of_splats(20, 1), (0.0, 0.0, 0.0), 30.0)]
    )


def room() -> SplatModel:
    """A small ball in a far wall all around, whose splats are as large as they look from a place beside the ball."""
    wall = ball_of_splats(300, 3)
    vantage = torch.tensor([0.0, 0.0, -2.0])
    means = 12 * torch.nn.functional.normalize(wall.means, dim=1)
    distance = (means - vantage).norm(dim=1)
    wall = dataclasses.replace(wall, means=means, log_scales=(0.12 * distance).log()[:, None].expand(-1, 3).clone())
    ball = ball_of_splats(400, 4)
    distance = (ball.means - vantage).norm(dim=1)
    ball = dataclasses.replace(ball, log_scales=(0.12 * distance).log()[:, None].expand(-1, 3).clone())
    return joined([ball, wall])


def test_floaters_do_not_move_an_object() -> None:
    found = layout(with_floaters())
    assert not found.unbounded
    assert (found.center - torch.tensor([5.0, -2.0, 3.0])).norm() < 0.8  # of a ball of radius 1
    assert 0.5 < found.radius < 1.5
    for camera in around(layout(ball_of_splats(400, 0)), 12):
        assert 2 < float(camera.center.norm()) < 6
        assert float(camera.viewmat[2, :3] @ camera.center) < 0  # looks inwards


def test_a_room_is_looked_at_from_where_its_splats_look_alike() -> None:
    found = layout(room())
    assert found.unbounded
    assert (found.vantage - torch.tensor([0.0, 0.0, -2.0])).norm() < 0.7
    views = views_around(room(), RASTERIZER, training=10, held_out=3)
    assert (len(views.train), len(views.held_out)) == (10, 3)
    for view in (*views.train, *views.held_out):
        assert float(view.camera.center.norm()) < 12  # inside the wall
    assert views.coverage > 0.6


def test_views_are_the_same_every_time_and_none_is_twice() -> None:
    first, second = (views_around(room(), RASTERIZER, training=6, held_out=2) for _ in range(2))
    for a, b in zip((*first.train, *first.held_out), (*second.train, *second.held_out), strict=True):
        assert a.name == b.name
        assert a.camera.viewmat.equal(b.camera.viewmat)
        assert a.read().equal(b.read())
    names = [view.name for view in (*first.train, *first.held_out)]
    assert len(set(names)) == 8
    assert (spiral(50).norm(dim=1) - 1).abs().max() < 1e-12
    assert spiral(50).mean(dim=0).norm() < 0.02
    assert len(inside(layout(room()), 20, 1.0)) == 20


@pytest.mark.parametrize("count", [1, 2, 30])
def test_small_models_have_views_too(count: int) -> None:
    views = views_around(ball_of_splats(count, 0), RASTERIZER, training=4, held_out=1)
    assert len(views.train) == 4
    assert views.coverage > 0


def test_what_cannot_be_seen_is_refused_and_what_touches_no_pixel_left_out() -> None:
    model = ball_of_splats(20, 0)
    faint = dataclasses.replace(model, opacity_logits=torch.full((20,), -6.0))
    with pytest.raises(SceneError, match="none of its 20 splats is opaque enough to be seen"):
        views_around(faint, RASTERIZER)
    both = joined([model, faint])
    left = without_invisible(both)
    assert left.num_splats == 20
    camera = views_around(left, RASTERIZER, training=1, held_out=0).train[0].camera
    black = (0.0, 0.0, 0.0)
    assert RASTERIZER.render(left, camera, black).equal(RASTERIZER.render(both, camera, black))


def test_splats_that_no_view_sees_stay_and_the_cap_is_that_of_a_usual_model() -> None:
    ball = ball_of_splats(400, 0)
    views = views_around(ball, RASTERIZER, training=1, held_out=0)
    behind = 20 * views.train[0].camera.center
    config = config_for_renders(config_for(0.5), views, 1000)
    assert config.prune.cap == pytest.approx(config.prune.relative_cap * USUAL_MSE * views.coverage / 1000)
    model = joined([ball, moved(ball_of_splats(50, 1), tuple(behind.tolist()))])
    kept = potr.decode(potr.encode(model, views.train, config=config, rasterizer=RASTERIZER).data)
    assert int(((kept.means - behind).norm(dim=1) < 1.5).sum()) == 50
    assert kept.num_splats < 400
    own = config_for(0.5, overrides={"prune": {"cap": 1e-7}})
    assert config_for_renders(own, views, 1000).prune.cap == 1e-7


def test_a_model_that_nobody_can_see_is_refused_by_the_encoder() -> None:
    faint = dataclasses.replace(ball_of_splats(20, 0), opacity_logits=torch.full((20,), -9.0))
    with pytest.raises(SceneError, match=r"none of its .* splats is opaque enough"):
        potr.encode(faint, rasterizer=RASTERIZER)


def test_a_ply_alone_is_encoded_and_judged_on_views_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_ply(moved(ball_of_splats(120, 0), (1.0, 0.0, 0.0)), tmp_path / "ball.ply")
    command = ["encode", str(tmp_path / "ball.ply"), "-o", str(tmp_path / "ball.potr"), "-q"]
    command += ["--set", "prune.early_passes=1", "--set", "prune.late_passes=0", "--set", "compact.refit_steps=1"]
    assert cli.main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["splats_before"] == 120
    given = {"prune": {"early_passes": 1, "late_passes": 0}, "compact": {"refit_steps": 1}}
    library = potr.encode(potr.load_ply(tmp_path / "ball.ply"), config=config_for(0.5, overrides=given))
    assert library.data == (tmp_path / "ball.potr").read_bytes()
    assert report["judged"]["views"] == 16
    model = potr.load_ply(tmp_path / "ball.ply")
    views = views_around(without_invisible(model), RASTERIZER)
    assert len(views.train) == TRAINING
    judged = evaluate(potr.decode((tmp_path / "ball.potr").read_bytes()), views.held_out, RASTERIZER)
    assert (report["judged"]["psnr_after"], report["judged"]["ssim_after"]) == (judged.psnr, judged.ssim)
    assert judged.psnr > 25
    assert "train" not in report  # there are no photographs to tell it of
    assert report["input_bytes"] == (tmp_path / "ball.ply").stat().st_size
    assert cli.main([*command, "--overwrite"]) == 0
    text = capsys.readouterr().out
    assert "to the model's own renders,\nwhich is no quality against photographs" in text
    assert "a model alone wants a higher --quality" in text
