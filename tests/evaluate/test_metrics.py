# SPDX-License-Identifier: Apache-2.0
"""PSNR and SSIM against slow float64 twins written from the definitions."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from potr.errors import SceneError
from potr.evaluate.metrics import PSNR_CAP, psnr, ssim, to_8bit


def images(height: int = 23, width: int = 17) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    reference = torch.rand(height, width, 3, generator=generator)
    return reference + 0.1 * torch.randn(height, width, 3, generator=generator), reference


def ssim_by_definition(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Window by window, weighted means and central moments; zeros beyond the border, as 3DGS has it."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    padded_x, padded_y = (np.pad(image, ((5, 5), (5, 5), (0, 0))) for image in (x, y))
    values = []
    for row, column, channel in np.ndindex(*x.shape):
        patch_x = padded_x[row : row + 11, column : column + 11, channel]
        patch_y = padded_y[row : row + 11, column : column + 11, channel]
        mean_x, mean_y = (window * patch_x).sum(), (window * patch_y).sum()
        variance_x, variance_y = (window * (patch_x - mean_x) ** 2).sum(), (window * (patch_y - mean_y) ** 2).sum()
        covariance = (window * (patch_x - mean_x) * (patch_y - mean_y)).sum()
        numerator = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
        values.append(numerator / ((mean_x**2 + mean_y**2 + 0.01**2) * (variance_x + variance_y + 0.03**2)))
    return float(np.mean(values))


def test_to_8bit_clamps_and_rounds_half_up() -> None:
    row = torch.tensor([-0.5, 0.0, 0.499 / 255, 0.501 / 255, 254.499 / 255, 254.501 / 255, 1.0, 7.0])
    assert to_8bit(row[None, :, None].expand(1, 8, 3))[0, :, 1].tolist() == [0, 0, 0, 1, 254, 255, 255, 255]
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_8bit((levels.float() / 255).view(-1, 1, 1).expand(256, 1, 3))[:, 0, 0], levels)


def test_psnr_by_definition_after_rounding() -> None:
    image, reference = images()
    x, y = (np.floor(np.clip(a.numpy().astype(np.float64), 0, 1) * 255 + 0.5) for a in (image, reference))
    assert psnr(image, reference) == pytest.approx(10 * math.log10(255**2 / np.mean((x - y) ** 2)), abs=1e-9)
    unrounded = 10 * math.log10(1 / float((image - reference).square().mean()))
    assert abs(psnr(image, reference) - unrounded) > 1e-3  # so the rounding and clamping above were seen


def test_psnr_of_one_level_everywhere() -> None:
    black = torch.zeros(8, 8, 3)
    assert psnr(black + 1 / 255, black) == pytest.approx(20 * math.log10(255), abs=1e-9)


def test_equal_images_get_the_cap() -> None:
    _, reference = images()
    assert psnr(reference + 0.3 / 255, to_8bit(reference).float() / 255) < PSNR_CAP
    assert psnr(reference, reference) == PSNR_CAP
    assert ssim(reference, reference) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("contrast", [1.0, 0.1])  # 0.1: bright and flat, where the variances cancel most
def test_ssim_by_definition(contrast: float) -> None:
    image, reference = (1 - contrast + contrast * image for image in images())
    x, y = (np.floor(np.clip(a.numpy().astype(np.float64), 0, 1) * 255 + 0.5) / 255 for a in (image, reference))
    assert ssim(image, reference) == pytest.approx(ssim_by_definition(x, y), abs=1e-9)


def test_refuses_what_is_not_an_image_pair() -> None:
    image, reference = images()
    with pytest.raises(SceneError, match=r"one shape, got \(23, 17, 3\) and \(22, 17, 3\)"):
        psnr(image, reference[:-1])
    image[2, 3, 1] = float("nan")
    with pytest.raises(SceneError, match="got 1 of 1173 NaN or infinite"):
        ssim(image, reference)
    with pytest.raises(SceneError, match=r"expected float32 \[H, W, 3\], got torch.uint8"):
        to_8bit(to_8bit(reference))
