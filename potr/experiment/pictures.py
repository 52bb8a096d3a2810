# SPDX-License-Identifier: Apache-2.0
"""Pictures as files: a render, and a view before and after compression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from potr.evaluate.metrics import to_8bit
from potr.evaluate.pictures import comparison_picture
from potr.files import write_atomic
from potr.model.cameras import View
from potr.model.splats import SplatModel
from potr.render.base import Rasterizer


def save_image(path: Path, image: Tensor, *, overwrite: bool = False) -> None:
    """Write an [H, W, 3] float32 image in 0..1 as 8-bit PNG.

    Raises:
        PotrError: the file exists, or the image is not finite.
    """
    _save(path, Image.fromarray(to_8bit(image).cpu().numpy()), overwrite)


def save_comparison(
    path: Path,
    view: View,
    before: SplatModel,
    after: SplatModel,
    rasterizer: Rasterizer,
    *,
    title: str,
    captions: tuple[str, str],
    overwrite: bool = False,
) -> None:
    """Write one view as photographed, as rendered from both models, and where they differ, as PNG.

    Args:
        path: of the picture.
        view: which view.
        before, after: on the rasteriser's device.
        rasterizer: a backend.
        title: one line over everything.
        captions: one line for each model.
        overwrite: replace an existing file.
    """
    photo = view.read()
    renders = [rasterizer.render(model, view.camera, view.background).to(photo.device) for model in (before, after)]
    picture = comparison_picture(
        photo,
        *renders,
        title=title,
        photo_caption=f"view {view.name}",
        before_caption=captions[0],
        after_caption=captions[1],
    )
    _save(path, picture, overwrite)


def typical_view(views: Sequence[View], psnrs: Sequence[float]) -> View:
    """The view with the median PSNR: neither the best nor the worst that can be shown."""
    order = sorted(range(len(views)), key=lambda index: psnrs[index])
    return views[order[len(order) // 2]]


def caption(splats: int, size: int) -> str:
    """``179,617 splats, 44.5 MB``."""
    return f"{splats:,} splats, {megabytes(size)}"


def megabytes(size: int) -> str:
    """Bytes as MB = 10^6 bytes, with digits that show small files too."""
    return f"{size / 1e6:.1f} MB" if size >= 10e6 else f"{size / 1e6:.3g} MB"


def _save(path: Path, picture: Image.Image, overwrite: bool) -> None:
    write_atomic(path, lambda file: picture.save(file, format="PNG"), overwrite=overwrite)
