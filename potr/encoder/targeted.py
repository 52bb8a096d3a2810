# SPDX-License-Identifier: Apache-2.0
"""Encoding to a target: a search over quality in which every trial goes on from what earlier ones have computed.

All trials share the removal costs and the passes of the early pruning (encoder.trajectory). What follows the early
pruning (refit, compaction, late passes, rounding) sees another model in every trial and is computed for each.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from potr.encoder import checkpoint as checkpoints
from potr.encoder.config import CodecConfig
from potr.encoder.encode import Encoded, encode
from potr.encoder.quality import config_for
from potr.encoder.search_file import Best, Stored, load, save
from potr.encoder.target import FIRST, Target, Trial, search
from potr.encoder.trajectory import Trajectory
from potr.errors import ConfigError, SceneError, TargetError
from potr.evaluate.metrics import psnr
from potr.format.decode import decode
from potr.model.cameras import View
from potr.model.check import check_model
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import Rasterizer
from potr.render.select import select, signature

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Targeted:
    """A bitstream that meets a target, and how it was found.

    Attributes:
        encoded: the bitstream and its stages.
        quality: that gave it.
        target: what was asked for.
        trials: in order; the last is the one.
        train_psnr: mean PSNR over the training views before and after, dB; None unless the target is a loss.
        resumed: whether the search went on from an interrupted one.
    """

    encoded: Encoded
    quality: float
    target: Target
    trials: tuple[Trial, ...]
    train_psnr: tuple[float, float] | None
    resumed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: what was asked for, what was reached, and the trials."""
        report: dict[str, Any] = {"asked": {self.target.name: getattr(self.target, self.target.name)}}
        report["reached"] = self.target.reached(self.trials[-1])
        if self.train_psnr is not None:
            report["train_psnr_before"], report["train_psnr_after"] = self.train_psnr
        return {**report, "trials": [trial.to_dict() for trial in self.trials]}


def encode_to_target(
    model: SplatModel,
    views: Sequence[View],
    target: Target,
    *,
    config_at: Callable[[float], CodecConfig] = config_for,
    rasterizer: Rasterizer | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Targeted:
    """Compress a model to a size, a loss or a number of splats.

    A loss is judged on ``views``, the training views: an encoder must not see the test views. Test views lose more.

    Args:
        model: the trained model.
        views: the training views.
        target: what to come to.
        config_at: the codec's parameters at a quality.
        rasterizer: a backend; the best available by default.
        checkpoint: a file that an interrupted search goes on from (and one beside it, ``.trial``); removed at the end.
        progress: told of every view of every pass, under the trial's number and quality.

    Raises:
        TargetError: no quality meets the target; says what comes closest.
        ConfigError: target and parameters contradict each other.
        ModelError, SceneError: as ``encode``.
    """
    model = model.detach()
    check_model(model)
    if not views:
        raise SceneError("encode: expected training views, found none; pruning and compaction need them")
    _refuse_contradictions(target, config_at(FIRST), model.num_splats)
    rasterizer = rasterizer or select("auto")
    model = model.to(rasterizer.device)
    attempts = _Attempts(model, views, target, config_at, rasterizer, checkpoint, progress)
    try:
        return attempts.finished(search(target, attempts))
    except TargetError:
        attempts.clear()
        raise


class _Attempts:
    """Encodes at a quality, for the search; keeps what trials share and the best of them."""

    def __init__(
        self, model: SplatModel, views: Sequence[View], target: Target, config_at: Callable[[float], CodecConfig],
        rasterizer: Rasterizer, checkpoint: Path | None, progress: Progress,
    ) -> None:  # fmt: skip
        self.model, self.views, self.target, self.config_at = model, views, target, config_at
        self.rasterizer, self.checkpoint, self.progress = rasterizer, checkpoint, progress
        self.key = ""
        stored = Stored()
        if checkpoint is not None:
            said = f"{signature(rasterizer)} {target}"
            self.key = checkpoints.fingerprint(model, views, config_at(FIRST), said)
            stored = load(checkpoint, self.key)
        self.resumed = stored != Stored()
        self.known = {trial.quality: trial for trial in stored.trials}
        self.best = stored.best
        self.psnr_before = stored.psnr_before
        self.trajectory = Trajectory(model, views, rasterizer, stored.rungs, self._save)
        self.count = 0

    def __call__(self, quality: float) -> Trial:
        self.count += 1
        if quality not in self.known:
            begin = time.perf_counter()
            encoded = self._encode(quality)
            trial = Trial(quality, len(encoded.data), encoded.stages[-1].splats_after)
            if self.target.name == "psnr_drop":
                trial = replace(trial, psnr_drop=self._drop(encoded))
            trial = replace(trial, seconds=time.perf_counter() - begin)
            self.known[quality] = trial
            if self.best is None or self._distance(quality) <= self._distance(self.best.quality):
                self.best = Best(quality, encoded.data, encoded.stages, encoded.resumed)
            self._save()
            if self.checkpoint is not None:
                _trial_file(self.checkpoint).unlink(missing_ok=True)
        trial = self.known[quality]
        log.info(
            "trial %d: quality %.4f gives %s, %s bytes, %s splats (%s)",
            self.count, quality, self.target.told(trial), f"{trial.bytes:,}", f"{trial.splats:,}", self.target,
        )  # fmt: skip
        return trial

    def finished(self, trials: tuple[Trial, ...]) -> Targeted:
        """The trial that met the target, and the files of the search gone."""
        assert self.best is not None
        best = self.best
        assert best.quality == trials[-1].quality, "what meets the target is nearest to it"
        encoded = Encoded(best.data, best.stages, self.config_at(best.quality), best.resumed)
        pair = None
        if trials[-1].psnr_drop is not None:
            assert self.psnr_before is not None
            pair = self.psnr_before, self.psnr_before - trials[-1].psnr_drop
        self.clear()
        return Targeted(encoded, best.quality, self.target, trials, pair, self.resumed or encoded.resumed)

    def clear(self) -> None:
        """The search's file is done with."""
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)

    def _encode(self, quality: float) -> Encoded:
        config = self.config_at(quality)

        def progress(stage: str, done: int, total: int, /) -> None:
            self.progress(f"trial {self.count}, quality {quality:.4f}: {stage}", done, total)

        begin = time.perf_counter()
        early = self.trajectory.prune(config.prune, progress)
        seconds = time.perf_counter() - begin
        encoded = encode(
            self.model, self.views, config=config, rasterizer=self.rasterizer, early=early, progress=progress,
            checkpoint=None if self.checkpoint is None else _trial_file(self.checkpoint),
        )  # fmt: skip
        first, *others = encoded.stages
        return replace(encoded, stages=(replace(first, seconds=first.seconds + seconds), *others))

    def _drop(self, encoded: Encoded) -> float:
        if self.psnr_before is None:
            self.psnr_before = mean_psnr(self.model, self.views, self.rasterizer, self.progress)
        decoded = decode(encoded.data).to(self.model.device)
        return self.psnr_before - mean_psnr(decoded, self.views, self.rasterizer, self.progress)

    def _distance(self, quality: float) -> float:
        return abs(self.target.reached(self.known[quality]) - self.target.value)

    def _save(self) -> None:
        if self.checkpoint is not None:
            trials = tuple(self.known.values())
            save(self.checkpoint, self.key, Stored(trials, tuple(self.trajectory.rungs), self.psnr_before, self.best))


def mean_psnr(model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, progress: Progress = silent) -> float:
    """Mean of the views' PSNR against their photographs, dB, both rounded to 8 bits (evaluate.metrics)."""
    total = 0.0
    for index, view in enumerate(views):
        progress("measure on training views", index, len(views))
        photo = view.read()
        total += psnr(rasterizer.render(model, view.camera, view.background).to(photo.device), photo)
    progress("measure on training views", len(views), len(views))
    return total / len(views)


def _refuse_contradictions(target: Target, config: CodecConfig, num_splats: int) -> None:
    if target.splats is None:
        return
    if target.splats > num_splats:
        raise TargetError(f"{target} cannot be met: the model has {num_splats} splats, which is the closest")
    for name in ("target_splats", "target_share"):
        value = getattr(config.prune, name)
        if value is not None:
            raise ConfigError(f"{target} and prune.{name}={value:g} contradict each other: give one of the two")


def _trial_file(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + ".trial")
