# SPDX-License-Identifier: Apache-2.0
"""The decorrelated colour space of SH coefficients: one luma and two opponent chroma channels, orthonormal.

Ohta's I1 I2 I3 (1980), scaled to unit vectors: a squared error has the same value in both spaces, so the channels of
a least-squares problem in RGB fall apart into three independent ones.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = TypeVar("Array", Tensor, NDArray[np.float32])

_1_3 = 0.5773502691896258  # 1 / sqrt(3)
_1_2 = 0.7071067811865476  # 1 / sqrt(2)
_1_6 = 0.4082482904638631  # 1 / sqrt(6)


def _stack(like: Array, channels: list[Array]) -> Array:
    return torch.stack(channels, -1) if isinstance(like, Tensor) else np.stack(channels, -1)


def rgb_to_opponent(rgb: Array) -> Array:
    """[..., 3] RGB to luma, red-blue, green-magenta; linear, so it serves colours and SH coefficients alike."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return _stack(rgb, [(r + g + b) * _1_3, (r - b) * _1_2, (g + g - r - b) * _1_6])


def opponent_to_rgb(opponent: Array) -> Array:
    """The inverse. float32 operations in exactly this order (docs/format.md): every machine gets the same bits."""
    luma, red_blue, green = opponent[..., 0] * _1_3, opponent[..., 1] * _1_2, opponent[..., 2] * _1_6
    base = luma - green
    return _stack(opponent, [base + red_blue, luma + (green + green), base - red_blue])
