# SPDX-License-Identifier: Apache-2.0
"""A few test views of a run as small pictures, so that a report needs neither the scene nor a rasteriser.

``<outputs>/<dataset>/<run>/views/`` holds the renders of the decoded model and ``views.json``; the photographs and the
renders of the model that went in lie once for all runs of a scene in ``<outputs>/<dataset>/.views/``, named by content.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from potr.errors import PotrError
from potr.evaluate.metrics import to_8bit
from potr.evaluate.pictures import worst_spot
from potr.files import write_atomic
from potr.model.cameras import View
from potr.model.splats import SplatModel
from potr.render.base import Rasterizer

FOLDER, SHARED, INDEX_FILE = "views", ".views", "views.json"
QUALITY = 95  # of lossy WebP: a third of the bytes of lossless WebP, for 1.4 to 2.6 levels RMS (docs/report.md)
MAX_SIDE = 1600  # pixels; larger views are reduced by area

Pixels = NDArray[np.uint8]
_SHARED_NAME, _OWN_NAME = re.compile(r"[0-9a-f]{16}\.webp"), re.compile(r"\d{1,4}\.webp")


@dataclass(frozen=True)
class ViewPictures:
    """One view as lossy WebP pictures of one size.

    Attributes:
        view: its name.
        width, height: of the pictures, in pixels.
        detail: left, top, width, height of where the error against the photograph grew most, in their pixels.
        stored_rms: how far the picture of the decoded model is from its 8-bit render, RMS in levels of 255.
        photo, before, after: the files: the photograph, the model that went in, the decoded model.
    """

    view: str
    width: int
    height: int
    detail: tuple[int, int, int, int]
    stored_rms: float
    photo: Path
    before: Path
    after: Path


def pictured(psnrs: Sequence[float], count: int) -> list[int]:
    """Which views to show: the one of median PSNR, the worst, the best, then the rest in their order."""
    order = sorted(range(len(psnrs)), key=lambda index: psnrs[index])
    wanted = [order[len(order) // 2], order[0], order[-1], *range(len(order))] if order else []
    return list(dict.fromkeys(wanted))[:count]


def save_views(run: Path, views: Sequence[View], before: SplatModel, after: SplatModel, rasterizer: Rasterizer) -> None:
    """Render the views of a run and write their pictures, in place of those of an earlier run.

    Args:
        run: the run's folder; what its scene's runs share goes beside it.
        views: with photographs; none leaves no folder.
        before, after: the model that went in and the decoded one, on the rasteriser's device.
        rasterizer: a backend.
    """
    shown = []
    for view in views:
        renders = [rasterizer.render(model, view.camera, view.background) for model in (before, after)]
        photo, rendered, decoded = (_reduced(to_8bit(image).cpu().numpy()) for image in (view.read(), *renders))
        shown.append((view.name, photo, rendered, decoded))
    write_views(run, shown)


def write_views(run: Path, shown: Iterable[tuple[str, Pixels, Pixels, Pixels]]) -> None:
    """Write the pictures of views: name, photograph, before and after, uint8 [H, W, 3] of one shape."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)
    entries = []
    for number, (name, photo, before, after) in enumerate(shown):
        spot = worst_spot(photo, before, after)
        stored = _webp(after)
        own = run / FOLDER / f"{number}.webp"
        write_atomic(own, stored, overwrite=True)
        entry = {
            "view": name,
            "width": photo.shape[1],
            "height": photo.shape[0],
            "detail": [spot.left, spot.top, spot.width, spot.height],
            "stored_rms": _rms(stored, after),
            "photo": _share(run.parent / SHARED, photo),
            "before": _share(run.parent / SHARED, before),
            "after": own.name,
        }
        entries.append(entry)
    if entries:
        write_atomic(run / FOLDER / INDEX_FILE, (json.dumps(entries, indent=2) + "\n").encode(), overwrite=True)


def read_views(run: Path) -> tuple[ViewPictures, ...]:
    """The pictures that a run left; none where it was asked for none.

    Raises:
        PotrError: the index is damaged, or a picture that it names is missing or no WebP file.
    """
    index = run / FOLDER / INDEX_FILE
    if not index.exists():
        return ()
    try:
        found = tuple(_checked(entry, run) for entry in json.loads(index.read_text()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PotrError(f"{index}: not an index of pictures: {error}") from None
    for path in (path for one in found for path in (one.photo, one.before, one.after)):
        if not _is_webp(path):
            raise PotrError(f"{index}: expected a WebP picture in {path}, found none")
    return found


def _checked(entry: dict[str, Any], run: Path) -> ViewPictures:
    """An entry of an index. Files are named as write_views names them, so none leads out of the two folders."""
    for key, pattern in (("photo", _SHARED_NAME), ("before", _SHARED_NAME), ("after", _OWN_NAME)):
        if not pattern.fullmatch(entry[key]):
            raise ValueError(f"{key}: unexpected name '{entry[key]}'")
    width, height, (left, top, across, down) = entry["width"], entry["height"], entry["detail"]
    if not all(type(number) is int for number in (width, height, left, top, across, down)):
        raise ValueError("expected whole numbers of pixels")
    inside = min(left, top) >= 0 and min(across, down) > 0 and left + across <= width and top + down <= height
    if not inside or max(width, height) > MAX_SIDE:
        raise ValueError(f"detail {entry['detail']} in {width} x {height} pixels")
    return ViewPictures(
        view=str(entry["view"]),
        width=width,
        height=height,
        detail=(left, top, across, down),
        stored_rms=float(entry["stored_rms"]),
        photo=run.parent / SHARED / entry["photo"],
        before=run.parent / SHARED / entry["before"],
        after=run / FOLDER / entry["after"],
    )


def _is_webp(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


def _share(folder: Path, pixels: Pixels) -> str:
    """The name of a picture, made from its pixels; it is written unless it is there."""
    digest = hashlib.sha256(f"{pixels.shape} {QUALITY}".encode() + pixels.tobytes()).hexdigest()
    path = folder / f"{digest[:16]}.webp"
    if not _is_webp(path):
        write_atomic(path, _webp(pixels), overwrite=True)
    return path.name


def _webp(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="WEBP", quality=QUALITY, method=4, use_sharp_yuv=True)
    return file.getvalue()


def _rms(stored: bytes, pixels: Pixels) -> float:
    with Image.open(io.BytesIO(stored)) as image:
        difference = np.asarray(image.convert("RGB")).astype(np.float64) - pixels
    return round(float(np.sqrt((difference**2).mean())), 3)


def _reduced(pixels: Pixels) -> Pixels:
    side = max(pixels.shape[:2])
    if side <= MAX_SIDE:
        return pixels
    size = (max(1, pixels.shape[1] * MAX_SIDE // side), max(1, pixels.shape[0] * MAX_SIDE // side))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
