# SPDX-License-Identifier: Apache-2.0
"""The choice of coder, apart from both the encoder's configuration and the coders."""

from __future__ import annotations

from enum import Enum


class Entropy(Enum):
    """How the integers become bytes."""

    ANS = "ans"  # adaptive arithmetic coding by context, format version 2
    ZSTD = "zstd"  # byte streams under zstd, format version 1
