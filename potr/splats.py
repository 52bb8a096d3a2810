# SPDX-License-Identifier: Apache-2.0
"""The splat model: what a 3DGS training leaves behind, before any activation."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from potr.errors import ModelError

SH_COEFFICIENTS = (1, 4, 9, 16)  # of one colour channel, for SH degree 0..3
UNCOMPRESSED_BYTES_PER_SPLAT = 248  # 62 float32 properties of the 3DGS .ply, the field's unit of comparison


@dataclass(frozen=True, eq=False)
class SplatModel:
    """N splats as structure of arrays; float32, one device, contiguous, before activation.

    Attributes:
        means: [N, 3] world units.
        log_scales: [N, 3] natural log of the standard deviations along the splat's own axes, in world units.
        quats: [N, 4] wxyz, the splat's axes to world; not necessarily normalised.
        opacity_logits: [N] before the sigmoid.
        sh_dc: [N, 3] degree-0 SH coefficient of R, G, B.
        sh_ac: [N, K-1, 3] the other SH coefficients, K in (1, 4, 9, 16).

    Raises:
        ModelError: a shape, dtype or device is wrong. Finiteness is checked at the file boundary (potr.io.ply).
    """

    means: Tensor
    log_scales: Tensor
    quats: Tensor
    opacity_logits: Tensor
    sh_dc: Tensor
    sh_ac: Tensor

    def __post_init__(self) -> None:
        n = self.means.shape[0] if self.means.ndim == 2 else -1
        rests = tuple(k - 1 for k in SH_COEFFICIENTS)
        rest = self.sh_ac.shape[1] if self.sh_ac.ndim == 3 else -1
        if rest not in rests:
            raise ModelError(f"sh_ac: expected shape [N, K-1, 3] with K-1 in {rests}, got {tuple(self.sh_ac.shape)}")
        expected = {
            "means": (n, 3),
            "log_scales": (n, 3),
            "quats": (n, 4),
            "opacity_logits": (n,),
            "sh_dc": (n, 3),
            "sh_ac": (n, rest, 3),
        }
        for name, shape in expected.items():
            tensor: Tensor = getattr(self, name)
            if tuple(tensor.shape) != shape:
                raise ModelError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")
            if tensor.dtype != torch.float32:
                raise ModelError(f"{name}: expected float32, got {tensor.dtype}")
            if tensor.device != self.means.device:
                raise ModelError(f"{name}: expected device {self.means.device}, got {tensor.device}")
            object.__setattr__(self, name, tensor.contiguous())

    @property
    def num_splats(self) -> int:
        return int(self.means.shape[0])

    @property
    def sh_degree(self) -> int:
        return SH_COEFFICIENTS.index(int(self.sh_ac.shape[1]) + 1)

    @property
    def sh(self) -> Tensor:
        """[N, K, 3] DC and AC together."""
        return torch.cat([self.sh_dc[:, None, :], self.sh_ac], dim=1)

    @property
    def scales(self) -> Tensor:
        """[N, 3] standard deviations in world units."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """[N] in (0, 1)."""
        return self.opacity_logits.sigmoid()

    @property
    def device(self) -> torch.device:
        return self.means.device

    def select(self, index: Tensor) -> SplatModel:
        """The splats of a boolean mask [N] or an index [M], in that order."""
        return SplatModel(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def detach(self) -> SplatModel:
        """The same values outside of autograd: a trainer's parameters are what a model is often made of."""
        return SplatModel(**{f.name: getattr(self, f.name).detach() for f in fields(self)})

    def to(self, device: torch.device | str) -> SplatModel:
        return SplatModel(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def with_sh(self, sh: Tensor) -> SplatModel:
        """The same geometry with other SH coefficients, [N, K, 3]."""
        return SplatModel(self.means, self.log_scales, self.quats, self.opacity_logits, sh[:, 0], sh[:, 1:])
