# SPDX-License-Identifier: Apache-2.0
"""The decorrelated colour space of SH coefficients: YCoCg, one luma and two chroma (Malvar & Sullivan 2003)."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = TypeVar("Array", Tensor, NDArray[np.float32])


def _stack(like: Array, channels: list[Array]) -> Array:
    return torch.stack(channels, -1) if isinstance(like, Tensor) else np.stack(channels, -1)


def rgb_to_ycocg(rgb: Array) -> Array:
    """[..., 3] RGB to luma, orange-blue, green-magenta; linear, so it serves colours and SH coefficients alike."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return _stack(rgb, [0.25 * r + 0.5 * g + 0.25 * b, 0.5 * r - 0.5 * b, 0.5 * g - 0.25 * r - 0.25 * b])


def ycocg_to_rgb(ycocg: Array) -> Array:
    """The inverse. Additions only, in this order, so that every machine gets the same bits."""
    y, co, cg = ycocg[..., 0], ycocg[..., 1], ycocg[..., 2]
    base = y - cg
    return _stack(ycocg, [base + co, y + cg, base - co])
