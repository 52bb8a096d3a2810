# SPDX-License-Identifier: Apache-2.0
"""The potr command, as a user types it: the whole way round, what it refuses, and how it stops."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import potr
from potr import cli
from potr.encoder.target import mean_psnr
from potr.model.splats import SplatModel
from tests.helpers.processes import LIMIT

ENCODE = ("encode", "{model}", "-o", "{new}", "--scene", "{scene}")
QUICK = ("--set", "prune.early_passes=2", "--set", "prune.late_passes=1")


@pytest.fixture(scope="module")
def compressed(scene_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("cli") / "scene.potr"
    model = str(scene_folder / "point_cloud.ply")
    assert cli.main(["encode", model, "-o", str(output), "--scene", str(scene_folder), *QUICK, "-q"]) == 0
    return output


def succeeds(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on stderr of a command that exits with 2."""
    capsys.readouterr()
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as error:  # argparse's own
        code = error.code  # type: ignore[assignment]
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    return err.splitlines()[-1]


def test_encode_makes_the_bytes_the_library_makes(compressed: Path, scene_folder: Path) -> None:
    scene = potr.load_scene(scene_folder)
    config = potr.config_for(0.5, overrides={"prune": {"early_passes": 2, "late_passes": 1}})
    assert compressed.read_bytes() == potr.encode(scene.model, scene.train_views, config=config).data
    assert [path.name for path in compressed.parent.iterdir()] == ["scene.potr"]


def test_encode_says_what_it_did(scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, output = scene_folder / "point_cloud.ply", tmp_path / "a.potr"
    arguments = ["encode", model, "--scene", scene_folder, "--quality", 0.2, *QUICK, "-q"]
    text = succeeds(capsys, *arguments, "-o", output)
    assert text.startswith(f"{output}: {output.stat().st_size:,} bytes, ")
    assert "of 300 splats" in text
    assert f", {model.stat().st_size / output.stat().st_size:.1f}x smaller than {model}; " in text
    report = json.loads(succeeds(capsys, *arguments, "-o", tmp_path / "b.potr", "--json"))
    assert report["bytes"] == output.stat().st_size
    assert report["splats_before"] == 300
    assert [stage["name"] for stage in report["stages"]][:2] == ["prune_early", "compact"]
    assert len(report["stages"][0]["details"]["passes"]) == 2
    scene, raster = potr.load_scene(scene_folder), potr.select_rasterizer("cpu")
    before, after = (mean_psnr(of, scene.train_views, raster) for of in (scene.model, potr.decode(output.read_bytes())))
    count = len(scene.train_views)
    assert report["train"] == {"views": count, "of": count, "psnr_before": before, "psnr_after": after}
    said = f"\n{count} of {count} training views, which the encoder has seen: PSNR {before:.2f} to {after:.2f} dB"
    assert said in text


def test_psnr_of_an_encode_is_told_of_a_few_training_views(scene_folder: Path, tmp_path: Path) -> None:
    views = potr.load_scene(scene_folder).train_views
    asked: list[str] = []

    def counted(model: SplatModel, views: Any, *_: Any) -> float:
        asked.extend(view.name for view in views)
        return 30.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("potr.encoder.target.mean_psnr", counted)
        patch.setattr(cli, "_TRAIN_VIEWS", 2)
        model, output = str(scene_folder / "point_cloud.ply"), str(tmp_path / "a.potr")
        assert cli.main(["encode", model, "-o", output, "--scene", str(scene_folder), *QUICK, "-q"]) == 0
    assert asked == 2 * [views[0].name, views[-1].name]  # before and after on the same


def test_quality_and_set_reach_the_codec(
    scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = scene_folder / "point_cloud.ply"
    sizes = {}
    for name, options in {
        "low": ("--quality", 0.05),
        "high": ("--quality", 1),
        "fine": ("--quality", 0.05, "--set", "quantize.dc_multiplier=500"),
    }.items():
        output = tmp_path / f"{name}.potr"
        succeeds(capsys, "encode", model, "-o", output, "--scene", scene_folder, *QUICK, *options, "-q")
        sizes[name] = output.stat().st_size
    assert sizes["low"] < sizes["high"]
    assert sizes["low"] < sizes["fine"]


def test_decode_writes_the_model(compressed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.ply"
    text = succeeds(capsys, "decode", compressed, "-o", output)
    written, decoded = potr.load_ply(output), potr.decode(compressed.read_bytes())
    assert f"{decoded.num_splats:,} splats" in text
    assert written.means.equal(decoded.means)
    assert written.sh.equal(decoded.sh)


def test_info_accounts_for_every_byte(compressed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    description = json.loads(succeeds(capsys, "info", compressed, "--json"))
    size = compressed.stat().st_size
    sections = sum(section["coded_bytes"] for section in description["sections"])
    assert sections + description["header_bytes"] == size == description["bytes"]
    lines = succeeds(capsys, "info", compressed).splitlines()
    assert lines[0].startswith(f"{compressed}: {size:,} bytes, {description['num_splats']} splats, version 3")
    assert lines[-1].split()[-3:-1] == [f"{size:,}", "100.0%"]
    assert len(lines) == len(description["sections"]) + 4


def test_render_a_view_by_number_and_by_name(
    compressed: Path, scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--scene", scene_folder)
    assert "view view_03.png, 48 x 36" in succeeds(
        capsys, "render", compressed, "--camera", 3, "-o", tmp_path / "a.png", *options
    )
    succeeds(capsys, "render", compressed, "--camera", "view_03", "-o", tmp_path / "b.png", *options)
    succeeds(capsys, "render", scene_folder / "point_cloud.ply", "--camera", 3, "-o", tmp_path / "c.png")
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (48, 36)


def test_render_takes_the_cameras_beside_the_file(
    compressed: Path, scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lonely = tmp_path / "a" / "b" / "c" / "scene.potr"
    lonely.parent.mkdir(parents=True)
    shutil.copy(compressed, lonely)
    command = ("render", lonely, "--camera", "view_03.png", "-o", tmp_path / "view.png")
    assert "no cameras: expected --scene DIR, or a cameras.json in" in refused(capsys, *command)
    shutil.copy(scene_folder / "cameras.json", tmp_path / "a")
    assert "view view_03.png" in succeeds(capsys, *command)
    command = (*command, "--overwrite", "--background", "white")
    before = (tmp_path / "view.png").read_bytes()
    succeeds(capsys, *command)
    assert (tmp_path / "view.png").read_bytes() != before


def test_compare_prints_the_table_and_draws_the_picture(
    compressed: Path, scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("compare", scene_folder / "point_cloud.ply", compressed, "--scene", scene_folder, "-q")
    text = succeeds(capsys, *command, "-o", tmp_path / "picture.png")
    assert [line.split()[0] for line in text.splitlines()[1:6]] == ["bytes", "splats", "PSNR", "SSIM", "FPS"]
    assert "on 2 test views" in text
    with Image.open(tmp_path / "picture.png") as image:
        assert image.width > 1000
    first, second = json.loads(succeeds(capsys, *command, "--json"))
    assert (first["splats"], second["bytes"]) == (300, compressed.stat().st_size)
    assert f"{second['measured']['psnr']:.2f}" in text


def test_outputs_are_not_overwritten_unasked(
    compressed: Path, scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = scene_folder / "point_cloud.ply"
    output = tmp_path / "taken"
    output.write_text("precious")
    for command in (
        ("encode", model, "--scene", scene_folder),
        ("decode", compressed),
        ("render", model, "--camera", 0),
        ("compare", model, compressed, "--scene", scene_folder),
    ):
        assert f"{output}: exists already" in refused(capsys, *command, "-o", output)
    assert output.read_text() == "precious"
    succeeds(capsys, "decode", compressed, "-o", output, "--overwrite")
    assert output.read_bytes()[:3] == b"ply"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("encode", "{model}", "-o", "{new}", "--downscale", "2"), "photographs: they need --scene DIR"),
        (("encode", "{model}", "-o", "{new}", "--psnr-drop", "1"), "a loss against photographs: it needs --scene DIR"),
        ((*ENCODE, "--quality", "1.5"), r"expected a number in (0, 1], got '1.5'"),
        ((*ENCODE, "--codec", "jpeg"), "codec: expected one of default, paper, got 'jpeg'"),
        ((*ENCODE, "--set", "prune.capp=1"), "did you mean 'prune.cap'?"),
        ((*ENCODE, "--set", "prune.cap=9"), "PruneConfig.cap: expected a number in [0.0, 1.0]"),
        (("encode", "{model}", "-o", "{new}", "--scene", "{model}"), "expected a scene folder, found a file"),
        ((*ENCODE, "--backend", "tpu"), "expected one of auto, cuda, cpu, reference, got 'tpu'"),
        ((*ENCODE, "--background", "pink"), "expected black, white or #rrggbb, got 'pink'"),
        ((*ENCODE, "--threads", "0"), "expected a whole number from 1 to 1024, got '0'"),
        ((*ENCODE, "--threads", "100000"), "expected a whole number from 1 to 1024, got '100000'"),
        (("decode", "{scene}/cameras.json", "-o", "{new}"), "section 'header', offset 0"),
        (("decode", "{model}", "-o", "{new}"), "point_cloud.ply: this is a .ply; `potr encode "),
        (("info", "{model}"), "point_cloud.ply -o {scene}/point_cloud.potr` makes a .potr of it"),
        (("decode", "{missing}", "-o", "{new}"), "cannot read: No such file or directory"),
        (("info", "{missing}"), "cannot read: No such file or directory"),
        (("render", "{model}", "--camera", "99", "-o", "{new}"), "no view '99': expected a number from 0 to 9"),
        (("render", "{scene}", "--camera", "0", "-o", "{new}"), "expected a .ply or a .potr file"),
        (("compare", "{model}", "{missing}", "--scene", "{scene}"), "No such file"),
        (("compress",), "invalid choice: 'compress'"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"model": scene_folder / "point_cloud.ply", "scene": scene_folder}
    names |= {"new": tmp_path / "new", "missing": tmp_path / "missing.potr"}
    said = refused(capsys, *(argument.format(**names) for argument in arguments))
    assert message.replace("{scene}", str(scene_folder)) in said
    assert not list(tmp_path.iterdir())


def test_a_file_of_the_other_kind_is_named_whatever_it_is_called(
    compressed: Path, scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_ply, as_potr, new = tmp_path / "a.ply", tmp_path / "a.potr", tmp_path / "new"
    as_ply.write_bytes(compressed.read_bytes())
    as_potr.write_bytes((scene_folder / "point_cloud.ply").read_bytes())
    is_potr, is_ply = f"{as_ply}: this is a .potr; `potr decode` makes", f"{as_potr}: this is a .ply; `potr encode`"
    scene = ("--scene", str(scene_folder))
    for command, message in (
        (("render", as_ply, "--camera", "0", "-o", new, *scene), is_potr),
        (("render", as_potr, "--camera", "0", "-o", new, *scene), is_ply),
        (("compare", as_ply, compressed, *scene), is_potr),
        (("encode", as_ply, "-o", new), is_potr),
        (("encode", compressed, "-o", new), f"-o {compressed.with_suffix('.ply')}` makes a .ply of it"),
        (("decode", as_potr, "-o", new), is_ply),
    ):
        assert message in refused(capsys, *command)
    assert not new.exists()


def test_verbose_shows_where_an_error_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(tmp_path / "missing.potr"), "-v"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("potr info: ")


def test_an_interrupted_encode_resumes_to_the_same_bytes(
    compressed: Path,
    scene_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, encode = tmp_path / "scene.potr", potr.encode
    arguments = [
        "encode",
        str(scene_folder / "point_cloud.ply"),
        "-o",
        str(output),
        "--scene",
        str(scene_folder),
        *QUICK,
    ]

    def interrupted(stage: str, done: int, total: int) -> None:
        if stage == "early pruning pass 2/2":
            raise KeyboardInterrupt

    def encode_interrupted(model: SplatModel, views: Any, **options: Any) -> Any:
        return encode(model, views, **{**options, "progress": potr.Progress(interrupted)})

    with monkeypatch.context() as patch:
        patch.setattr(potr, "encode", encode_interrupted)
        assert cli.main(arguments) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("potr encode: interrupted; nothing is half-written; the same command goes on from the last")
    assert [path.name for path in tmp_path.iterdir()] == ["scene.potr.resume"]
    assert cli.main(arguments) == 0
    assert output.read_bytes() == compressed.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["scene.potr"]


def test_the_command_is_installed_and_round_trips(compressed: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("potr")), "decode", str(compressed), "-o", "out.ply", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splats"] == potr.load_ply(tmp_path / "out.ply").num_splats
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("potr decode: out.ply: exists already")


def test_help_needs_no_torch() -> None:
    program = "import sys; from potr import cli; sys.modules['torch'] = None; cli.main(['encode', '--help'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert "--quality Q" in done.stdout
    assert "0 < Q <= 1" in done.stdout
