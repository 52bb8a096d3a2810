# SPDX-License-Identifier: Apache-2.0
"""The whole encoder on one screen: prune, compact, prune, quantise, serialise."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potr.encoder import checkpoint as checkpoints
from potr.encoder.checkpoint import Progressed
from potr.encoder.compact import compact
from potr.encoder.config import CodecConfig
from potr.encoder.geometry_levels import choose_levels
from potr.encoder.placed_views import model_alone
from potr.encoder.prune import PruneState, absolute_target, final_cap, prune, stands, start
from potr.encoder.quality import config_for
from potr.encoder.quantize import check_levels_fit, quantize_colors, quantize_geometry, raise_scales
from potr.encoder.refit import COLOR_RELAXATION, refit
from potr.errors import ModelError, PotrError, SceneError
from potr.format.bitstream import pack_model
from potr.format.decode import dequantize
from potr.format.quantized import QuantizedModel
from potr.model.cameras import View
from potr.model.check import check_model
from potr.model.footprint import pixel_sizes
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import ColorStatistics, Rasterizer
from potr.render.select import select, signature

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageReport:
    """What a stage did. ``details`` is JSON-able (numbers, strings, lists, dicts)."""

    name: str
    seconds: float
    splats_before: int
    splats_after: int
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Encoded:
    """A bitstream and how it came about."""

    data: bytes
    stages: tuple[StageReport, ...]
    config: CodecConfig
    resumed: bool = False  # from a checkpoint

    def __repr__(self) -> str:
        splats = f"{self.stages[-1].splats_after:,} of {self.stages[0].splats_before:,} splats, " if self.stages else ""
        return f"Encoded({len(self.data):,} bytes, {splats}codec={self.config.name})"


def encode(
    model: SplatModel,
    views: Sequence[View] | None = None,
    *,
    quality: float = 0.5,
    config: CodecConfig | None = None,
    rasterizer: Rasterizer | None = None,
    checkpoint: Path | None = None,
    shared: Path | None = None,
    early: PruneState | None = None,
    progress: Progress = silent,
) -> Encoded:
    """Compress a model, judged by its training views.

    Args:
        model: the trained model.
        views: the training views, with photographs; each brings its background. Without them views are placed around
            the model, and its own renders stand in for photographs (encoder.placed_views, which adapts ``config`` too).
        quality: in (0, 1], larger is better; ignored where ``config`` is given.
        config: every parameter (encoder.quality.config_for makes one from a quality).
        rasterizer: a backend; the best available by default. The model goes to its device at once and leaves it when
            it is quantised.
        checkpoint: a file that an interrupted encode resumes from; written after every pruning pass with its refits and
            after compaction, removed at the end.
        shared: a folder in which the early pruning is kept for every other encode that prunes the same model alike,
            whatever it does afterwards.
        early: the finished early pruning, where it is done already (encoder.trajectory).
        progress: told of every view of every pass.

    Raises:
        ModelError: the model has NaN, infinite, zero-norm or absurd values; counts them.
        SceneError: there are no views, or none of them sees a splat.
        ConfigError: SH steps too fine for the model's coefficients.
    """
    _check_kind(model)
    model = model.detach()
    check_model(model)  # a model made in memory has not come through a file
    config = config or config_for(quality)
    check_levels_fit(model, config.quantize)
    rasterizer = rasterizer or select("auto")
    if views is None:
        alone = model_alone(model, rasterizer, progress=progress)
        model, views, config = alone.model, alone.views.train, alone.adapted(config)
    model = model.to(rasterizer.device)
    _check_in_sight(model, views)
    session = _Session(model, views, config, rasterizer, checkpoint, shared, progress)
    session.begin_after(early)

    early = session.prune("early", model)
    compacted = session.compact(early.survivors(model))
    late = session.prune("late", compacted)
    quantized = session.quantize(late.survivors(compacted))
    data = session.pack(quantized)

    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return Encoded(data, tuple(session.reports), config, session.resumed)


def _check_kind(model: object) -> None:
    """ModelError if it is no model: a scene is at hand, too, and holds one."""
    if not isinstance(model, SplatModel):
        raise ModelError(f"encode: expected a SplatModel, as in encode(scene.model, ...), got {type(model).__name__}")


def _check_in_sight(model: SplatModel, views: Sequence[View]) -> None:
    """SceneError if no view has a splat in its frustum."""
    if not views:
        raise SceneError("encode: expected training views, found none; without the argument, views are placed")
    sizes = pixel_sizes(model, [view.camera for view in views])
    if model.num_splats and not bool(torch.isfinite(sizes).any()):
        raise SceneError(f"encode: none of the {len(views)} views has any of the {model.num_splats} splats in sight")


class _Session:
    """The stages with what they share: views, backend, clock, checkpoint, reports."""

    def __init__(
        self, model: SplatModel, views: Sequence[View], config: CodecConfig, rasterizer: Rasterizer,
        checkpoint: Path | None, shared: Path | None, progress: Progress,
    ) -> None:  # fmt: skip
        self.views, self.config, self.rasterizer, self.progress = views, config, rasterizer, progress
        self.prune_config = absolute_target(config.prune, model.num_splats)  # both phases mean the input's splats
        self.checkpoint = checkpoint
        self.key = checkpoints.fingerprint(model, views, config, signature(rasterizer)) if checkpoint else ""
        self.done = checkpoints.load(checkpoint, self.key) if checkpoint else Progressed()
        self.resumed = self.done != Progressed()
        self.shared_key = (
            checkpoints.fingerprint(model, views, self.prune_config, signature(rasterizer)) if shared else ""
        )
        self.shared = shared / f"{self.shared_key}.npz" if shared else None
        if self.shared is not None and self.done.early is None:
            self.done = checkpoints.load(self.shared, self.shared_key)
        self.found_early = self.done.early is not None and not self.resumed
        if self.resumed:
            log.info("an interrupted encode is here: goes on %s", self._stands())
        elif self.found_early:
            log.info("early pruning: another run of this scene has done it")
        self.reports: list[StageReport] = []
        self.cap: float | None = None  # rise of the MSE that a splat is worth; known after the first pass

    def _stands(self) -> str:
        """Where the checkpoint leaves off, in words."""
        if self.done.late is not None:
            return stands(self.done.late, self.prune_config, "late")
        if self.done.sh is not None:
            return "after compaction"
        assert self.done.early is not None
        return stands(self.done.early, self.prune_config, "early")

    def begin_after(self, early: PruneState | None) -> None:
        """Leave the early pruning out, where it is given."""
        if early is not None and self.done.early is None:
            self.done = Progressed(early=early)

    def prune(self, phase: str, model: SplatModel) -> PruneState:
        begin = time.perf_counter() - self.done.seconds.get(phase, 0.0)

        def on_pass(state: PruneState) -> None:
            seconds = {**self.done.seconds, phase: time.perf_counter() - begin}
            self._advance(self.done.replace(**{phase: state}, seconds=seconds))

        first = getattr(self.done, phase) or start(model, self.prune_config, self.cap)
        state = prune(
            model, self.views, self.rasterizer, self.prune_config, phase,
            state=first, on_pass=on_pass, progress=self.progress,
        )  # fmt: skip
        self.cap = state.cap
        if phase == "early" and self.shared is not None and not self.found_early:
            self._share(Progressed(early=state, seconds={phase: time.perf_counter() - begin}))
        details = {"passes": [p.to_dict() for p in state.passes], "cap": state.cap}
        self._report(f"prune_{phase}", begin, model.num_splats, len(state.kept), details)
        return state

    def compact(self, model: SplatModel) -> SplatModel:
        begin = time.perf_counter() - self.done.seconds.get("compact", 0.0)
        if self.done.sh is None:
            model, statistics, mse_before = self._refitted(model, "compaction statistics")
            step = 1.0 / self.config.quantize.ac_multiplier
            cap = self._final_cap(mse_before, model.num_splats)
            with self._step("compaction"):
                model, report = compact(model, statistics, cap, step, self.config.compact)
            seconds = {**self.done.seconds, "compact": time.perf_counter() - begin}
            details = {**report.to_dict(), "mse_before": mse_before, "cap": cap}
            stored = model.sh.cpu() if self.checkpoint is not None else None
            self._advance(self.done.replace(sh=stored, compact_details=details, seconds=seconds))
        else:
            model = model.with_sh(self.done.sh.to(model.device))
        self.cap = self.done.compact_details["cap"]  # also where this session has not seen the stage
        self._close_phase("prune_early", self.done.compact_details["mse_before"])
        self._report("compact", begin, model.num_splats, model.num_splats, self.done.compact_details)
        return model

    def quantize(self, model: SplatModel) -> QuantizedModel:
        begin = time.perf_counter()
        config = self.config.quantize
        with self._step("quantisation of geometry"):
            pixel_size = pixel_sizes(model, [view.camera for view in self.views])
            quantized, order = quantize_geometry(model, config, pixel_size)
            order = order.to(model.device)
        model = model.select(order)
        if config.geometry_bit_cost > 0:
            quantized = self._choose_levels(quantized, raise_scales(model, pixel_size[order]))
        # The colours are refitted to the geometry as the decoder will have it, and make up for some of its errors.
        placed = dequantize(quantized).to(model.device).with_sh(model.sh)
        statistics: ColorStatistics | None
        placed, statistics, mse_before = self._refitted(placed, "quantisation statistics")
        self._close_phase("prune_late", mse_before)
        cap = self._final_cap(mse_before, model.num_splats)

        def refitted(sh: Tensor, share: float) -> tuple[Tensor, ColorStatistics]:
            nonlocal statistics
            statistics = None  # 7 GB for 10 M splats: gone before the next are made
            current, label = placed.with_sh(sh), "refit between groups of colours"
            statistics = self.rasterizer.color_statistics(current, self.views, progress=self._labelled(label))
            log.info("quantize: levels of a group of colours chosen, MSE %.4e", statistics.sse / statistics.samples)
            return refit(current, statistics, COLOR_RELAXATION, share).sh, statistics

        quantized = quantize_colors(quantized, placed.sh, config, statistics, cap, refitted=refitted)
        details = {"ac_zero_share": ac_zero_share(quantized), "mse_before": mse_before}
        self._report("quantize", begin, model.num_splats, quantized.num_splats, details)
        return quantized

    def _choose_levels(self, quantized: QuantizedModel, model: SplatModel) -> QuantizedModel:
        """Opacities, scales and rotations by rate and distortion; ``model`` is what was quantised, in its order."""
        progress = self._labelled("geometry statistics")
        found = self.rasterizer.geometry_statistics(model, self.views, progress=progress)
        cap = self._final_cap(found.sse / found.samples, model.num_splats)
        price = self.config.quantize.geometry_bit_cost * cap * found.samples
        with self._step("choice of geometry's levels"):
            chosen = choose_levels(quantized, model, found.hessian, found.gradient, price)
        log.info("quantize: levels of opacities, scales and rotations chosen")
        return chosen

    def pack(self, quantized: QuantizedModel) -> bytes:
        begin = time.perf_counter()
        with self._step("packing"):
            data = pack_model(quantized, self.config.quantize.zstd_level, self.config.quantize.entropy)
        n = quantized.num_splats
        self._report("pack", begin, n, n, {"bytes": len(data), "bits_per_splat": 8 * len(data) / max(n, 1)})
        return data

    def _refitted(self, model: SplatModel, stage: str) -> tuple[SplatModel, ColorStatistics, float]:
        """The model after its refit steps, the statistics that the last step was taken from, and the MSE before all."""
        steps, mse_before = self.config.compact.refit_steps, None
        statistics: ColorStatistics | None = None
        for step in range(max(1, steps)):
            statistics = None  # 7 GB for 10 M splats: gone before the next are made
            label = f"{stage}, step {step + 1}/{steps}" if steps > 1 else stage
            statistics = self.rasterizer.color_statistics(model, self.views, progress=self._labelled(label))
            if mse_before is None:
                mse_before = statistics.sse / statistics.samples
            if steps:
                model = refit(model, statistics)
        assert statistics is not None
        assert mse_before is not None
        return model, statistics, mse_before

    def _final_cap(self, mse: float, num_splats: int) -> float:
        """The pruning cap, also where no pass has run to set it."""
        if self.cap is None:
            self.cap = final_cap(self.config.prune, mse, num_splats)
        return self.cap

    def _labelled(self, stage: str) -> Progress:
        """Progress under a stage's own name."""
        return lambda _, done, total: self.progress(stage, done, total)

    @contextmanager
    def _step(self, stage: str) -> Iterator[None]:
        """Shows a stage that cannot tell how far it is."""
        self.progress(stage, 0, 1)
        yield
        self.progress(stage, 1, 1)

    def _advance(self, done: Progressed) -> None:
        self.done = done
        if self.checkpoint is not None:
            checkpoints.save(self.checkpoint, self.key, done)

    def _share(self, early: Progressed) -> None:
        assert self.shared is not None
        try:
            checkpoints.save(self.shared, self.shared_key, early)
        except PotrError as error:  # others will do it again, no more
            log.debug("not shared: %s", error)

    def _report(self, name: str, begin: float, before: int, after: int, details: dict[str, Any]) -> None:
        seconds = time.perf_counter() - begin
        self.reports.append(StageReport(name, seconds, before, after, details))
        came_to = f"{details['bytes']:,} bytes" if "bytes" in details else f"{after:,} splats"
        log.info("%s done after %.1f s: %s", name, seconds, came_to)

    def _close_phase(self, name: str, mse: float) -> None:
        """Enter the real change of a phase's last pass if only the next stage has measured it."""
        passes = next(report for report in self.reports if report.name == name).details["passes"]
        if passes and passes[-1]["real_mse_change"] is None:
            passes[-1]["real_mse_change"] = mse - passes[-1]["mse"]


def ac_zero_share(quantized: QuantizedModel) -> float:
    """Share of AC coefficients that are 0; 1 where there are none."""
    ac = quantized.sh[:, 1:]
    return float((ac == 0).mean()) if ac.size else 1.0
