# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from torch import Tensor

from potr.errors import SceneError
from potr.evaluate.pictures import GAP, HEAT, MARGIN, PANEL_WIDTH, Box, comparison_picture, heat_map, worst_spot

CAPTIONS = {"title": "t", "photo_caption": "p", "before_caption": "b", "after_caption": "a"}


def images() -> tuple[Tensor, Tensor, Tensor]:
    """100 x 50, gray; a good render; one with a red square of 8 x 8 at (60, 30)."""
    photo = torch.full((50, 100, 3), 0.5)
    after = photo.clone()
    after[30:38, 60:68] = torch.tensor([1.0, 0.0, 0.0])
    return photo, photo + 2 / 255, after


def test_worst_spot_holds_where_the_error_grew_and_not_where_it_was() -> None:
    photo, before, after = (np.zeros((50, 100, 3), np.uint8) for _ in range(3))
    before[5:15, 5:15] = after[5:15, 5:15] = 200  # wrong before, no worse after
    after[40:50, 90:100] = 20
    box = worst_spot(photo, before, after)
    assert box == Box(78, 39, 22, 11)
    assert worst_spot(photo, photo, photo).width == 22


def test_heat_map_runs_from_first_to_last_color_and_stays_there() -> None:
    colors = heat_map(np.array([[0.0, 2.0, 8.0, 100.0]]), 8.0)[0]
    assert colors[0].tolist() == list(HEAT[0])
    assert colors[2].tolist() == colors[3].tolist() == list(HEAT[-1])
    brightness = heat_map(np.linspace(0, 1, 64)[None], 1.0)[0].astype(int) @ [299, 587, 114]
    assert (np.diff(brightness) > 0).all()  # readable without color


def test_picture_shows_each_image_in_its_place() -> None:
    photo, before, after = images()
    copies = [image.clone() for image in (photo, before, after)]
    picture = comparison_picture(photo, before, after, **CAPTIONS)
    assert picture.width == 2 * MARGIN + 3 * PANEL_WIDTH + 2 * GAP
    pixels = np.asarray(picture)
    red = (pixels == [255, 0, 0]).all(axis=2)
    assert red.any(axis=0).nonzero()[0].min() >= MARGIN + 2 * (PANEL_WIDTH + GAP)  # in the last column only
    # the square's 64 pixels: once in the view, once in the detail, which is 22 pixels wide
    expected = 64 * ((PANEL_WIDTH / 100) ** 2 + (PANEL_WIDTH / 22) ** 2)
    assert red.sum() == pytest.approx(expected, rel=0.1)
    for image, copy in zip((photo, before, after), copies, strict=True):
        assert torch.equal(image, copy)


def test_equal_images_have_black_error_maps() -> None:
    photo, before, _ = images()
    heat = {
        "equal": comparison_picture(photo, photo, photo, **CAPTIONS),
        "unlike": comparison_picture(photo, before, before, **CAPTIONS),
    }
    black = {name: int((np.asarray(picture) == 0).all(axis=2).sum()) for name, picture in heat.items()}
    panel = PANEL_WIDTH * (PANEL_WIDTH // 2)
    assert black["equal"] >= 3 * panel
    assert panel <= black["unlike"] < 2 * panel  # before and after are alike, both differ from the photograph


def test_refuses_images_of_different_sizes() -> None:
    photo, before, after = images()
    with pytest.raises(SceneError, match="one shape"):
        comparison_picture(photo, before, after[:-1], **CAPTIONS)
