# SPDX-License-Identifier: Apache-2.0
"""The encoder's checkpoint: after every pruning pass, what an interrupted encode needs to go on from there."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potr.encoder.config import CodecConfig, PruneConfig
from potr.encoder.prune import PassReport, PruneState
from potr.files import write_atomic
from potr.model.cameras import View
from potr.model.splats import SplatModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progressed:
    """How far an encode has come.

    Attributes:
        early: state of the early passes, over the input model.
        sh: [M, K, 3] the early survivors' coefficients after compaction, once that is done.
        compact_details: the compaction's report.
        late: state of the late passes, over the early survivors.
        seconds: spent so far, by stage.
    """

    early: PruneState | None = None
    sh: Tensor | None = None
    compact_details: dict[str, Any] = field(default_factory=dict)
    late: PruneState | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def replace(self, **changes: Any) -> Progressed:
        """A copy with some fields changed."""
        return replace(self, **changes)


def fingerprint(model: SplatModel, views: Sequence[View], config: CodecConfig | PruneConfig, backend: str) -> str:
    """Hex digest of what decides the passes: model, cameras, photographs, backgrounds, parameters, backend."""
    digest = hashlib.sha256(repr((config, backend)).encode())
    for f in fields(model):
        digest.update(getattr(model, f.name).cpu().numpy().tobytes())
    for view in views:
        c = view.camera
        digest.update(repr((view.name, c.width, c.height, c.fx, c.fy, c.cx, c.cy, view.background)).encode())
        digest.update(view.photo_sha256().encode())
        digest.update(c.viewmat.numpy().tobytes())
    return digest.hexdigest()


def save(path: Path, key: str, progressed: Progressed) -> None:
    """Write the checkpoint in place of the last one, atomically."""
    state = {
        "key": key,
        "compact_details": progressed.compact_details,
        "seconds": progressed.seconds,
        "early": _passes(progressed.early),
        "late": _passes(progressed.late),
    }
    arrays: dict[str, Any] = {"state": np.frombuffer(json.dumps(state).encode(), np.uint8)}
    for name in ("early", "late"):
        phase: PruneState | None = getattr(progressed, name)
        if phase is not None:
            arrays[name] = phase.kept.cpu().numpy()
            arrays[f"{name}_before"] = phase.before.cpu().numpy()
            if phase.refitted is not None:
                arrays |= {
                    f"{name}_{f.name}": getattr(phase.refitted, f.name).cpu().numpy() for f in fields(SplatModel)
                }
    if progressed.sh is not None:
        arrays["sh"] = progressed.sh.cpu().numpy()
    write_atomic(path, lambda file: np.savez(file, **arrays), overwrite=True)


def load(path: Path, key: str) -> Progressed:
    """The progress stored at ``path``; none if there is no file, it is damaged, or it belongs to another encode."""
    if not path.exists():
        return Progressed()
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        state = json.loads(arrays["state"].tobytes())
        if state["key"] != key:
            log.warning("%s: checkpoint of another model, views or parameters; starting over", path)
            return Progressed()
        return Progressed(
            early=_state(state["early"], arrays, "early"),
            sh=torch.from_numpy(arrays["sh"]) if "sh" in arrays else None,
            compact_details=state["compact_details"],
            late=_state(state["late"], arrays, "late"),
            seconds=state["seconds"],
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("%s: unreadable checkpoint (%s); starting over", path, error)
        return Progressed()


def _passes(state: PruneState | None) -> dict[str, Any] | None:
    if state is None:
        return None
    return {
        "passes": [p.to_dict() for p in state.passes],
        "share_limit": state.share_limit,
        "cap": state.cap,
        "finished": state.finished,
    }


def _state(stored: dict[str, Any] | None, arrays: dict[str, Any], name: str) -> PruneState | None:
    if stored is None:
        return None
    reports = tuple(PassReport(**report) for report in stored["passes"])
    refitted = None
    if f"{name}_means" in arrays:
        refitted = SplatModel(**{f.name: torch.from_numpy(arrays[f"{name}_{f.name}"]) for f in fields(SplatModel)})
    return PruneState(
        torch.from_numpy(arrays[name]),
        torch.from_numpy(arrays[f"{name}_before"]),
        reports,
        stored["share_limit"],
        stored["cap"],
        stored["finished"],
        refitted,
    )
