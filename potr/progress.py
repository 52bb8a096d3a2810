# SPDX-License-Identifier: Apache-2.0
"""How long work says where it is. The library itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


def _nothing(stage: str, done: int, total: int, /) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Progress:
    """Called with (done, total), it reports that under a stage's name.

    Attributes:
        report: called with the stage's name, done and total.
        name: of the stage.
    """

    report: Callable[[str, int, int], None] = _nothing
    name: str = ""

    def stage(self, name: str) -> Progress:
        """The same receiver, for a stage of this name."""
        return Progress(self.report, name)

    def part(self, name: str) -> Progress:
        """The same receiver, for a part of this stage."""
        return self.stage(f"{self.name}, {name}")

    def __call__(self, done: int, total: int) -> None:
        self.report(self.name, done, total)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A stage that cannot say how far it is."""
        self.report(name, 0, 1)
        yield
        self.report(name, 1, 1)


SILENT = silent = Progress()
