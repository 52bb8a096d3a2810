# SPDX-License-Identifier: Apache-2.0
"""The file of a search for a target: its trials, the pruning they share and the best bitstream so far."""

from __future__ import annotations

import dataclasses
import json
import logging
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potr.encoder.encode import StageReport
from potr.encoder.prune import PassReport
from potr.encoder.target import Trial
from potr.encoder.trajectory import Rung
from potr.files import write_atomic
from potr.model.splats import SplatModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Best:
    """A trial's quality and bitstream, and how it came about."""

    quality: float
    data: bytes
    stages: tuple[StageReport, ...]
    resumed: bool


@dataclass(frozen=True)
class Stored:
    """How far a search has come.

    Attributes:
        trials: done.
        rungs: of the pruning.
        psnr_before: of the uncompressed model on the training views, once measured.
        best: the trial nearest to the target.
    """

    trials: tuple[Trial, ...] = ()
    rungs: tuple[Rung, ...] = ()
    psnr_before: float | None = None
    best: Best | None = None


def save(path: Path, key: str, stored: Stored) -> None:
    """Write the file in place of the last one, atomically."""
    state: dict[str, Any] = {
        "key": key,
        "trials": [trial.to_dict() for trial in stored.trials],
        "psnr_before": stored.psnr_before,
        "rungs": [
            {"start": r.start, "cap": r.cap, "share_limit": r.share_limit, "passes": [p.to_dict() for p in r.passes]}
            for r in stored.rungs
        ],
        "best": None,
    }
    arrays: dict[str, Any] = {f"mask_{index}": rung.mask for index, rung in enumerate(stored.rungs)}
    for index, rung in enumerate(stored.rungs):
        if rung.refitted is not None:
            arrays |= {f"{f.name}_{index}": getattr(rung.refitted, f.name).numpy() for f in fields(SplatModel)}
    if stored.best is not None:
        best = stored.best
        stages = [dataclasses.asdict(stage) for stage in best.stages]
        state["best"] = {"quality": best.quality, "stages": stages, "resumed": best.resumed}
        arrays["data"] = np.frombuffer(best.data, np.uint8)
    arrays["state"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    write_atomic(path, lambda file: np.savez(file, **arrays), overwrite=True)


def load(path: Path, key: str) -> Stored:
    """What is stored at ``path``; nothing if there is no file, it is damaged, or it belongs to another search."""
    if not path.exists():
        return Stored()
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        state = json.loads(arrays["state"].tobytes())
        if state["key"] != key:
            log.warning("%s: of another model, views, parameters or target; starting over", path)
            return Stored()
        return Stored(
            trials=tuple(Trial(**trial) for trial in state["trials"]),
            rungs=tuple(_rung(rung, arrays, index) for index, rung in enumerate(state["rungs"])),
            psnr_before=state["psnr_before"],
            best=None if state["best"] is None else _best(state["best"], arrays["data"].tobytes()),
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("%s: unreadable (%s); starting over", path, error)
        return Stored()


def _rung(stored: dict[str, Any], arrays: dict[str, Any], index: int) -> Rung:
    passes = tuple(PassReport(**report) for report in stored["passes"])
    refitted = None
    if f"means_{index}" in arrays:
        refitted = SplatModel(**{f.name: torch.from_numpy(arrays[f"{f.name}_{index}"]) for f in fields(SplatModel)})
    return Rung(stored["start"], stored["cap"], arrays[f"mask_{index}"], stored["share_limit"], passes, refitted)


def _best(stored: dict[str, Any], data: bytes) -> Best:
    stages = tuple(StageReport(**stage) for stage in stored["stages"])
    return Best(stored["quality"], data, stages, stored["resumed"])
