# SPDX-License-Identifier: Apache-2.0
"""``python -m potr.datasets`` as a user types it, against archives on a local server."""

import dataclasses
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from potr import datasets
from potr.experiment.scenes import fetch, open
from potr.experiment.scenes.places import Roots, locate
from potr.experiment.scenes.suites import SCENES
from tests.experiment.test_conf import composed
from tests.helpers.file_server import FileServer, serving
from tests.helpers.processes import LIMIT
from tests.helpers.released import PHOTOGRAPHS, SPLATS


@pytest.fixture(scope="module")
def archives(released: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """360_v2.zip and models.zip with garden as it is released, and more than a run of garden needs."""
    folder = tmp_path_factory.mktemp("archives")
    contents = {}
    for name, root in (("360_v2.zip", released / "data"), ("models.zip", released / "models")):
        with zipfile.ZipFile(folder / name, "w") as zipped:
            for file in sorted(path for path in root.rglob("*") if path.is_file()):
                zipped.write(file, file.relative_to(root).as_posix())
            zipped.writestr("garden/images_8/DSC07956.JPG", b"smaller")
            zipped.writestr("bicycle/images_4/a.JPG", b"another scene")
        contents[name] = (folder / name).read_bytes()
    return contents


@pytest.fixture
def server(archives: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for variable in ("POTR_DATA", "POTR_MODELS", "POTR_MIRROR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    with serving(dict(archives)) as state:
        yield state


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_from_nothing_to_a_scene(server: FileServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert datasets.main([]) == 0
    out, _ = capsys.readouterr()
    assert out.count("missing") >= 2 * 21
    assert "0 of 21 scenes are complete. Looked in data and models (POTR_DATA, POTR_MODELS)" in out

    server.answers = [len(server.files["360_v2.zip"]) // 2]  # breaks off midway
    assert datasets.main(["download", "garden", "--base-url", server.url]) == 2
    assert "nothing is kept, the same command starts over" in capsys.readouterr().err
    assert files(Path("data")) == set()
    assert datasets.main(["download", "garden", "--base-url", server.url]) == 0
    out, err = capsys.readouterr()
    assert "garden: unpacked from 360_v2.zip as data/garden\n" in out
    assert "garden: unpacked from models.zip as models/garden\n" in out
    assert "is kept for other scenes; --remove-archives deletes it" in out
    assert "14,660,630,999 were expected" in err
    assert "no checksum is published; its SHA-256 " in err
    assert files(Path("data/archives")) == {"360_v2.zip", "360_v2.zip.sha256"}
    photographs = {f"images_4/DSC{7956 + index:05d}.JPG" for index in range(PHOTOGRAPHS)}
    colmap = {f"sparse/0/{name}.bin" for name in ("cameras", "images", "points3D")}
    assert files(Path("data/garden")) == photographs | colmap
    assert files(Path("models/garden")) == {
        "point_cloud/iteration_30000/point_cloud.ply",
        "cameras.json",
        "cfg_args",
    }

    assert datasets.main(["list"]) == 0
    out, _ = capsys.readouterr()
    assert "MipNeRF360       garden     data/garden" in out
    assert "1 of 21 scenes are complete" in out
    scene = open.open_scene(composed("dataset=garden"))
    assert (scene.model.num_splats, len(scene.test_views)) == (SPLATS, PHOTOGRAPHS // 8)

    server.requests.clear()
    assert datasets.main(["download", "garden", "--base-url", server.url]) == 0
    out, _ = capsys.readouterr()
    assert "garden: the photographs are in data/garden\ngarden: the model is models/garden/" in out
    assert server.requests == []

    assert datasets.main(["verify"]) == 2  # it is not the real garden
    out, _ = capsys.readouterr()
    assert "DIFFERS  splats                6,000; expected 5,834,784" in out
    assert "ok       cameras.json          16 of 16 agree" in out
    assert out.endswith("\n4 not as expected\n")


def test_one_part_elsewhere_and_no_archive_left(server: FileServer, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--base-url", server.url, "--data", "photos", "--models", "trained", "--remove-archives"]
    assert datasets.main(["download", "models", "garden", *common]) == 0
    assert files(Path("trained")) == {f"garden/{name}" for name in files(Path("trained/garden"))}
    assert not Path("photos").exists()
    assert datasets.main(["download", "garden", "--only", "photographs", "--everything", *common]) == 0
    assert "images_8/DSC07956.JPG" in files(Path("photos/garden"))
    assert not files(Path("photos/archives"))
    assert {name for _, name, _ in server.requests} == {"models.zip", "360_v2.zip"}


def test_only_the_scene_s_own_files_are_read_out_of_the_archives(
    server: FileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert datasets.main(["download", "garden", "--partial", "--base-url", server.url]) == 0
    out, _ = capsys.readouterr()
    assert re.search(r"garden: read [\d.]+ MB of [\d.]+ MB of 360_v2.zip, unpacked as data/garden\n", out)
    assert not Path("data/archives").exists()
    assert files(Path("data/garden")) | files(Path("models/garden")) > {"sparse/0/images.bin", "cameras.json"}
    scene = open.open_scene(composed("dataset=garden"))
    assert scene.model.num_splats == SPLATS


def test_nerf_synthetic_with_its_checksum(server: FileServer, tmp_path: Path) -> None:
    """The layout of the Blender scenes, of an archive whose SHA-256 is known."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name in (
            "transforms_train.json",
            "transforms_val.json",
            "transforms_test.json",
            "train/r_0.png",
            "val/r_0.png",
        ):
            zipped.writestr(f"nerf_synthetic/lego/{name}", name)
        zipped.writestr("nerf_synthetic/lego/test/r_0.png", "test")
        zipped.writestr("__MACOSX/nerf_synthetic/._lego", "junk")
    server.files["nerf_synthetic.zip"] = buffer.getvalue()
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    archive = dataclasses.replace(SCENES["lego"].archive, url=f"{server.url}/nerf_synthetic.zip", sha256=sha256)
    lego = dataclasses.replace(SCENES["lego"], archive=archive)
    roots = Roots(tmp_path / "data", tmp_path / "models")
    tasks, remarks = fetch.plan([lego], roots)
    assert remarks == ["lego: models.zip has no model of it; train one with 3DGS"]
    fetch.fetch(tasks)
    place = locate(lego, roots)
    assert place.folder == tmp_path / "data" / "nerf_synthetic" / "lego"
    wanted = {"transforms_train.json", "transforms_test.json", "train/r_0.png", "test/r_0.png"}
    assert files(place.folder) == wanted
    assert files(tmp_path / "data" / "archives") == {"nerf_synthetic.zip"}  # a known checksum needs no record


def test_all_released_models_are_asked_for_by_one_word(server: FileServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert datasets.main(["download", "models", "--base-url", server.url]) == 2  # this models.zip has two scenes only
    _, err = capsys.readouterr()
    assert "models.zip: expected bicycle/point_cloud/iteration_30000/point_cloud.ply in it, found none" in err
    assert [name for _, name, _ in server.requests] == ["models.zip", "models.zip"]  # HEAD and GET
    assert not Path("models/bicycle").exists()


def test_what_has_no_released_model_is_said(server: FileServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert datasets.main(["download", "lego", "--only", "models", "--base-url", server.url]) == 0
    assert "lego: models.zip has no model of it; train one with 3DGS" in capsys.readouterr().out
    assert server.requests == []


def test_the_disk_is_looked_at_before_the_first_byte(
    server: FileServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(".")._replace(free=1_000_000)
    monkeypatch.setattr("potr.experiment.scenes.fetch.shutil.disk_usage", lambda _: usage)
    assert datasets.main(["download", "garden", "--base-url", server.url]) == 2
    assert "the download needs " in capsys.readouterr().err
    assert server.gets == []
    assert not Path("data").exists()


def test_a_server_without_the_archive(server: FileServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert datasets.main(["download", "flowers", "--base-url", server.url]) == 2
    _, err = capsys.readouterr()
    assert "/360_extra_scenes.zip: 404 Client Error: Not Found" in err


def test_verify_names_what_is_missing(server: FileServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert datasets.main(["verify"]) == 0
    assert "none of the paper's scenes is in data or models" in capsys.readouterr().out
    assert datasets.main(["verify", "DeepBlending", "--quick"]) == 2
    out, _ = capsys.readouterr()
    assert "drjohnson (DeepBlending): no photographs and no model found" in out
    assert "python -m potr.datasets download playroom" in out
    assert out.endswith("\n2 not as expected\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["verify", "gardn"],
            "expected all, a suite (MipNeRF360, TanksAndTemples, DeepBlending, SyntheticNeRF) or a scene",
        ),
        (["download", "360"], "got '360'"),
    ],
)
def test_unknown_names(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert datasets.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_an_interruption_is_told(
    server: FileServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "download", interrupt)
    assert datasets.main(["download", "garden", "--base-url", server.url]) == 130
    assert "interrupted; nothing is half-unpacked, the same command goes on" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in ((["--help"], "Without a command: list."), (["download", "--help"], "POTR_MIRROR")):
        with pytest.raises(SystemExit) as end:
            datasets.main(arguments)
        assert end.value.code == 0
        assert said in capsys.readouterr().out


def test_as_a_program(tmp_path: Path) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("POTR_")}
    command = [sys.executable, "-m", "potr.datasets", "--data", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, check=True, timeout=LIMIT)
    assert f"0 of 21 scenes are complete. Looked in {tmp_path} and models" in done.stdout
    assert done.stderr == ""
