# SPDX-License-Identifier: Apache-2.0
"""The whole encoder on one screen: prune, compact, prune, quantise, pack."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from potr.encoder.compact import Compacted, compact
from potr.encoder.config import CodecConfig
from potr.encoder.placed_views import model_alone
from potr.encoder.prune import PruneState, early_schedule, late_schedule, prune
from potr.encoder.quality import config_for
from potr.encoder.quantize import check_levels_fit, quantize
from potr.encoder.resume import NO_RESUME, Resume
from potr.errors import ModelError, SceneError
from potr.format.bitstream import pack_model
from potr.model.cameras import View
from potr.model.check import check_model
from potr.model.footprint import any_in_sight, pixel_sizes
from potr.model.splats import SplatModel
from potr.progress import SILENT, Progress
from potr.render.base import Rasterizer, RemovalCost
from potr.render.select import select, signature

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageReport:
    """What a stage did. ``details`` is JSON-able (numbers, strings, lists, dicts).

    ``seconds`` are this process's; ``saved_seconds`` were spent before, on what was found and not made again.
    """

    name: str
    seconds: float
    splats_before: int
    splats_after: int
    details: dict[str, Any] = field(default_factory=dict)
    saved_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Encoded:
    """A bitstream and how it came about."""

    data: bytes
    stages: tuple[StageReport, ...]
    config: CodecConfig
    resumed: bool = False  # an interrupted encode went on

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
    resume: Resume = NO_RESUME,
    progress: Progress = SILENT,
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
        resume: where an interrupted encode goes on from, and what other encodes of this model have found out.
        progress: called after each view of each pass.

    Raises:
        ModelError: the model has NaN, infinite, zero-norm or absurd values; counts them.
        SceneError: there are no views, or none of them sees a splat.
        ConfigError: SH steps too fine for the model's coefficients.
    """
    if not isinstance(model, SplatModel):  # a scene is at hand, too, and holds one
        raise ModelError(f"encode: expected a SplatModel, as in encode(scene.model, ...), got {type(model).__name__}")
    model = model.detach()
    check_model(model)  # a model made in memory has not come through a file
    rasterizer = rasterizer or select("auto")
    asked = config or config_for(quality)
    check_levels_fit(model, asked.quantize)
    if views is None:
        alone = model_alone(model, rasterizer, progress=progress)
        model, views, asked = alone.model, alone.views.train, alone.adapted(asked)
    config = asked.for_splats(model.num_splats)
    model, cameras = model.to(rasterizer.device), [view.camera for view in views]
    if not views:
        raise SceneError("encode: expected training views, found none; without the argument, views are placed")
    if model.num_splats and not any_in_sight(model, cameras):
        raise SceneError(f"encode: none of the {len(views)} views has any of the {model.num_splats} splats in sight")

    kept, lap = resume.of(model, views, signature(rasterizer)), Stopwatch()
    costs = kept.entry(RemovalCost, "costs", lasting=True)
    pruning = kept.entry(PruneState, "early", config.prune, lasting=True)
    upstream = (config.prune, config.compact, config.quantize.ac_multiplier)
    compaction, trimming = kept.entry(Compacted, "compact", *upstream), kept.entry(PruneState, "late", *upstream)
    with kept:
        schedule = early_schedule(config.prune)
        pruned = prune(
            model, views, rasterizer, config.prune, schedule, state=pruning, costs=costs, progress=progress
        )  # fmt: skip
        before, model = model.num_splats, pruned.model
        details: dict[str, Any] = {"passes": [asdict(report) for report in pruned.passes], "cap": pruned.cap}
        saved = pruning.seconds + costs.seconds
        reports = [_done("prune_early", lap(), before, model.num_splats, details, saved)]

        compacted = compact(model, views, rasterizer, config, cap=pruned.cap, state=compaction, progress=progress)
        model = replace(model, sh_dc=compacted.sh_dc, sh_ac=compacted.sh_ac)
        details = {name: value for name, value in vars(compacted).items() if name not in ("sh_dc", "sh_ac")}
        reports += [_done("compact", lap(), model.num_splats, model.num_splats, details, compaction.seconds)]

        schedule = late_schedule(config.prune, compacted.cap)
        pruned = prune(model, views, rasterizer, config.prune, schedule, state=trimming, progress=progress)
        before, model = model.num_splats, pruned.model
        details = {"passes": [asdict(report) for report in pruned.passes], "cap": pruned.cap}
        reports += [_done("prune_late", lap(), before, model.num_splats, details, trimming.seconds)]

        cap, sizes = pruned.cap or compacted.cap, pixel_sizes(model, cameras)
        quantized = quantize(model, views, rasterizer, config, cap=cap, pixel_size=sizes, progress=progress)
        details = {"ac_zero_share": quantized.ac_zero_share, "mse_before": quantized.mse_before}
        n, integers = model.num_splats, quantized.model
        reports += [_done("quantize", lap(), n, n, details)]

        with progress.step("packing"):
            data = pack_model(integers, config.quantize.zstd_level, config.quantize.entropy)
        details = {"bytes": len(data), "bits_per_splat": 8 * len(data) / max(n, 1)}
        reports += [_done("pack", lap(), n, n, details)]
    return Encoded(data, tuple(reports), asked, kept.resumed)


def _done(
    name: str, seconds: float, before: int, after: int, details: dict[str, Any], saved_seconds: float = 0.0
) -> StageReport:
    """The report of a stage, which is also a line of the log."""
    came_to = f"{details['bytes']:,} bytes" if "bytes" in details else f"{after:,} splats"
    log.info("%s done after %.1f s: %s", name, seconds, came_to)
    return StageReport(name, seconds, before, after, details, saved_seconds)


class Stopwatch:
    """Called, it gives the seconds since the call before, or since it was made."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()

    def __call__(self) -> float:
        begin, self._begin = self._begin, time.perf_counter()
        return self._begin - begin
