# SPDX-License-Identifier: Apache-2.0
"""``codec=gsplat_png``: attributes as PNG images, in the layout of gsplat's PngCompression."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

import potr
from potr.cameras import View
from potr.errors import BitstreamError, ModelError
from potr.io.clean import MAX_MEAN, check_model
from potr.peers.base import PeerEncoded
from potr.peers.grid_sort import sort_to_grid
from potr.peers.palette import palette
from potr.peers.png_files import MAX_SIDE, Attribute, Palette, read_files, write_files
from potr.peers.ranges import SEED, Option, checked, checked_quality, defaults
from potr.peers.stages import Stages
from potr.progress import Progress, silent
from potr.rasterizer.base import Rasterizer
from potr.rotation import normalize_quats
from potr.splats import SplatModel

_OPTIONS = {
    "entries": Option(65536, 1, 65536),
    "sh_bits": Option(6, 1, 8),
    "sort": Option(True),
    "sort_decay": Option(0.9, 0.1, 0.99),
    "sort_repeats": Option(4, 1, 100),
    "steps": Option(10, 1, 1000),
    "seed": SEED,
}
_ROUNDING = 1e-5  # of a position by way of its logarithm in float32


class GsplatPng:
    """Splats sorted into a square; an image per attribute, 8 bits a channel (positions 16); a palette for SH AC.

    After gsplat 1.5.3's PngCompression, whose source was read for its file layout: positions x to sign(x) log(1 + |x|),
    16 bits in two images; normalised quaternions, log-scales, opacity logits and SH DC in 8 bits between the smallest
    and the largest value of each channel; SH AC as an index of 16 bits into 65,536 entries of 6 bits; the splats of
    lowest opacity dropped until the others fill a square; the files meta.json, *.png and shN.npz.

    Why not gsplat itself: its palette needs torchpq, whose import needs cupy and whose kernels are CUDA, and its sort
    needs PLAS, which no package registry has. Ours, so bytes and quality differ: the sort (``grid_sort``, after
    the published method), the palette (``palette``: two levels, squared instead of absolute distance), and one .zip
    file, without compression of its own, around the files.
    """

    name: ClassVar[str] = "gsplat_png"
    suffix: ClassVar[str] = ".zip"
    in_child_process: ClassVar[bool] = False
    quality_sets: ClassVar[str | None] = None
    options: ClassVar[Mapping[str, Any]] = defaults(_OPTIONS)

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.settings = self.check(options)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        return checked(cls.name, _OPTIONS, options)

    @property
    def version(self) -> str:
        return f"potr {potr.__version__}, after gsplat 1.5.3's PngCompression"

    def encode(
        self,
        model: SplatModel,
        views: Sequence[View],
        quality: float,
        rasterizer: Rasterizer,
        progress: Progress = silent,
    ) -> PeerEncoded:
        """Compress a model; the views are not looked at.

        Raises:
            ConfigError: quality is not in (0, 1].
            ModelError: the model has no splat, too many, or unusable values.
        """
        checked_quality(quality)
        if not model.num_splats:
            raise ModelError(f"codec={self.name}: expected at least one splat, got an empty model")
        check_model(model)
        stages = Stages(model.num_splats)
        with stages.stage("crop"):
            model = _square(model.detach().to("cpu"))
            stages.num_splats = model.num_splats
        with stages.stage("sort"):
            model = self._sorted(model, progress)
        with stages.stage("palette") as details:
            sh_ac = self._palette(model, progress)
            details["entries"] = 0 if sh_ac is None else len(sh_ac.entries)
        with stages.stage("pack") as details:
            data, sections = write_files(_attributes(model), sh_ac, self.settings["sh_bits"])
            details["bytes"] = len(data)
        return PeerEncoded(data, tuple(stages.reports), dict(self.settings), sections)

    def decode(self, data: bytes) -> SplatModel:
        """The model that the images hold; raises BitstreamError if they are damaged."""
        attributes, sh_ac = read_files(data)
        values = {name: torch.from_numpy(a.values).float() for name, a in attributes.items()}
        means = values["means"]
        n = len(means)
        rest = torch.empty(n, 0) if sh_ac is None else torch.from_numpy(sh_ac.entries[sh_ac.labels]).float()
        try:
            model = SplatModel(
                _world(means),
                values["scales"],
                _not_zero(values["quats"]),
                values["opacities"][:, 0],
                values["sh0"],
                rest.reshape(n, rest.shape[1] // 3, 3),
            )
            check_model(model)
        except ModelError as error:
            raise BitstreamError("meta.json", 0, f"what it makes of the images is not a model: {error}") from None
        return model

    def _sorted(self, model: SplatModel, progress: Progress) -> SplatModel:
        if not self.settings["sort"]:
            return model
        features = torch.cat([torch.from_numpy(a.values) for a in _attributes(model).values()], dim=1)
        order = sort_to_grid(
            features,
            seed=self.settings["seed"],
            decay=self.settings["sort_decay"],
            repeats=self.settings["sort_repeats"],
            progress=progress,
        )
        return model.select(order)

    def _palette(self, model: SplatModel, progress: Progress) -> Palette | None:
        if not model.sh_degree:
            return None
        vectors = model.sh_ac.flatten(1)
        options = {name: self.settings[name] for name in ("steps", "seed")}
        entries, labels = palette(vectors, self.settings["entries"], **options, progress=progress)
        return Palette(entries.numpy(), labels.numpy())


def _square(model: SplatModel) -> SplatModel:
    """The most opaque splats that fill a square, in their order."""
    side = math.isqrt(model.num_splats)
    if side > MAX_SIDE:
        raise ModelError(f"codec=gsplat_png: expected at most {MAX_SIDE}^2 splats, got {model.num_splats}")
    best = torch.argsort(model.opacity_logits, descending=True, stable=True)[: side * side]
    return model.select(best.sort().values)


def _attributes(model: SplatModel) -> dict[str, Attribute]:
    """What becomes an image, in gsplat's names: [N, C] float32."""
    model = replace(model, quats=normalize_quats(model.quats))
    columns: dict[str, tuple[Tensor, int]] = {
        "means": (model.means.sign() * model.means.abs().log1p(), 16),
        "scales": (model.log_scales, 8),
        "quats": (model.quats, 8),
        "opacities": (model.opacity_logits[:, None], 8),
        "sh0": (model.sh_dc, 8),
    }
    return {name: Attribute(values.numpy(), bits) for name, (values, bits) in columns.items()}


def _world(logarithms: Tensor) -> Tensor:
    """Positions; what float32 rounds to just above the largest that a model may have is that."""
    means = logarithms.sign() * logarithms.abs().expm1()
    return torch.where(means.abs() <= MAX_MEAN * (1 + _ROUNDING), means.clamp(-MAX_MEAN, MAX_MEAN), means)


def _not_zero(quats: Tensor) -> Tensor:
    """No rotation where 8 bits leave nothing of a quaternion."""
    return torch.where(quats.norm(dim=1, keepdim=True) < 1e-6, quats.new_tensor([1.0, 0.0, 0.0, 0.0]), quats)
