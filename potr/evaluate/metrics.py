# SPDX-License-Identifier: Apache-2.0
"""PSNR and SSIM of 8-bit images, by the conventions of the 3DGS papers (docs/evaluation.md)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from potr.errors import SceneError

PSNR_CAP = 100.0  # dB; what two equal images get. 800 x 800 images one level apart in one sample have 110 dB.
SSIM_WINDOW = 11  # pixels
SSIM_SIGMA = 1.5  # pixels
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2


def to_8bit(image: Tensor) -> Tensor:
    """What an 8-bit image file holds: [H, W, 3] float32, clamped to 0..1 and rounded half up, to [H, W, 3] uint8.

    Raises:
        SceneError: the image is not [H, W, 3] float32, or has NaN or infinite samples.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != torch.float32:
        raise SceneError(f"image: expected float32 [H, W, 3], got {image.dtype} {tuple(image.shape)}")
    broken = image.numel() - int(torch.isfinite(image).sum())
    if broken:
        raise SceneError(f"image: expected finite samples, got {broken} of {image.numel()} NaN or infinite")
    return (image.clamp(0.0, 1.0) * 255.0 + 0.5).floor().to(torch.uint8)


def psnr(image: Tensor, reference: Tensor) -> float:
    """10 log10(1 / MSE) in dB over all pixels and channels, at most PSNR_CAP.

    Both images are [H, W, 3] float32 in 0..1 and go through ``to_8bit`` first; SceneError if they do not fit.
    """
    x, y = _samples(image, reference)
    mse = float((x - y).square().mean())
    return PSNR_CAP if mse == 0.0 else min(PSNR_CAP, -10.0 * math.log10(mse))


def ssim(image: Tensor, reference: Tensor) -> float:
    """Mean structural similarity (Wang et al. 2004) over all pixels and channels, 1 for equal images.

    Gaussian window of 11 x 11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03, dynamic range 1, population (biased) variances,
    each channel by itself. As in 3DGS's code, the window reaches over the border into zeros, so every pixel counts;
    Wang's own code leaves the border of 5 pixels out. Both images go through ``to_8bit`` first.
    """
    x, y = (samples.permute(2, 0, 1).contiguous() for samples in _samples(image, reference))
    mean_x, mean_y, xx, yy, xy = (_blur(plane) for plane in (x, y, x * x, y * y, x * y))
    covariance = xy - mean_x * mean_y
    variances = xx - mean_x.square() + yy - mean_y.square()
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x.square() + mean_y.square() + SSIM_C1)
    return float((luminance * (2 * covariance + SSIM_C2) / (variances + SSIM_C2)).mean())


def _samples(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Both images as float64 multiples of 1/255: SSIM's variances are small differences of large sums."""
    if image.shape != reference.shape:
        raise SceneError(f"images: expected one shape, got {tuple(image.shape)} and {tuple(reference.shape)}")
    return to_8bit(image).double() / 255.0, to_8bit(reference).double() / 255.0


def _blur(planes: Tensor) -> Tensor:
    """[C, H, W] convolved with the Gaussian window, zeros beyond the border; along the rows, then the columns.

    As sums of shifted images, which on a CPU takes a third of the time of a float64 convolution.
    """
    reach = SSIM_WINDOW // 2
    weights = [math.exp(-((offset / SSIM_SIGMA) ** 2) / 2) for offset in range(-reach, reach + 1)]
    for dim, padding in ((2, (reach, reach)), (1, (0, 0, reach, reach))):
        padded, size = F.pad(planes, padding), planes.shape[dim]
        planes = torch.zeros_like(planes)
        for start, weight in enumerate(weights):
            planes.add_(padded.narrow(dim, start, size), alpha=weight / sum(weights))
    return planes
