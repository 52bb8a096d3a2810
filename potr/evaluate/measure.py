# SPDX-License-Identifier: Apache-2.0
"""How close a model's renders come to the photographs of the test views."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from potr.errors import ConfigError
from potr.evaluate.lpips import LpipsModel
from potr.evaluate.metrics import psnr, ssim
from potr.model.cameras import View
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import Rasterizer


@dataclass(frozen=True)
class ViewQuality:
    """One view's figures; an LPIPS that was not computed is None."""

    name: str
    psnr: float  # dB, at most metrics.PSNR_CAP
    ssim: float
    lpips: float | None  # input -1..1, as the lpips package defines it
    lpips_3dgs: float | None  # input 0..1, as 3DGS's published tables have it


@dataclass(frozen=True)
class QualityReport:
    """The views' figures and their means; every number is finite.

    Attributes:
        psnr, ssim: means over all views, PSNR in dB.
        lpips, lpips_3dgs: means over the ``lpips_views`` views they were computed on; None if not computed.
        lpips_views: how many views that is.
        lpips_network: "vgg" or "alex"; None if not computed.
        lpips_reason: why LPIPS is None; None where it is not.
        views: in the order given.
    """

    psnr: float
    ssim: float
    lpips: float | None
    lpips_3dgs: float | None
    lpips_views: int
    lpips_network: str | None
    lpips_reason: str | None
    views: tuple[ViewQuality, ...]


def evaluate(
    model: SplatModel,
    views: Sequence[View],
    rasterizer: Rasterizer,
    *,
    lpips: LpipsModel | None = None,
    lpips_views: int | None = None,
    lpips_reason: str = "not asked for",
    progress: Progress = silent,
) -> QualityReport:
    """Render every view on its own background and compare with its photograph, both rounded to 8 bits.

    Args:
        model: on the rasteriser's device.
        views: the test views.
        rasterizer: a backend.
        lpips: from ``potr.evaluate.lpips.load_lpips``; without it LPIPS is None.
        lpips_views: compute LPIPS on so many evenly spaced views only; all of them by default.
        lpips_reason: what the report says when ``lpips`` is None.
        progress: called with the number of views done, before each view and at the end.

    Raises:
        ConfigError: there are no views, or lpips_views < 1.
        SceneError: a photograph does not have its camera's size, or a render is not finite.
    """
    if not views:
        raise ConfigError("evaluate: expected at least one view, got none")
    chosen = evenly_spaced(len(views), lpips_views) if lpips else frozenset()
    results = []
    for index, view in enumerate(views):
        progress(index, len(views))
        photo = view.read()
        image = rasterizer.render(model, view.camera, view.background).to(photo.device)
        distances = lpips.distances(image, photo) if lpips and index in chosen else None
        results.append(
            ViewQuality(
                name=view.name,
                psnr=psnr(image, photo),
                ssim=ssim(image, photo),
                lpips=distances.signed if distances else None,
                lpips_3dgs=distances.unit if distances else None,
            )
        )
    progress(len(views), len(views))
    return QualityReport(
        psnr=statistics.fmean(view.psnr for view in results),
        ssim=statistics.fmean(view.ssim for view in results),
        lpips=_mean([view.lpips for view in results]),
        lpips_3dgs=_mean([view.lpips_3dgs for view in results]),
        lpips_views=len(chosen),
        lpips_network=lpips.network.value if lpips else None,
        lpips_reason=None if lpips else lpips_reason,
        views=tuple(results),
    )


def evenly_spaced(total: int, count: int | None) -> frozenset[int]:
    """``count`` of the indices 0..total-1, as evenly spread as they go, both ends included; all for None or more."""
    if count is None or count >= total:
        return frozenset(range(total))
    if count < 1:
        raise ConfigError(f"lpips_views: expected at least 1, got {count}")
    if count == 1:
        return frozenset({total // 2})
    return frozenset(round(step * (total - 1) / (count - 1)) for step in range(count))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
