# SPDX-License-Identifier: Apache-2.0
"""Two models of one scene, judged side by side on its test views."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from potr.errors import PotrError, SceneError
from potr.experiment.measure import judge
from potr.experiment.pictures import caption, save_comparison, typical_view
from potr.experiment.result import LPIPS_NAMES, Measured
from potr.experiment.schema import EvaluateConfig
from potr.format.container import MAGIC
from potr.format.decode import decode
from potr.io.ply import load_ply
from potr.model.cameras import View
from potr.model.scene import Scene
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import Rasterizer

_PLY = (b"ply\n", b"ply\r")


@dataclass(frozen=True)
class Judged:
    """A model file: its size, its splats, and what the test views say."""

    path: str
    bytes: int
    splats: int
    measured: Measured


def load_model(path: Path) -> SplatModel:
    """A model from a .ply or a .potr, told apart by the suffix.

    Raises:
        ModelError, BitstreamError: the file is not a good one of its kind.
        PotrError: another suffix, the other kind under this one's suffix, or the file cannot be read.
    """
    if path.suffix.lower() == ".ply":
        refuse_potr(path)
        return load_ply(path)
    if path.suffix.lower() != ".potr":
        raise PotrError(f"{path}: expected a .ply or a .potr file")
    return decode(read_potr(path))


def read_potr(path: Path) -> bytes:
    """A compressed file's bytes.

    Raises:
        PotrError: it cannot be read, or is a .ply, whatever it is called.
    """
    data = _read_file(path)
    if data.startswith(_PLY):
        raise PotrError(f"{path}: this is a .ply; {_command('encode', path, '.potr')} makes a .potr of it")
    return data


def refuse_potr(path: Path) -> None:
    """PotrError if a file that is to be a .ply is a compressed one; whatever else is wrong the reader says."""
    try:
        with open(path, "rb") as file:
            is_potr = file.read(len(MAGIC)) == MAGIC
    except OSError:
        return
    if is_potr:
        raise PotrError(f"{path}: this is a .potr; {_command('decode', path, '.ply')} makes a .ply of it")


def _command(name: str, path: Path, suffix: str) -> str:
    """What makes a file of the other kind beside this one; without names where it is called like that already."""
    target = path.with_suffix(suffix)
    files = [] if target == path else [str(path), "-o", str(target)]
    return f"`{shlex.join(['potr', name, *files])}`"


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PotrError(f"{path}: cannot read: {error.strerror}") from None


def compare(
    paths: tuple[Path, Path],
    scene: Scene,
    rasterizer: Rasterizer,
    settings: EvaluateConfig,
    *,
    picture: Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> tuple[Judged, Judged]:
    """Measure two model files on a scene's test views, and show a typical view if a picture is asked for.

    Raises:
        SceneError: the scene has no test views.
    """
    if not scene.test_views:
        raise SceneError(f"{scene.name}: no test views to compare on")
    jury = judge(scene.test_views, scene.background, rasterizer, settings)
    models = (load_model(paths[0]).to(rasterizer.device), load_model(paths[1]).to(rasterizer.device))
    qualities = [jury.quality(model, progress.stage("evaluate")) for model in models]
    first, second = (
        Judged(str(path), path.stat().st_size, model.num_splats, jury.speed(model, quality))
        for path, model, quality in zip(paths, models, qualities, strict=True)
    )
    if picture is not None:
        _save_picture(picture, scene.test_views, models, (first, second), rasterizer, overwrite)
    return first, second


def table(first: Judged, second: Judged) -> str:
    """Both side by side and what changed, as text."""
    a, b = first.measured, second.measured
    rows = [
        ("", Path(first.path).name, Path(second.path).name, "change"),
        ("bytes", f"{first.bytes:,}", f"{second.bytes:,}", f"{first.bytes / second.bytes:.1f}x smaller"),
        ("splats", f"{first.splats:,}", f"{second.splats:,}", f"{second.splats - first.splats:+,}"),
    ]
    for label, name, digits in (
        ("PSNR dB", "psnr", 2),
        ("SSIM", "ssim", 4),
        *((label, name, 4) for name, label in LPIPS_NAMES.items()),
        ("FPS", "fps", 1),
    ):
        before, after = getattr(a, name), getattr(b, name)
        if before is not None and after is not None:
            rows.append((label, f"{before:.{digits}f}", f"{after:.{digits}f}", f"{after - before:+.{digits}f}"))
    width = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"{r[0]:<{width[0]}}  {r[1]:>{width[1]}}  {r[2]:>{width[2]}}  {r[3]:>{width[3]}}" for r in rows]
    return "\n".join([*lines, f"on {len(a.views)} test views"])


def _save_picture(
    path: Path,
    views: tuple[View, ...],
    models: tuple[SplatModel, SplatModel],
    judged: tuple[Judged, Judged],
    rasterizer: Rasterizer,
    overwrite: bool,
) -> None:
    view = typical_view(views, [figures["psnr"] for figures in judged[1].measured.views])
    title = f"{Path(judged[0].path).name} and {Path(judged[1].path).name}"
    captions = (caption(judged[0].splats, judged[0].bytes), caption(judged[1].splats, judged[1].bytes))
    save_comparison(path, view, *models, rasterizer, title=title, captions=captions, overwrite=overwrite)
