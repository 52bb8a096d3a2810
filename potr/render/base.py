# SPDX-License-Identifier: Apache-2.0
"""What a rasteriser backend answers: images, what each splat's removal costs, and how its colour is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from potr.model.cameras import RGB, Camera, View
from potr.model.splats import SplatModel
from potr.progress import Progress, silent


@dataclass(frozen=True, eq=False)
class RemovalCost:
    """What the removal of each splat alone would change, summed over views, pixels and colour channels (0..1 scale).

    Attributes:
        delta_sse: [N] float64, change of the squared error against the photographs (negative: removal helps).
        render_sse: [N] float64, squared change of the render itself, sum of PD^2; >= 0.
        contribution: [N] float64, sum over pixels of the blend weight T * alpha.
        peak: [N] float32, the largest blend weight at any pixel.
        pixels: [N] int64, pixels with a non-zero blend weight.
        sse: the squared error of the unmodified model against the photographs.
        samples: 3 x the number of pixels of all views; sse / samples is the MSE.
    """

    delta_sse: Tensor
    render_sse: Tensor
    contribution: Tensor
    peak: Tensor
    pixels: Tensor
    sse: float
    samples: int


@dataclass(frozen=True, eq=False)
class ColorStatistics:
    """How the image responds to each splat's SH coefficients, all other splats fixed (quadratic form, method.md 1).

    A change df [K] of one colour channel's coefficients changes the squared error of the image's channel by
    df^T A df + 2 df^T b, b the channel's gradient, with A = sum_v W_v Y(d_v) Y(d_v)^T and
    W_v = sum over pixels of (T * alpha)^2. A view in which the splat's colour is clamped at 0 in all three channels
    does not count.

    Attributes:
        hessian: [N, K(K+1)/2] float32, the lower triangle of A row by row: (0,0), (1,0), (1,1), (2,0), ...
        weight: [N] float64, sum over views of W_v.
        contribution: [N] float64, sum over views and pixels of T alpha; never below weight.
        gradient: [N, K, 3] float32, sum over views and pixels of T alpha (C - g) Y(d): half the derivative of the
            squared error by the coefficients. A view in which a channel is clamped at 0 adds nothing to it.
        seen_views: [N] int32, views with W_v > 0.
        sse: the squared error of the model against the photographs.
        samples: 3 x the number of pixels of all views.
    """

    hessian: Tensor
    weight: Tensor
    contribution: Tensor
    gradient: Tensor
    seen_views: Tensor
    sse: float
    samples: int


GEOMETRY_PARAMETERS = 10


@dataclass(frozen=True, eq=False)
class GeometryStatistics:
    """How the image responds to each splat's opacity, place and shape: a quadratic bound, to be minimised by itself.

    A splat has ten small changes x: the logarithm of its opacity; shifts of its centre along its three axes, in
    standard deviations; strains E of its axes M (rotation times scale), M -> M (I + E), in the order xx, yy, zz, xy,
    xz, yz. To first order the logarithm of alpha changes by y . x = x_0 + t . shift + t^T (E + n . shift I) t, with
    t = (J W M)^T Sigma'^-1 d, d the pixel minus the centre, n_i how much nearer, as a share of the depth, a shift along
    axis i brings the splat; the pixel by minus that times PD = T a (B - c), what removal would change. The
    squared error's change is at most the sum over splats of x^T A x + 2 x^T b, with

        A = sum over pixels of |PD|^2 / (T a) y y^T,   b = - sum over pixels of PD . (C - g) y,

    since sum_k T a_k <= 1 (a separable surrogate, De Pierro 1995). A pixel whose alpha is at its cap does not respond.

    Attributes:
        hessian: [N, 55] float32, the lower triangle of A row by row: (0,0), (1,0), (1,1), (2,0), ...
        gradient: [N, 10] float32, b: half the derivative of the squared error.
        sse: the squared error of the model against the photographs.
        samples: 3 x the number of pixels of all views.
    """

    hessian: Tensor
    gradient: Tensor
    sse: float
    samples: int


class Rasterizer(Protocol):
    """A backend. Images are [H, W, 3] float32 on the background, unclamped above 1.

    ``background=None`` takes each view's own. Results live on the model's device and do not depend on the number of
    threads. Statistics are sums over blocks of consecutive views (``render.blocks``): those of many views are, bit
    for bit, those of each block by itself, added in order. That is what lets processes share the views.

    ``device`` is where a model is best put before many questions: one that lies elsewhere is copied there and back.
    """

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    def render(self, model: SplatModel, camera: Camera, background: RGB) -> Tensor: ...

    def removal_cost(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> RemovalCost: ...

    def color_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> ColorStatistics: ...

    def geometry_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> GeometryStatistics: ...
