# SPDX-License-Identifier: Apache-2.0
"""How long work reports where it is: a function called with (stage, done, total). The library itself prints nothing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def __call__(self, stage: str, done: int, total: int, /) -> None: ...


def silent(stage: str, done: int, total: int, /) -> None:
    """Reports nothing."""
