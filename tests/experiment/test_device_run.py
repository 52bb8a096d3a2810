# SPDX-License-Identifier: Apache-2.0
"""A whole run, and the command line, with models on a device that is not the CPU (a stand-in for a GPU)."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

import potr
from potr.cli import main
from potr.experiment import pipeline
from potr.experiment.schema import BackendChoice, CodecChoice, DatasetConfig, EvaluateConfig, PruneOverrides, RunConfig
from tests.helpers.other_device import OtherDevice, OtherLauncher, OtherRasterizer
from tests.helpers.simt import needs_gxx

pytestmark = needs_gxx


@pytest.fixture
def other() -> Iterator[None]:
    """Every backend that is asked for is the other device's."""
    with pytest.MonkeyPatch.context() as monkeypatch, OtherDevice():
        OtherLauncher.installed(monkeypatch)
        for module, name in ((pipeline, "select"), (potr, "select_rasterizer")):
            monkeypatch.setattr(module, name, lambda *_, **__: OtherRasterizer())
        yield


@pytest.fixture
def on_cpu(request: pytest.FixtureRequest, scene_folder: Path, tmp_path: Path) -> pipeline.RunResult:
    return pipeline.run(a_config(scene_folder, tmp_path / "cpu", request.param))


def a_config(scene: Path, outputs: Path, codec: str) -> RunConfig:
    return RunConfig(
        dataset=DatasetConfig(kind="folder", path=str(scene)),
        codec=CodecChoice(name=codec),
        backend=BackendChoice(name="cpu"),
        prune=PruneOverrides(early_passes=2, late_passes=1) if codec == "default" else PruneOverrides(),
        evaluate=EvaluateConfig(lpips="none", fps_seconds=0.01),
        outputs=str(outputs),
    )


@pytest.mark.parametrize("on_cpu", ["default", "c3dgs", "mesongs"], indirect=True)
def test_a_run_gives_what_the_cpu_gives(
    on_cpu: pipeline.RunResult, scene_folder: Path, tmp_path: Path, other: None
) -> None:
    config = a_config(scene_folder, tmp_path / "other", on_cpu.codec)
    result = pipeline.run(config)
    assert (result.backend, on_cpu.backend) == ("other", "cpu")
    assert result.bitstream_sha256 == on_cpu.bitstream_sha256
    assert (result.before.psnr, result.after.psnr) == (on_cpu.before.psnr, on_cpu.after.psnr)
    if on_cpu.codec == "default":  # another run finds the first one's costs and figures
        again = pipeline.run(dataclasses.replace(config, quality=0.4))
        assert again.before.psnr == on_cpu.before.psnr
        assert again.splats_after < result.splats_after


def commands(scene: Path, folder: Path) -> list[list[str]]:
    folder.mkdir()
    model, ball, backend = str(scene / "point_cloud.ply"), str(folder / "ball.potr"), ["--scene", str(scene), "-q"]
    backend += ["--backend", "cpu"]
    settings = ["--set", "prune.early_passes=1", "--set", "prune.late_passes=1"]
    return [
        ["encode", model, "-o", ball, *settings, *backend],
        ["render", ball, "--camera", "view_08.png", "-o", str(folder / "ball.png"), *backend],
        ["compare", model, ball, "-o", str(folder / "both.png"), *backend],
    ]


@pytest.fixture
def files_on_cpu(scene_folder: Path, tmp_path: Path) -> dict[str, bytes]:
    return files_of(scene_folder, tmp_path / "by cpu")


def files_of(scene: Path, folder: Path) -> dict[str, bytes]:
    for command in commands(scene, folder):
        assert main(command) == 0
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_command_line_takes_models_to_the_backend(
    files_on_cpu: dict[str, bytes], scene_folder: Path, tmp_path: Path, other: None
) -> None:
    assert len(files_on_cpu) == 3
    assert files_of(scene_folder, tmp_path / "by other") == files_on_cpu
