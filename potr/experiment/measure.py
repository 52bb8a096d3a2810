# SPDX-License-Identifier: Apache-2.0
"""A model measured on the test views: quality, and speed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from potr.evaluate.lpips import LpipsModel, load_lpips
from potr.evaluate.measure import evaluate
from potr.evaluate.speed import frames_per_second
from potr.evaluate.weights import Network, WeightsUnavailable
from potr.experiment.result import Measured
from potr.experiment.schema import EvaluateConfig
from potr.model.cameras import RGB, View
from potr.model.splats import SplatModel
from potr.progress import Progress
from potr.render.base import Rasterizer

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Judge:
    """Everything a measurement depends on beside the model; the same before and after."""

    views: Sequence[View]
    background: RGB
    rasterizer: Rasterizer
    settings: EvaluateConfig
    lpips: LpipsModel | None
    lpips_reason: str | None  # why there is no LPIPS

    def quality(self, model: SplatModel, progress: Progress) -> Measured:
        """Quality of a model, speed left out.

        Args:
            model: on the rasteriser's device.
            progress: called after each view.
        """
        if not self.views:
            return Measured(None, None, None, None, None, None)
        report = evaluate(
            model,
            self.views,
            self.rasterizer,
            lpips=self.lpips,
            lpips_views=self.settings.lpips_views,
            progress=progress,
        )
        figures = (report.psnr, report.ssim, report.lpips, report.lpips_3dgs)
        return Measured(*figures, fps=None, slowest_fps=None, views=tuple(asdict(view) for view in report.views))

    def speed(self, model: SplatModel, measured: Measured) -> Measured:
        """``measured`` with the frames per second that the model renders at now."""
        if not self.views or self.settings.fps_seconds == 0:
            return measured
        cameras, seconds = [view.camera for view in self.views], self.settings.fps_seconds
        report = frames_per_second(model, cameras, self.background, self.rasterizer, seconds=seconds)
        return replace(measured, fps=report.fps, slowest_fps=report.slowest_fps)

    def reasons(self) -> dict[str, str]:
        """Why a figure is None, without the "before." or "after." in front."""
        if not self.views:
            return dict.fromkeys(
                ("psnr", "ssim", "lpips", "lpips_3dgs", "fps", "slowest_fps"), "the scene has no test views"
            )
        found = {}
        if self.lpips is None:
            why = self.lpips_reason or "not asked for"
            found = dict.fromkeys(("lpips", "lpips_3dgs", "views.*.lpips", "views.*.lpips_3dgs"), why)
        elif self.settings.lpips_views is not None:
            why = f"computed on {self.settings.lpips_views} views only"
            found = dict.fromkeys(("views.*.lpips", "views.*.lpips_3dgs"), why)
        if self.settings.fps_seconds == 0:
            found |= dict.fromkeys(("fps", "slowest_fps"), "evaluate.fps_seconds is 0")
        return found

    def depends_on(self) -> tuple[object, ...]:
        """What a measurement depends on beside model, views, backend and code."""
        return self.settings.lpips, self.settings.lpips_views, self.lpips is not None


def judge(views: Sequence[View], background: RGB, rasterizer: Rasterizer, settings: EvaluateConfig) -> Judge:
    """Load what the settings ask for; LPIPS weights that are missing leave LPIPS out and say why."""
    lpips, reason = None, "evaluate.lpips is none"
    if settings.lpips != "none":
        try:
            lpips = load_lpips(Network(settings.lpips))
        except WeightsUnavailable as error:
            reason = str(error)
            log.warning("no LPIPS: %s", reason)
    return Judge(views, background, rasterizer, settings, lpips, None if lpips else reason)
