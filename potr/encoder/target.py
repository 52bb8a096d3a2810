# SPDX-License-Identifier: Apache-2.0
"""A size, a loss or a number of splats instead of a quality: the search for the quality that gives it.

Every trial is an encode. By way of ``resume`` all share the removal costs of the first pass, and an interrupted search
finds the trials that it has made.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from potr.encoder.config import CodecConfig
from potr.encoder.encode import Encoded, StageReport, encode
from potr.encoder.quality import config_for
from potr.encoder.resume import NO_RESUME, Resume
from potr.errors import ConfigError, SceneError, TargetError
from potr.evaluate.metrics import psnr
from potr.format.decode import decode
from potr.model.cameras import View
from potr.model.check import check_model
from potr.model.splats import SplatModel
from potr.progress import SILENT, Progress
from potr.render.base import Rasterizer
from potr.render.select import select, signature

log = logging.getLogger(__name__)

FIRST = 0.5  # quality of the first trial
LOWEST, HIGHEST = 0.01, 1.0  # qualities the search may try
MOST_TRIALS = 16
TOLERANCE = {"size_mb": 0.02, "psnr_drop": 0.02, "splats": 0.02}  # relative, dB, relative
# Typical rise of log(bytes), -drop and log(splats) with quality; only trials on one side of the target rely on it.
_SLOPE = {"size_mb": 1.5, "psnr_drop": 1.5, "splats": 1.1}
_STEEPEST = 8.0  # times the typical slope, and one over it: the limits of what two one-sided trials are trusted with
_NARROWEST = 1e-5  # of quality; what jumps within that has nothing in between


@dataclass(frozen=True)
class Target:
    """What a compressed model is to come to; exactly one of the three.

    Attributes:
        size_mb: the file's size in 10^6 bytes, met within 2 %.
        psnr_drop: loss in dB of the mean PSNR over the training views against the uncompressed model's, met within
            0.02 dB.
        splats: how many are kept, met within 2 %.

    Raises:
        ConfigError: none or several are given, or one is out of its range.
    """

    size_mb: float | None = None
    psnr_drop: float | None = None
    splats: int | None = None

    def __post_init__(self) -> None:
        given = [f"{name}={value:g}" for name, value in asdict(self).items() if value is not None]
        if len(given) != 1:
            names = ", ".join(TOLERANCE)
            raise ConfigError(f"target: expected one of {names}, got {' and '.join(given) if given else 'none'}")
        for name, low, high in (("size_mb", 1e-6, 1e6), ("psnr_drop", 0.0, 50.0), ("splats", 1, 2**31)):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise ConfigError(f"target.{name}: expected a number in [{low:g}, {high:g}], got {value}")
        if self.splats is not None and self.splats != int(self.splats):
            raise ConfigError(f"target.splats: expected a whole number, got {self.splats}")

    @property
    def name(self) -> str:
        """Which of the three it is."""
        return next(name for name, value in asdict(self).items() if value is not None)

    @property
    def value(self) -> float:
        """Of the one that is given."""
        return float(getattr(self, self.name))

    def __str__(self) -> str:
        return f"target.{self.name}={self.value:g}"

    def reached(self, trial: Trial) -> float:
        """What the trial came to, in the target's unit."""
        if self.name == "psnr_drop":
            assert trial.psnr_drop is not None, "a trial for a loss measures it"
            return trial.psnr_drop
        return trial.bytes / 1e6 if self.name == "size_mb" else float(trial.splats)

    def excess(self, trial: Trial) -> float:
        """By how much the trial is finer than the target, on a scale on which quality is nearly linear."""
        reached = self.reached(trial)
        if self.name == "psnr_drop":
            return self.value - reached
        return math.log(max(reached, 1e-9) / self.value)

    def met(self, trial: Trial) -> bool:
        """Whether the trial is within the tolerance."""
        scale = 1.0 if self.name == "psnr_drop" else self.value
        return abs(self.reached(trial) - self.value) <= TOLERANCE[self.name] * scale

    def describe(self, trial: Trial) -> str:
        """One phrase for logs and errors: what the trial came to."""
        reached = self.reached(trial)
        if self.name == "psnr_drop":
            return f"{reached:+.3f} dB lost"
        return f"{reached:.4g} MB" if self.name == "size_mb" else f"{reached:,.0f} splats"


@dataclass(frozen=True)
class Trial:
    """What one quality came to; ``psnr_drop`` (dB, on the training views) only where the target asks for it."""

    quality: float
    bytes: int
    splats: int
    psnr_drop: float | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without what was not measured."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def search(target: Target, attempt: Callable[[float], Trial]) -> tuple[Trial, ...]:
    """Trials until one meets the target; that is the last.

    Args:
        target: size, loss or splats.
        attempt: encodes at a quality. The file is taken to grow, and the loss to shrink, with quality.

    Raises:
        TargetError: no quality meets it; says what the closest is.
    """
    trials: list[Trial] = []
    while not trials or not target.met(trials[-1]):
        trials.append(attempt(next_quality(target, trials)))
    return tuple(trials)


def next_quality(target: Target, trials: Sequence[Trial]) -> float:
    """Which quality to try after trials that all missed: inverse interpolation, kept inside the bracket.

    Raises:
        TargetError: nothing is left to try.
    """
    if not trials:
        return FIRST
    points = sorted((trial.quality, target.excess(trial)) for trial in trials)
    low = max((q for q, excess in points if excess < 0), default=None)
    high = min((q for q, excess in points if excess >= 0), default=None)
    if low == HIGHEST:
        raise _missed(target, trials, f"quality={HIGHEST:g} is the finest there is")
    if high == LOWEST:
        raise _missed(target, trials, f"quality={LOWEST:g} is the coarsest that is tried")
    if len(trials) >= MOST_TRIALS or (low is not None and high is not None and high - low < _NARROWEST):
        raise _missed(target, trials, f"no quality in between was found in {len(trials)} trials")
    if low is None or high is None:
        guess = _extrapolated(points, _SLOPE[target.name])
        return min(HIGHEST, guess) if high is None else max(LOWEST, guess)
    if len(trials) >= 6 and len(trials) % 2 == 0:  # interpolation has had its chance; halving always ends
        return (low + high) / 2
    margin = 0.02 * (high - low)
    return min(max(_interpolated(points, low, high), low + margin), high - margin)


def _extrapolated(points: Sequence[tuple[float, float]], typical: float) -> float:
    """Along the slope of the two trials nearest to the target, a little too far, or the typical one."""
    (q, excess), *others = sorted(points, key=lambda point: abs(point[1]))
    slope = typical
    if others:
        slope = (excess - others[0][1]) / (q - others[0][0])
        slope = min(max(slope, typical / _STEEPEST), typical * _STEEPEST)
    step = -excess / slope
    return q + step * (1.05 if others else 1.0)


def _interpolated(points: Sequence[tuple[float, float]], low: float, high: float) -> float:
    """Quality at excess 0: by Lagrange's parabola through the bracket and the nearest other trial, or the secant."""
    excess_of = dict(points)
    a, b = excess_of[low], excess_of[high]
    secant = low - a * (high - low) / (b - a)
    others = [(abs(e), q, e) for q, e in points if q not in (low, high) and (e < a or e > b)]
    if not others:
        return secant
    _, q, c = min(others)
    parabola = low * b * c / ((a - b) * (a - c)) + high * a * c / ((b - a) * (b - c)) + q * a * b / ((c - a) * (c - b))
    return parabola if low < parabola < high else secant


def _missed(target: Target, trials: Sequence[Trial], why: str) -> TargetError:
    closest = min(trials, key=lambda trial: abs(target.excess(trial)))
    return TargetError(
        f"{target} cannot be met: {why}; the closest is {target.describe(closest)}, at quality={closest.quality:.6g}"
    )


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


@dataclass(frozen=True, eq=False)
class Attempt:
    """A trial with its bitstream and how that came about."""

    trial: Trial
    data: bytes
    stages: tuple[StageReport, ...]
    resumed: bool


def encode_to_target(
    model: SplatModel,
    views: Sequence[View],
    target: Target,
    *,
    config_at: Callable[[float], CodecConfig] = config_for,
    rasterizer: Rasterizer | None = None,
    resume: Resume = NO_RESUME,
    progress: Progress = SILENT,
) -> Targeted:
    """Compress a model to a size, a loss or a number of splats.

    A loss is judged on ``views``, the training views: an encoder must not see the test views. Test views lose more.

    Args:
        model: the trained model.
        views: the training views.
        target: what to come to.
        config_at: the codec's parameters at a quality.
        rasterizer: a backend; the best available by default.
        resume: where an interrupted search goes on from, and what other encodes of this model have found out.
        progress: called after each view of each pass, under the trial's number and quality.

    Raises:
        TargetError: no quality meets the target; says what comes closest.
        ConfigError: target and parameters contradict each other.
        ModelError, SceneError: as ``encode``.
    """
    check_model(model)
    if not views:
        raise SceneError("encode: expected training views, found none; pruning and compaction need them")
    _refuse_contradictions(target, config_at(FIRST), model.num_splats)
    rasterizer = rasterizer or select("auto")
    model = model.detach().to(rasterizer.device)
    before = None if target.psnr_drop is None else mean_psnr(model, views, rasterizer, progress)
    kept = resume.of(model, views, signature(rasterizer))
    done: list[Attempt] = []

    def attempt(quality: float) -> Trial:
        config, begin, number = config_at(quality), time.perf_counter(), len(done) + 1
        entry = kept.entry(Attempt, "trial", config, target)
        found = entry.load()
        if found is None:
            label = f"trial {number}, quality {quality:.4f}"
            named = Progress(lambda stage, *counts: progress.report(f"{label}: {stage}", *counts))
            encoded = encode(model, views, config=config, rasterizer=rasterizer, resume=resume, progress=named)
            drop = None
            if before is not None:
                drop = before - mean_psnr(decode(encoded.data).to(model.device), views, rasterizer, named)
            seconds, splats = time.perf_counter() - begin, encoded.stages[-1].splats_after
            trial = Trial(quality, len(encoded.data), splats, drop, seconds)
            found = entry.save(Attempt(trial, encoded.data, encoded.stages, encoded.resumed))
        done.append(found)
        trial = found.trial
        log.info(
            "trial %d: quality %.4f gives %s, %s bytes, %s splats (%s)",
            number, quality, target.describe(trial), f"{trial.bytes:,}", f"{trial.splats:,}", target,
        )  # fmt: skip
        return trial

    with kept:
        trials = search(target, attempt)
    best, quality = done[-1], trials[-1].quality
    encoded = Encoded(best.data, best.stages, config_at(quality), best.resumed)
    pair = None if before is None or best.trial.psnr_drop is None else (before, before - best.trial.psnr_drop)
    return Targeted(encoded, quality, target, trials, pair, kept.resumed or best.resumed)


def mean_psnr(model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, progress: Progress = SILENT) -> float:
    """Mean of the views' PSNR against their photographs, dB, both rounded to 8 bits (evaluate.metrics)."""
    total, report = 0.0, progress.stage("measure on training views")
    for index, view in enumerate(views):
        report(index, len(views))
        photo = view.read()
        total += psnr(rasterizer.render(model, view.camera, view.background).to(photo.device), photo)
    report(len(views), len(views))
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
