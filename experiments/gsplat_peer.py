# SPDX-License-Identifier: Apache-2.0
"""gsplat's rasteriser on a POTR model, to compare speeds with; it must render the same image before its time counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from potr.evaluate.metrics import psnr
from potr.evaluate.speed import frames_per_second
from potr.model.cameras import RGB, Camera
from potr.model.splats import SplatModel
from potr.render.base import Rasterizer

NEAR = 0.2  # world units, docs/conventions.md
# The two do not truncate a splat alike (3 sigma or where alpha falls below 1/255, alpha at most 0.99 or 0.999), so the
# images differ a little; a camera or SH convention got wrong would change everything.
PSNR_MIN = 38.0


class GsplatRasterizer:
    """Renders one model; what gsplat wants of it is computed beforehand, so that its time is the rasteriser's own.

    Args:
        model: on a CUDA device.
        packed: gsplat's option: whether to keep the visible splats only. Which is faster depends on the scene.
    """

    def __init__(self, model: SplatModel, packed: bool) -> None:
        from gsplat import rasterization

        self.name = f"gsplat, packed={packed}"
        self._rasterization, self._packed = rasterization, packed
        self._splats = {
            "means": model.means,
            "quats": torch.nn.functional.normalize(model.quats, dim=1),
            "scales": model.scales,
            "opacities": model.opacities,
            "colors": model.sh,
        }
        self._degree, self._cameras = model.sh_degree, dict[int, tuple[Camera, Tensor, Tensor]]()

    @torch.no_grad()
    def render(self, model: SplatModel, camera: Camera, background: RGB) -> Tensor:
        """[H, W, 3]; ``model`` is the one given at the start."""
        _, viewmats, intrinsics = self._cameras.setdefault(id(camera), (camera, *_matrices(camera, model.device)))
        image, _, _ = self._rasterization(
            **self._splats,
            viewmats=viewmats,
            Ks=intrinsics,
            width=camera.width,
            height=camera.height,
            near_plane=NEAR,
            sh_degree=self._degree,
            packed=self._packed,
            backgrounds=torch.tensor([background], device=model.device),
        )
        return image[0]


def compare(
    model: SplatModel, cameras: Sequence[Camera], background: RGB, rasterizer: Rasterizer, seconds: float
) -> dict[str, Any]:
    """gsplat's render in the same run: milliseconds of the faster of its two ways, or why there are none.

    Returns:
        ``ms`` (per view), ``way``, ``psnr`` (of its image against the rasteriser's, in dB) and ``version``; or
        ``reason``.
    """
    ours = rasterizer.render(model, cameras[0], background)
    found: list[dict[str, Any]] = []
    reasons: list[str] = []
    for packed in (False, True):
        try:
            import gsplat

            way = GsplatRasterizer(model, packed)
            same = psnr(way.render(model, cameras[0], background), ours)
            if same < PSNR_MIN:
                reasons.append(f"{way.name}, renders another image: {same:.1f} dB, expected {PSNR_MIN} dB at least")
                continue
            report = frames_per_second(model, cameras, background, way, seconds=seconds)
        except Exception as error:  # not installed, not built, no memory: its own errors are not listed anywhere
            reasons.append(f"gsplat: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}")
            continue
        version = str(getattr(gsplat, "__version__", "unknown"))
        found.append({"ms": 1e3 / report.fps, "way": way.name, "psnr": same, "version": version})
    return min(found, key=lambda figures: figures["ms"]) if found else {"reason": "; ".join(dict.fromkeys(reasons))}


def _matrices(camera: Camera, device: torch.device) -> tuple[Tensor, Tensor]:
    """[1, 4, 4] world to camera and [1, 3, 3] intrinsics."""
    intrinsics = torch.tensor([[camera.fx, 0.0, camera.cx], [0.0, camera.fy, camera.cy], [0.0, 0.0, 1.0]])
    return camera.viewmat[None].to(device), intrinsics[None].to(device)
