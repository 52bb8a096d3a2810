# SPDX-License-Identifier: Apache-2.0
"""A run that came to nothing, and its file: failure.json, which tables show as a hole with its reason."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from potr.errors import PotrError
from potr.files import write_atomic

FAILURE_FILE = "failure.json"
INTERRUPTED = "interrupted before it was measured; the same command goes on"


@dataclass(frozen=True)
class Failure:
    """One run without a result.

    Attributes:
        dataset, suite, quality, codec, settings, sweep: as in ``RunResult``.
        reason: one line.
        trace: the traceback, where it was a bug rather than a refusal.
        folder: where the run lies; not stored.
    """

    dataset: str
    suite: str | None
    quality: float | None
    codec: str
    settings: dict[str, Any]
    sweep: str | None
    reason: str
    trace: str | None = None
    folder: Path = field(default=Path("."), compare=False)


def write_failure(failure: Failure, folder: Path) -> None:
    """Write failure.json, replacing an earlier one."""
    stored = {name: value for name, value in asdict(failure).items() if name != "folder"}
    write_atomic(folder / FAILURE_FILE, (json.dumps(stored, indent=2, default=str) + "\n").encode(), overwrite=True)


def read_failure(folder: Path) -> Failure:
    """Read failure.json of a run folder.

    Raises:
        PotrError: there is none, or it cannot be read as one.
    """
    path = folder / FAILURE_FILE
    try:
        return Failure(**json.loads(path.read_text()), folder=folder)
    except OSError as error:
        raise PotrError(f"{path}: cannot read: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise PotrError(f"{path}: not a failed run: {error}") from None
