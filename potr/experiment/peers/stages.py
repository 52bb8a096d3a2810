# SPDX-License-Identifier: Apache-2.0
"""The clock of the peers that are written here."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from potr.encoder.encode import StageReport

log = logging.getLogger(__name__)


class Stages:
    """Times stages, one after the other, and counts the splats before and after each."""

    def __init__(self, num_splats: int) -> None:
        self.reports: list[StageReport] = []
        self.num_splats = num_splats

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Yields the report's details; ``num_splats`` is set in the block where the stage changes it."""
        details: dict[str, Any] = {}
        before, start = self.num_splats, time.perf_counter()
        yield details
        seconds = time.perf_counter() - start
        self.reports.append(StageReport(name, seconds, before, self.num_splats, details))
        log.info("%s done after %.1f s: %s splats", name, seconds, f"{self.num_splats:,}")
