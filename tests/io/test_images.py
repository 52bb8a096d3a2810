# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from potr.errors import SceneError
from potr.io.images import area_downscale, find_image, make_view, read_image
from potr.model.cameras import BLACK, WHITE, Camera


def camera(width: int, height: int) -> Camera:
    return Camera(width, height, 100.0, 110.0, width / 2, height / 2, torch.eye(4))


def pixels(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


def overlap_matrix(old: int, new: int) -> np.ndarray:
    """[new, old] share of each old pixel in each new one, written out."""
    rows = np.zeros((new, old))
    for i in range(new):
        for j in range(old):
            rows[i, j] = max(0.0, min(j + 1, (i + 1) * old / new) - max(j, i * old / new)) * new / old
    return rows


@given(old=st.tuples(st.integers(1, 23), st.integers(1, 23)), share=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
@settings(deadline=None, max_examples=60)
def test_area_downscale_is_the_mean_over_the_covered_rectangle(
    old: tuple[int, int], share: tuple[float, float]
) -> None:
    width, height = (max(1, round(side * part)) for side, part in zip(old, share, strict=True))
    image = np.random.default_rng(0).random((old[1], old[0], 3), np.float32)
    expected = np.einsum("yi,xj,ijc->yxc", overlap_matrix(old[1], height), overlap_matrix(old[0], width), image)
    np.testing.assert_allclose(area_downscale(image, width, height), expected, atol=1e-6)


def test_pixels_are_read_when_asked(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", pixels(8, 6))
    view = make_view("a", camera(8, 6), path, BLACK)
    later = pixels(8, 6, seed=1)
    save(path, later)
    torch.testing.assert_close(view.read(), torch.from_numpy(later).float() / 255, atol=0, rtol=0)


@pytest.mark.parametrize("background", [BLACK, WHITE, (0.2, 0.4, 0.6)])
def test_transparency_is_composited_on_the_background(tmp_path: Path, background: tuple[float, float, float]) -> None:
    rgba = pixels(8, 6, 4)
    view = make_view("a", camera(8, 6), save(tmp_path / "a.png", rgba), background)
    color, alpha = rgba[:, :, :3] / 255, rgba[:, :, 3:] / 255
    expected = color * alpha + np.array(background) * (1 - alpha)
    np.testing.assert_allclose(view.read().numpy(), expected, atol=1e-6)
    assert view.background == background


def test_downscale_composites_first(tmp_path: Path) -> None:
    rgba = np.array([[[255, 0, 0, 255], [0, 255, 0, 0]]], np.uint8)  # opaque red beside transparent green
    image = read_image(save(tmp_path / "a.png", rgba), 1, 1, WHITE)
    torch.testing.assert_close(image[0, 0], torch.tensor([1.0, 0.5, 0.5]))


@pytest.mark.parametrize(("downscale", "size"), [(1, (31, 20)), (2, (16, 10)), (2.5, (12, 8)), (100, (1, 1))])
def test_downscale_scales_the_camera(tmp_path: Path, downscale: float, size: tuple[int, int]) -> None:
    path = save(tmp_path / "a.png", pixels(31, 20))
    view = make_view("a", camera(31, 20), path, BLACK, downscale)
    assert (view.camera.width, view.camera.height) == size
    assert view.camera.fx / 100 == pytest.approx(size[0] / 31)
    assert view.camera.cy == pytest.approx(size[1] / 2)
    assert tuple(view.read().shape) == (size[1], size[0], 3)


@pytest.mark.parametrize(
    ("photo", "described"), [((1237, 822), (4946, 3286)), ((400, 300), (100, 75)), ((979, 546), (1957, 1091))]
)
def test_a_scaled_copy_sets_the_camera_size(tmp_path: Path, photo: tuple[int, int], described: tuple[int, int]) -> None:
    path = save(tmp_path / "a.png", np.zeros((photo[1], photo[0]), np.uint8))
    scaled = make_view("a", camera(*described), path, BLACK).camera
    assert (scaled.width, scaled.height) == photo
    assert scaled.fx == pytest.approx(100 * photo[0] / described[0])
    assert scaled.fy == pytest.approx(110 * photo[1] / described[1])


def test_another_aspect_ratio_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", pixels(60, 80))
    with pytest.raises(SceneError, match=r"a\.png: the photograph is 60 x 80, its camera 80 x 60: expected the same"):
        make_view("a", camera(80, 60), path, BLACK)


def test_modes(tmp_path: Path) -> None:
    gray = pixels(5, 4, 1)[:, :, 0]
    expected = np.repeat(gray[:, :, None] / 255, 3, 2)
    np.testing.assert_allclose(read_image(save(tmp_path / "l.png", gray), 5, 4, BLACK), expected, atol=1e-6)
    deep = save(tmp_path / "i.png", gray.astype(np.uint16) * 257)
    np.testing.assert_allclose(read_image(deep, 5, 4, BLACK), expected, atol=1e-6)
    palette = Image.fromarray(pixels(5, 4)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "p.png")
    np.testing.assert_allclose(
        read_image(tmp_path / "p.png", 5, 4, BLACK), np.asarray(palette.convert("RGB")) / 255, atol=1e-6
    )


@pytest.mark.parametrize("keep", [0, 10, 60, -40])
def test_damaged_images(tmp_path: Path, keep: int) -> None:
    content = save(tmp_path / "a.png", pixels(40, 30)).read_bytes()
    (tmp_path / "a.png").write_bytes(content[:keep])
    with pytest.raises(SceneError, match=r"a\.png: not a readable image"):
        make_view("a", camera(40, 30), tmp_path / "a.png", BLACK).read()


def test_an_image_that_shrank_since_the_scene_was_loaded(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", pixels(40, 30))
    view = make_view("a", camera(40, 30), path, BLACK)
    save(path, pixels(20, 15))
    with pytest.raises(SceneError, match=r"a\.png: expected at least 40 x 30 pixels, found 20 x 15"):
        view.read()


def test_names_with_and_without_suffix(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    png = save(tmp_path / "train" / "r_0.png", pixels(4, 4))
    dotted = save(tmp_path / "frame.0001.jpg", pixels(4, 4))
    assert find_image([tmp_path / "images", tmp_path], "train/r_0") == png
    assert find_image([tmp_path], "train/r_0.png") == png
    assert find_image([tmp_path], "train/r_0.JPG") == png
    assert find_image([tmp_path], "frame.0001") == dotted
    assert find_image([tmp_path], "frame") is None
