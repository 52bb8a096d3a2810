# SPDX-License-Identifier: Apache-2.0
"""A run from the scene folder to result.json, twice, interrupted, and where it must refuse."""

import dataclasses
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import potr
from potr.errors import ConfigError, PotrError
from potr.evaluate.measure import evaluate
from potr.evaluate.metrics import to_8bit
from potr.evaluate.weights import WeightsUnavailable
from potr.experiment import codec, identity, measure, pipeline
from potr.experiment.identity import config_sha256, inputs_sha256, run_name
from potr.experiment.report.view_pictures import read_views
from potr.experiment.result import RunResult, read_result
from potr.experiment.scenes import open
from potr.experiment.schema import (
    BackendChoice,
    CodecChoice,
    DatasetConfig,
    EvaluateConfig,
    PruneOverrides,
    QuantizeOverrides,
    RunConfig,
)
from tests.helpers.scene_folder import make_scene_folder

SCENES = Path(os.environ.get("POTR_SCENES", Path(__file__).parents[3] / "shared" / "scenes"))
QUICK = PruneOverrides(early_passes=2, late_passes=1)


def a_config(scene: Path, outputs: Path, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "dataset": DatasetConfig(kind="folder", path=str(scene)),
        "prune": QUICK,
        "evaluate": EvaluateConfig(lpips="none", fps_seconds=0.01),
        "outputs": str(outputs),
    }
    return RunConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def finished(scene_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, RunResult]:
    config = a_config(scene_folder, tmp_path_factory.mktemp("outputs"))
    return config, pipeline.run(config)


def test_a_run_leaves_its_files_and_nothing_else(finished: tuple[RunConfig, RunResult]) -> None:
    config, result = finished
    assert result.folder.parent == Path(config.outputs) / "ball"
    assert (
        result.folder.name
        == "q0.5,prune.early_passes=2,prune.late_passes=1,evaluate.lpips=none,evaluate.fps_seconds=0.01"
    )
    files = {path.name for path in result.folder.iterdir()}
    assert files == {"scene.potr", "result.json", "config.yaml", "run.log", "before_after.png", "cameras.json", "views"}
    assert "early_passes: 2\n" in (result.folder / "config.yaml").read_text()
    assert "early pass" in (result.folder / "run.log").read_text()
    assert (result.folder / "before_after.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_keeps_pictures_for_the_report(finished: tuple[RunConfig, RunResult], scene_folder: Path) -> None:
    config, result = finished
    scene, decoded = potr.load_scene(scene_folder), potr.decode((result.folder / "scene.potr").read_bytes())
    kept = {one.view: one for one in read_views(result.folder)}
    assert set(kept) == {view.name for view in scene.test_views}
    for view in scene.test_views:
        rendered = potr.select_rasterizer("cpu").render(decoded, view.camera, view.background)
        with Image.open(kept[view.name].after) as image:
            difference = np.asarray(image.convert("RGB")) - to_8bit(rendered).numpy().astype(float)
        assert np.sqrt((difference**2).mean()) == pytest.approx(kept[view.name].stored_rms, abs=1e-3)
        assert kept[view.name].stored_rms < 8  # 48 x 36 pixels of noise
    none = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, pictures=0))
    assert (run_name(none), config_sha256(none)) == (run_name(config), config_sha256(config))


def test_the_result_tells_what_is_in_the_files(finished: tuple[RunConfig, RunResult], scene_folder: Path) -> None:
    _, result = finished
    assert read_result(result.folder) == result
    data = (result.folder / "scene.potr").read_bytes()
    scene, decoded = potr.load_scene(scene_folder), potr.decode(data)
    assert result.bytes == len(data) == sum(result.bytes_per_section.values())
    assert result.uncompressed_bytes == 248 * result.splats_before
    assert result.ratio == result.uncompressed_bytes / result.bytes
    assert result.input_bytes == (scene_folder / "point_cloud.ply").stat().st_size
    assert result.smaller == result.input_bytes / result.bytes
    assert (result.splats_before, result.splats_after) == (scene.model.num_splats, decoded.num_splats)
    assert (result.quality, result.codec, result.backend, result.seed) == (0.5, "default", "cpu", 0)
    raster = potr.select_rasterizer("cpu")
    for measured, model in ((result.before, scene.model), (result.after, decoded)):
        report = evaluate(model, scene.test_views, raster)
        assert (measured.psnr, measured.ssim) == (report.psnr, report.ssim)
        assert [view["name"] for view in measured.views] == ["view_08.png", "view_09.png"]
        assert measured.fps is not None
        assert measured.fps > 0
    assert [stage["name"] for stage in result.stages] == list(result.encode_seconds)
    assert result.splats_after < result.splats_before
    assert result.decode_seconds > 0
    assert result.machine["cores"] >= 1
    assert set(result.reasons) >= {"before.lpips", "after.lpips"}


def test_the_bitstream_is_what_the_library_makes(finished: tuple[RunConfig, RunResult], scene_folder: Path) -> None:
    config, result = finished
    scene = potr.load_scene(scene_folder)
    encoded = potr.encode(scene.model, scene.train_views, config=config.codec_config())
    assert (result.folder / "scene.potr").read_bytes() == encoded.data


def test_a_finished_run_is_skipped(finished: tuple[RunConfig, RunResult], monkeypatch: pytest.MonkeyPatch) -> None:
    config, result = finished
    monkeypatch.setattr(codec, "encode", _forbidden)
    written = (result.folder / "result.json").stat().st_mtime_ns
    assert pipeline.run(config) == result
    assert (result.folder / "result.json").stat().st_mtime_ns == written


def _forbidden(*_: Any, **__: Any) -> Any:
    raise AssertionError("called")


def test_force_replaces_and_a_failure_meanwhile_leaves_no_result(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = a_config(scene_folder, tmp_path)
    first = pipeline.run(config)
    forced = dataclasses.replace(config, force=True)
    with monkeypatch.context() as patch:
        patch.setattr(codec, "encode", _forbidden)
        with pytest.raises(AssertionError, match="called"):
            pipeline.run(forced)
    assert not (first.folder / "result.json").exists()
    assert pipeline.run(config).bitstream_sha256 == first.bitstream_sha256  # same bytes again


def test_a_damaged_result_is_done_again(scene_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = a_config(scene_folder, tmp_path)
    first = pipeline.run(config)
    potr_file, result_file = first.folder / "scene.potr", first.folder / "result.json"
    potr_file.write_bytes(potr_file.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert pipeline.run(config).bitstream_sha256 == first.bitstream_sha256
    result_file.write_text("{")
    assert pipeline.run(config).bitstream_sha256 == first.bitstream_sha256
    assert read_result(first.folder).bytes == first.bytes
    assert "scene.potr is not what result.json measured" in caplog.text


def test_what_other_code_made_is_made_again_with_a_word(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = a_config(scene_folder, tmp_path)
    first = pipeline.run(config)
    assert first.code_sha256 == identity.results_code_sha256()
    for number, key in enumerate(
        ("results_code_sha256", "config_sha256")
    ):  # the second: settings with other parameters
        monkeypatch.setattr(identity, "results_code_sha256", lambda number=number: f"code {number}")
        monkeypatch.setattr(identity, key, lambda *_, number=number: f"code {number}")
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            again = pipeline.run(config)
        assert "made by another version (potr 0.1.0) of the code; it is done again" in caplog.text
        assert again.code_sha256 == f"code {number}"
        assert again.bitstream_sha256 == first.bitstream_sha256


def test_another_scene_of_the_same_name_is_not_mistaken_for_this_one(
    finished: tuple[RunConfig, RunResult], tmp_path: Path
) -> None:
    config, result = finished
    other = make_scene_folder(tmp_path / "ball", train=4, test=1, num_splats=60, seed=1)
    elsewhere = dataclasses.replace(config, dataset=DatasetConfig(kind="folder", path=str(other)))
    with pytest.raises(ConfigError, match=r"result of other model, cameras or photographs; give another dataset\.name"):
        pipeline.run(elsewhere)
    assert read_result(result.folder) == result


def test_a_sweep_measures_the_uncompressed_model_once(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def counted(model: potr.SplatModel, *arguments: Any, **options: Any) -> Any:
        measured.append(model.num_splats)
        return evaluate(model, *arguments, **options)

    monkeypatch.setattr(measure, "evaluate", counted)
    results = [pipeline.run(a_config(scene_folder, tmp_path, quality=quality)) for quality in (0.2, 0.9)]
    assert measured == [300, results[0].splats_after, results[1].splats_after]
    assert results[0].before.psnr == results[1].before.psnr
    assert results[0].bytes < results[1].bytes


class Interruption:
    """Progress that is interrupted in the middle of a stage, as Ctrl-C does it."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage == self.stage and done == total // 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("stage", "cache"),
    [("early pruning pass 2/3", True), ("compaction statistics, step 2/3", False), ("late pruning pass 2/2", True)],
)
def test_an_interrupted_prune_resumes_to_the_same_bytes(
    stage: str, cache: bool, scene_folder: Path, tmp_path: Path
) -> None:
    passes = PruneOverrides(early_passes=3, late_passes=2)
    config = a_config(scene_folder, tmp_path / "a", prune=passes, cache=cache)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config, progress=potr.Progress(Interruption(stage)))
    folder = tmp_path / "a" / "ball" / run_name(config)
    files = {path.name for path in folder.iterdir()}
    assert files == {"config.yaml", "run.log", *([] if cache else ["resume"])}
    assert "goes on from the last pruning pass" in (folder / "run.log").read_text()

    stages: list[str] = []
    resumed = pipeline.run(config, progress=potr.Progress(lambda stage, done, total: stages.append(stage)))
    assert "early pruning pass 1/3" not in stages
    assert stage in stages
    uninterrupted = pipeline.run(a_config(scene_folder, tmp_path / "b", prune=passes))
    assert (resumed.resumed, uninterrupted.resumed) == ("pruning" in stage, False)
    assert resumed.saved_seconds["prune_early"] > 0
    assert uninterrupted.saved_seconds == {}
    assert resumed.bitstream_sha256 == uninterrupted.bitstream_sha256
    assert _pass_lists(resumed) == _pass_lists(uninterrupted)
    assert not (folder / "resume").exists()


def _pass_lists(result: RunResult) -> list[Any]:
    return [stage["details"]["passes"] for stage in result.stages if stage["name"].startswith("prune")]


def test_without_test_views_every_metric_is_null_with_the_reason(tmp_path: Path) -> None:
    scene = make_scene_folder(tmp_path / "blind", train=4, test=0, num_splats=60)
    result = pipeline.run(a_config(scene, tmp_path))
    stored = json.loads((result.folder / "result.json").read_text())
    for side in ("before", "after"):
        for metric in ("psnr", "ssim", "lpips", "fps"):
            assert stored[side][metric] is None
            assert stored["reasons"][f"{side}.{metric}"] == "the scene has no test views"
    assert not (result.folder / "before_after.png").exists()


def test_missing_lpips_weights_are_a_reason_not_an_end(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> Any:
        raise WeightsUnavailable("no weights here")

    monkeypatch.setattr(measure, "load_lpips", missing)
    result = pipeline.run(a_config(scene_folder, tmp_path, evaluate=EvaluateConfig(lpips="vgg", fps_seconds=0)))
    assert result.after.lpips is None
    assert result.reasons["after.lpips"] == "no weights here"
    assert result.reasons["after.fps"] == "evaluate.fps_seconds is 0"


def test_dataset_settings_reach_the_scene(scene_folder: Path, tmp_path: Path) -> None:
    dataset = DatasetConfig(
        kind="folder", path=str(scene_folder), name="small", downscale=2, background="#ff0000", max_views=3
    )
    scene = open.open_scene(a_config(scene_folder, tmp_path, dataset=dataset))
    assert scene.name == "small"
    assert [view.name for view in scene.train_views] == ["view_00.png", "view_04.png", "view_07.png"]
    assert len(scene.test_views) == 2
    assert scene.train_views[0].camera.width == 24
    assert scene.train_views[0].background == (1.0, 0.0, 0.0)


@pytest.mark.scenes
@pytest.mark.parametrize("name", ["chair", "bonsai", "fern"])
def test_real_scenes_run_at_a_reduced_size(name: str, tmp_path: Path) -> None:
    if not (SCENES / name).is_dir():
        pytest.skip(f"{SCENES / name} is not there; POTR_SCENES names the folder of the real scenes")
    dataset = DatasetConfig(kind="folder", path=str(SCENES / name), downscale=4, max_views=3)
    result = pipeline.run(a_config(SCENES / name, tmp_path, dataset=dataset, quality=0.8))
    assert result.dataset == name
    assert result.splats_after < result.splats_before
    assert result.ratio > 10
    assert len(result.after.views) == 3
    assert result.before.psnr is not None
    assert result.before.psnr > 15  # less than at full size: the model was trained for larger pixels


def test_backend_and_threads_are_the_ones_asked_for(scene_folder: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    result = pipeline.run(a_config(scene_folder, tmp_path, backend=BackendChoice("cpu"), threads=before + 1))
    assert result.backend == "cpu"
    assert result.machine["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_values_out_of_range_are_refused_before_the_scene_is_read(tmp_path: Path) -> None:
    config = a_config(tmp_path / "no_such_scene", tmp_path, quantize=QuantizeOverrides(zstd_level=99))
    with pytest.raises(ConfigError, match=r"QuantizeConfig\.zstd_level"):
        pipeline.run(config)
    with pytest.raises(PotrError, match="expected a scene folder, found nothing"):
        pipeline.run(dataclasses.replace(config, quantize=QuantizeOverrides()))


@pytest.mark.parametrize("name", ["c3dgs", "mesongs"])
def test_the_run_s_seed_is_the_peer_s_unless_that_has_its_own(name: str) -> None:
    def used(seed: int, options: dict[str, Any]) -> Any:
        return codec.PeerCoder(RunConfig(codec=CodecChoice(name, options), seed=seed)).peer.settings["seed"]

    assert (used(0, {}), used(7, {}), used(7, {"seed": None})) == (0, 7, 7)
    assert (used(7, {"seed": 0}), used(7, {"seed": 5})) == (0, 5)
    assert RunConfig(codec=CodecChoice("compressed_ply"), seed=7).peer_options() == {}


def test_values_of_a_peer_s_options_are_checked_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"codec\.options\.iterations: expected a whole number .* got 'abc'"):
        CodecChoice("sog", {"iterations": "abc"})
    assert CodecChoice("sog", {"iterations": None}) == CodecChoice("sog", {"iterations": 10}) == CodecChoice("sog")


def test_names_of_runs() -> None:
    assert run_name(RunConfig()) == "q0.5"
    assert run_name(RunConfig(quality=0.125, force=True, outputs="elsewhere")) == "q0.125"
    assert run_name(RunConfig(prune=PruneOverrides(cap=1e-8), seed=3)) == "q0.5,prune.cap=1e-08,seed=3"
    many = RunConfig(quantize=QuantizeOverrides(**{f.name: 7 for f in dataclasses.fields(QuantizeOverrides)}))
    assert re.fullmatch(r"q0\.5,\d+-settings-[0-9a-f]{8}", run_name(many))
    assert len(run_name(many)) < 60
    fewer = RunConfig(quantize=dataclasses.replace(many.quantize, zstd_level=None))
    assert run_name(fewer) != run_name(many)


def test_the_inputs_hash_sees_model_and_cameras(scene_folder: Path) -> None:
    scene = potr.load_scene(scene_folder)
    moved = dataclasses.replace(scene.model, means=scene.model.means + torch.tensor([1e-6, 0, 0]))
    view = scene.test_views[0]
    nearer = dataclasses.replace(view, camera=dataclasses.replace(view.camera, fx=view.camera.fx + 1))
    hashes = {
        inputs_sha256(scene),
        inputs_sha256(dataclasses.replace(scene, model=moved)),
        inputs_sha256(dataclasses.replace(scene, test_views=(nearer, *scene.test_views[1:]))),
        inputs_sha256(dataclasses.replace(scene, test_views=scene.test_views[1:])),
        inputs_sha256(dataclasses.replace(scene, train_views=(*scene.train_views, view))),
    }
    assert len(hashes) == 5
    assert inputs_sha256(potr.load_scene(scene_folder)) == inputs_sha256(scene)
