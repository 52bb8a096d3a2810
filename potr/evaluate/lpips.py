# SPDX-License-Identifier: Apache-2.0
"""LPIPS (Zhang et al. 2018), version 0.1, with the ``lpips`` package's calibrated heads.

The forward pass is written out here: the package itself imports torchvision, which does not load beside every build of
torch. The tests hold it against the package's own. Only the package's weight files are read, it is not imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from potr.errors import SceneError
from potr.evaluate.metrics import to_8bit
from potr.evaluate.weights import CONVOLUTIONS, Network, WeightsUnavailable, backbone_state

SHIFT = (-0.030, -0.088, -0.188)  # ImageNet's mean and deviation, for images in -1..1
SCALE = (0.458, 0.448, 0.450)
EPSILON = 1e-10
MIN_SIDE = {Network.VGG: 16, Network.ALEX: 31}  # pixels; smaller images vanish in the pooling


@dataclass(frozen=True)
class _Layer:
    """A convolution with ReLU: max pooling in front of it (window, stride), and whether LPIPS compares its output."""

    stride: int = 1
    padding: int = 1
    pool: tuple[int, int] | None = None
    compared: bool = False


_VGG_BLOCK = (_Layer(pool=(2, 2)), _Layer(), _Layer(compared=True))
_LAYERS = {
    Network.VGG: (
        *(_Layer(), _Layer(compared=True)),
        *(_Layer(pool=(2, 2)), _Layer(compared=True)),
        *(_VGG_BLOCK * 3),
    ),
    Network.ALEX: (
        _Layer(stride=4, padding=2, compared=True),
        _Layer(padding=2, pool=(3, 2), compared=True),
        _Layer(pool=(3, 2), compared=True),
        _Layer(compared=True),
        _Layer(compared=True),
    ),
}


@dataclass(frozen=True)
class LpipsDistances:
    """One pair's LPIPS under the two input ranges in use.

    Attributes:
        signed: images in -1..1, which the network was calibrated for; what the lpips package documents.
        unit: images in 0..1, as 3DGS's evaluation feeds them, and so nearly every table of the field. Never compare
            the two with each other.
    """

    signed: float
    unit: float


@dataclass(frozen=True, eq=False)
class LpipsModel:
    """Backbone and heads on one device; make one with ``load_lpips``.

    Attributes:
        network: the backbone.
        convolutions: (weight [out, in, h, w], bias [out]) of each, float32.
        heads: [C] weight of each channel, for each compared layer.
    """

    network: Network
    convolutions: tuple[tuple[Tensor, Tensor], ...]
    heads: tuple[Tensor, ...]

    def distances(self, image: Tensor, reference: Tensor) -> LpipsDistances:
        """LPIPS of two images, [H, W, 3] float32 in 0..1, after ``to_8bit``; SceneError if they do not fit."""
        if image.shape != reference.shape or min(image.shape[:2]) < MIN_SIDE[self.network]:
            raise SceneError(
                f"LPIPS ({self.network.value}): expected two images of one shape, at least {MIN_SIDE[self.network]} "
                f"pixels a side, got {tuple(image.shape)} and {tuple(reference.shape)}"
            )
        device = self.heads[0].device
        pair = torch.stack([to_8bit(image.to(device)), to_8bit(reference.to(device))])
        unit = pair.permute(0, 3, 1, 2).float() / 255.0
        return LpipsDistances(signed=self.distance(2.0 * unit - 1.0), unit=self.distance(unit))

    @torch.no_grad()
    def distance(self, pair: Tensor) -> float:
        """LPIPS of [2, 3, H, W] as it is: no rounding, no change of range."""
        total = 0.0
        for features, head in zip(self._features(pair), self.heads, strict=True):
            norm = features.square().sum(dim=1, keepdim=True).sqrt() + EPSILON
            difference = features[0] / norm[0] - features[1] / norm[1]
            total += float((difference.square() * head[:, None, None]).sum(dim=0).mean())
        return total

    def _features(self, pair: Tensor) -> Iterator[Tensor]:
        """What each compared layer sees, [2, C, h, w]; one at a time, the first of VGG's is 64 x the image."""
        shift, scale = (pair.new_tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        hidden = (pair - shift) / scale
        for layer, (weight, bias) in zip(_LAYERS[self.network], self.convolutions, strict=True):
            if layer.pool:
                hidden = F.max_pool2d(hidden, *layer.pool)
            hidden = F.conv2d(hidden, weight, bias, stride=layer.stride, padding=layer.padding).relu_()
            if layer.compared:
                yield hidden


def load_lpips(network: Network = Network.VGG, device: torch.device | str = "cpu") -> LpipsModel:
    """LPIPS with the weights that are on this machine; nothing is downloaded.

    Raises:
        WeightsUnavailable: the backbone's weights or the lpips package are missing; the message says how to get them.
    """
    return model_from_state(network, backbone_state(network), _head_state(network), device)


def model_from_state(
    network: Network, backbone: dict[str, Tensor], heads: dict[str, Tensor], device: torch.device | str = "cpu"
) -> LpipsModel:
    """LPIPS from torchvision's names for the backbone and the lpips package's for the heads."""
    return LpipsModel(
        network=network,
        convolutions=tuple(
            (backbone[f"features.{n}.weight"].to(device), backbone[f"features.{n}.bias"].to(device))
            for n in CONVOLUTIONS[network]
        ),
        heads=tuple(heads[f"lin{n}.model.1.weight"].flatten().to(device) for n in range(5)),
    )


def _head_state(network: Network) -> dict[str, Tensor]:
    package = importlib.util.find_spec("lpips")  # finds it without importing it
    if package is None or package.origin is None:
        raise WeightsUnavailable("the lpips package, which has LPIPS's calibrated heads, is not installed")
    path = Path(package.origin).parent / "weights" / "v0.1" / f"{network.value}.pth"
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsUnavailable(f"{path}: LPIPS's calibrated heads cannot be read ({error})") from error
    return state
