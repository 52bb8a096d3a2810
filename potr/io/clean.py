# SPDX-License-Identifier: Apache-2.0
"""Values no training leaves behind on purpose: what they are, how many there are, and a model without them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from potr.errors import ModelError
from potr.splats import SplatModel

log = logging.getLogger(__name__)

# Limits of the plausible. Beyond them float32 projection overflows or a coordinate has lost its decimals.
MAX_MEAN = 1e6  # world units
MIN_LOG_SCALE, MAX_LOG_SCALE = -40.0, 20.0  # the squared scale stays a normal float32 number
MAX_OPACITY_LOGIT = 100.0  # the sigmoid is 0 or 1 long before
MAX_SH = 1e3  # a colour 1000 times white
MIN_QUAT, MAX_QUAT = 1e-10, 1e10  # largest component; beyond, the norm under- or overflows


@dataclass(frozen=True)
class CleanReport:
    """What was found wrong with a model's splats.

    Attributes:
        splats: in the model, before.
        removed: splats with at least one defect.
        counts: kind of defect to number of splats that have it; kinds that do not occur are left out. A splat can
            have several.
    """

    splats: int
    removed: int
    counts: Mapping[str, int]

    def __str__(self) -> str:
        if not self.removed:
            return f"all {self.splats} splats are sound"
        kinds = "; ".join(f"{count} with {kind}" for kind, count in self.counts.items())
        return f"{self.removed} of {self.splats} splats are unusable: {kinds}"


def clean_model(model: SplatModel) -> tuple[SplatModel, CleanReport]:
    """The model without its unusable splats, order kept, and the count of each kind of defect.

    Raises:
        ModelError: no splat is left.
    """
    bad, report = _inspect(model)
    if not report.removed:
        return model, report
    if report.removed == report.splats:
        raise ModelError(f"nothing is left after cleaning: {report}")
    log.warning("cleaned: %s", report)
    return model.select(~bad), report


def check_model(model: SplatModel) -> None:
    """Raise ModelError, with the count of each kind of defect, if the model has unusable splats."""
    _, report = _inspect(model)
    if report.removed:
        raise ModelError(f"{report} (clean=True removes them)")


def _inspect(model: SplatModel) -> tuple[Tensor, CleanReport]:
    """[N] bool, the splats with a defect, and the report."""
    defects = {kind: mask for kind, mask in _defects(model).items() if bool(mask.any())}
    bad = torch.zeros(model.num_splats, dtype=torch.bool, device=model.device)
    for mask in defects.values():
        bad |= mask
    counts = {kind: int(mask.sum()) for kind, mask in defects.items()}
    return bad, CleanReport(model.num_splats, int(bad.sum()), counts)


def _defects(model: SplatModel) -> dict[str, Tensor]:
    """[N] bool per kind of defect."""
    rows = {
        "means": model.means,
        "log-scales": model.log_scales,
        "quaternions": model.quats,
        "opacity": model.opacity_logits[:, None],
        "SH DC": model.sh_dc,
        "SH AC": model.sh_ac.flatten(1) if model.sh_degree else torch.zeros_like(model.sh_dc),
    }
    low, high = {}, {}
    for name, values in rows.items():
        low[name], high[name] = values.aminmax(dim=1)  # NaN propagates into both
    peak = {name: torch.maximum(-low[name], high[name]) for name in rows}  # [N] the largest magnitude
    any_peak = torch.stack(list(peak.values()))
    quat = peak["quaternions"]
    return {
        "NaN": any_peak.isnan().any(0),
        "infinite values": any_peak.isinf().any(0),
        "a zero-norm quaternion": quat < MIN_QUAT,
        f"a quaternion component beyond {MAX_QUAT:g}": _beyond(quat, MAX_QUAT),
        f"a mean beyond {MAX_MEAN:g}": _beyond(peak["means"], MAX_MEAN),
        f"a log-scale outside {MIN_LOG_SCALE:g}..{MAX_LOG_SCALE:g}": _beyond(-low["log-scales"], -MIN_LOG_SCALE)
        | _beyond(high["log-scales"], MAX_LOG_SCALE),
        f"an opacity logit beyond {MAX_OPACITY_LOGIT:g}": _beyond(peak["opacity"], MAX_OPACITY_LOGIT),
        f"an SH coefficient beyond {MAX_SH:g}": _beyond(torch.maximum(peak["SH DC"], peak["SH AC"]), MAX_SH),
    }


def _beyond(values: Tensor, limit: float) -> Tensor:
    """Finite and above the limit: infinite values are a kind of their own."""
    return (values > limit) & values.isfinite()
