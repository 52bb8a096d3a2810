# SPDX-License-Identifier: Apache-2.0
"""A picture that shows what compression did to one view: photograph, before, after, details and errors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from potr.evaluate.metrics import psnr, to_8bit

PANEL_WIDTH = 520  # pixels of the finished picture, as are the rest
GAP = 14
MARGIN = 22
DETAIL_SHARE = 0.22  # of the view's width and height
INK, SOFT_INK, EDGE, PAPER, FRAME = (24, 26, 32), (92, 96, 106), (214, 216, 222), (255, 255, 255), (255, 64, 129)
HEAT = ((0, 0, 0), (54, 13, 96), (160, 33, 92), (230, 92, 42), (252, 186, 50), (255, 252, 214))  # dark is no error
HEAT_TICKS = 4

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Box:
    """A rectangle of an image, in its pixels."""

    left: int
    top: int
    width: int
    height: int


def comparison_picture(
    photo: Tensor,
    before: Tensor,
    after: Tensor,
    *,
    title: str,
    photo_caption: str,
    before_caption: str,
    after_caption: str,
) -> Image.Image:
    """Three columns, three rows: the view, its worst detail enlarged, and where the errors are, on one scale.

    The detail is the place where the error against the photograph grew most, framed in the row above. The PSNR of this
    view stands over each error map; captions say the rest.

    Args:
        photo, before, after: [H, W, 3] float32 in 0..1: the photograph, the render of the model that went in, the
            render of the decoded model; shown after ``to_8bit``.
        title: one line over everything, such as "chair: 44.5 MB to 1.02 MB, 43.6 times smaller".
        photo_caption, before_caption, after_caption: one line under each image, such as "179,617 splats, 44.5 MB".

    Raises:
        SceneError: the images do not have one shape, or are not finite.
    """
    psnr_before, psnr_after = psnr(before, photo), psnr(after, photo)
    views = [to_8bit(image).cpu().numpy() for image in (photo, before, after)]
    spot = worst_spot(*views)
    changed, error_before, error_after = (
        _difference(views[2], views[1]),
        _difference(views[1], views[0]),
        _difference(views[2], views[0]),
    )
    scale = _heat_scale([changed, error_before, error_after])

    size = _panel_size(views[0])
    detail_size = _fit_width(spot.width, spot.height, PANEL_WIDTH)
    cells = [
        [_framed(_scaled(view, size), spot, size[0] / view.shape[1]) for view in views],
        [_scaled(_crop(view, spot), detail_size) for view in views],
        [_scaled(heat_map(error, scale), size) for error in (changed, error_before, error_after)],
    ]
    headings = [
        ["Photograph", "Before: the trained model", "After: compressed and decoded"],
        ["Detail: photograph", "Detail: before", "Detail: after"],
        [
            "What compression changed: after against before",
            f"Error before, against the photograph: {psnr_before:.2f} dB in this view",
            f"Error after, against the photograph: {psnr_after:.2f} dB in this view",
        ],
    ]
    captions = [
        [photo_caption, before_caption, after_caption],
        ["the framed spot, where the error grew most", "", ""],
        ["", "", ""],
    ]
    return _assemble(title, headings, cells, captions, scale)


def worst_spot(photo: Pixels, before: Pixels, after: Pixels) -> Box:
    """Where a window of DETAIL_SHARE of each side gained most squared error against the photograph; uint8 [H, W, 3]."""
    height, width = photo.shape[:2]
    box_height, box_width = (max(1, round(DETAIL_SHARE * side)) for side in (height, width))
    reference = photo.astype(np.int64)
    gain = ((after - reference) ** 2 - (before - reference) ** 2).sum(axis=2)
    table = np.pad(gain, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    sums = (
        table[box_height:, box_width:]
        - table[:-box_height, box_width:]
        - table[box_height:, :-box_width]
        + table[:-box_height, :-box_width]
    )
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return Box(int(left), int(top), box_width, box_height)


def heat_map(difference: NDArray[np.float64], scale: float) -> Pixels:
    """[H, W] differences as [H, W, 3] colors of HEAT: 0 is the first, ``scale`` and beyond the last."""
    position = np.clip(difference / scale, 0.0, 1.0)
    stops = np.linspace(0.0, 1.0, len(HEAT))
    channels = [np.interp(position, stops, [color[c] for color in HEAT]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _difference(a: Pixels, b: Pixels) -> NDArray[np.float64]:
    """[H, W] mean absolute difference over the channels, in 8-bit levels."""
    difference: NDArray[np.float64] = np.abs(a.astype(np.float64) - b).mean(axis=2)
    return difference


def _heat_scale(differences: list[NDArray[np.float64]]) -> float:
    """The last color's value, one for all maps: the 99.5th percentile of the worst, up to a multiple of 8 levels."""
    worst = max(float(np.percentile(difference, 99.5)) for difference in differences)
    return 8.0 * max(1, int(np.ceil(worst / 8.0)))


def _panel_size(view: Pixels) -> tuple[int, int]:
    return _fit_width(view.shape[1], view.shape[0], PANEL_WIDTH)


def _fit_width(width: int, height: int, target: int) -> tuple[int, int]:
    return target, max(1, round(height * target / width))


def _scaled(pixels: Pixels, size: tuple[int, int]) -> Image.Image:
    """Enlarged by whole pixels that stay visible, reduced by area."""
    image = Image.fromarray(pixels)
    resample = Image.Resampling.BOX if size[0] < image.width else Image.Resampling.NEAREST
    return image.resize(size, resample)


def _crop(pixels: Pixels, box: Box) -> Pixels:
    return pixels[box.top : box.top + box.height, box.left : box.left + box.width]


def _framed(image: Image.Image, box: Box, zoom: float) -> Image.Image:
    corners = [box.left, box.top, box.left + box.width, box.top + box.height]
    ImageDraw.Draw(image).rectangle([round(corner * zoom) for corner in corners], outline=FRAME, width=3)
    return image


def _assemble(
    title: str, headings: list[list[str]], cells: list[list[Image.Image]], captions: list[list[str]], scale: float
) -> Image.Image:
    title_height, heading_height, caption_height, legend_height = 50, 26, 26, 46
    width = 2 * MARGIN + 3 * PANEL_WIDTH + 2 * GAP
    rows = [
        heading_height + row[0].height + GAP + (caption_height if any(lines) else 0)
        for row, lines in zip(cells, captions, strict=True)
    ]
    picture = Image.new("RGB", (width, 2 * MARGIN + title_height + sum(rows) + legend_height), PAPER)
    draw = ImageDraw.Draw(picture)
    _write(draw, (MARGIN, MARGIN), title, 28, INK, width - 2 * MARGIN)
    top = MARGIN + title_height
    for row_headings, row_cells, row_captions, row_height in zip(headings, cells, captions, rows, strict=True):
        for column in range(3):
            left = MARGIN + column * (PANEL_WIDTH + GAP)
            _write(draw, (left, top + 2), row_headings[column], 17, INK, PANEL_WIDTH)
            cell = row_cells[column]
            picture.paste(cell, (left, top + heading_height))
            edge = (left - 1, top + heading_height - 1, left + cell.width, top + heading_height + cell.height)
            draw.rectangle(edge, outline=EDGE)  # or a white background would melt into the paper
            below = top + heading_height + cell.height + 5
            _write(draw, (left, below), row_captions[column], 15, SOFT_INK, PANEL_WIDTH)
        top += row_height
    _legend(picture, draw, top, scale)
    return picture


def _legend(picture: Image.Image, draw: ImageDraw.ImageDraw, top: int, scale: float) -> None:
    """The color scale of the bottom row."""
    ramp = heat_map(np.tile(np.linspace(0.0, scale, PANEL_WIDTH), (14, 1)), scale)
    picture.paste(Image.fromarray(ramp), (MARGIN, top))
    for tick in range(HEAT_TICKS + 1):
        label = f"{scale * tick / HEAT_TICKS:.0f}" + (" or more" if tick == HEAT_TICKS else "")
        anchor = "lt" if tick == 0 else "rt" if tick == HEAT_TICKS else "mt"
        position = (MARGIN + PANEL_WIDTH * tick / HEAT_TICKS, top + 20)
        draw.text(position, label, font=_font(14), fill=SOFT_INK, anchor=anchor)
    explanation = (
        "Color scale of the bottom row: mean absolute difference over R, G, B, in levels of 255. Black is equal."
    )
    _write(draw, (MARGIN + PANEL_WIDTH + GAP, top), explanation, 15, SOFT_INK, 2 * PANEL_WIDTH)


def _write(
    draw: ImageDraw.ImageDraw, position: tuple[int, int], text: str, size: int, ink: tuple[int, int, int], room: int
) -> None:
    """One line, in smaller letters where the room is short."""
    while size > 9 and draw.textlength(text, font=_font(size)) > room:
        size -= 1
    draw.text(position, text, font=_font(size), fill=ink)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
