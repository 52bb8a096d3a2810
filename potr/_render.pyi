# SPDX-License-Identifier: Apache-2.0
"""The native CPU rasteriser (potr/native/render/bindings.cpp); arrays are C-contiguous and on the CPU."""

from torch import Tensor

def supported_instruction_sets() -> list[str]: ...

class Camera:
    def __init__(
        self, viewmat: Tensor, fx: float, fy: float, cx: float, cy: float, width: int, height: int
    ) -> None: ...

class Model:
    def __init__(
        self,
        means: Tensor,
        log_scales: Tensor,
        quats: Tensor,
        opacity_logits: Tensor,
        sh_dc: Tensor,
        sh_ac: Tensor,
        threads: int,
    ) -> None: ...
    @property
    def num_splats(self) -> int: ...

class ColorSums:
    def __init__(
        self, hessian: Tensor, gradient: Tensor, weight: Tensor, contribution: Tensor, seen_views: Tensor
    ) -> None: ...

class Rasterizer:
    def __init__(self, instruction_set: str, threads: int, tape_bytes: int) -> None: ...
    def render(
        self, model: Model, camera: Camera, r: float, g: float, b: float, transmittance_min: float, image: Tensor
    ) -> None: ...
    def removal(
        self,
        model: Model,
        camera: Camera,
        r: float,
        g: float,
        b: float,
        transmittance_min: float,
        photo: Tensor,
        delta_sse: Tensor,
        render_sse: Tensor,
        contribution: Tensor,
        peak: Tensor,
        pixels: Tensor,
    ) -> float: ...
    def geometry(
        self,
        model: Model,
        camera: Camera,
        r: float,
        g: float,
        b: float,
        transmittance_min: float,
        photo: Tensor,
        hessian: Tensor,
        gradient: Tensor,
    ) -> float: ...
    def begin_color(self, model: Model) -> None: ...
    def color(
        self,
        model: Model,
        camera: Camera,
        r: float,
        g: float,
        b: float,
        transmittance_min: float,
        photo: Tensor,
        sums: ColorSums,
    ) -> float: ...
    def finish_color(self, model: Model, sums: ColorSums) -> None: ...
    @property
    def timings(self) -> dict[str, float]: ...
    @property
    def num_entries(self) -> int: ...
