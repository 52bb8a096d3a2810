# SPDX-License-Identifier: Apache-2.0
"""The kernels of potr/native/cuda as their sources name them."""

import re
from pathlib import Path

_LAUNCH_BOUNDS = re.compile(r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)")
_KERNEL = re.compile(r"__global__\s+void\s+(\w+)\s*\(")


def kernels_of(path: Path) -> list[str]:
    """Names of the __global__ functions of a .cu file, in order."""
    return _KERNEL.findall(_LAUNCH_BOUNDS.sub("", path.read_text()))
