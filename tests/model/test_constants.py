# SPDX-License-Identifier: Apache-2.0
"""Image formation has the same constants in Python and in what the kernels are compiled from."""

import re
from pathlib import Path

import numpy as np
import pytest

import potr
from potr.model import constants
from potr.render import cuda

NATIVE = Path(potr.__file__).parent / "native"
HEADER = (NATIVE / "splat_math.h").read_text()
NAMES = {
    "NEAR": "kNearPlane",
    "MARGIN": "kMargin",
    "DILATION": "kDilation",
    "ALPHA_MAX": "kAlphaMax",
    "ALPHA_MIN": "kAlphaMin",
}


def native(name: str) -> float:
    found = re.search(rf"constexpr float {name} = ([^;]+);", HEADER)
    assert found is not None, name
    numerator, _, denominator = found[1].replace("f", "").partition("/")
    return float(numerator) / float(denominator or 1)


@pytest.mark.parametrize("name", NAMES)
def test_python_and_kernels_agree(name: str) -> None:
    assert np.float32(getattr(constants, name)) == np.float32(native(NAMES[name]))


def test_the_logarithm_is_that_of_the_lowest_alpha() -> None:
    assert native("kLog2AlphaMin") == pytest.approx(np.log2(constants.ALPHA_MIN), rel=1e-7)


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("view.h", "kSlot", cuda.SLOT),
        ("view.h", "kGeometrySlot", cuda.GEOMETRY_SLOT),
        ("blend.h", "kBlend", cuda.BLEND_THREADS),
        ("gather.cu", "kSamplePlanes", cuda.SAMPLE_PLANES),
    ],
)
def test_the_host_of_the_kernels_knows_their_sizes(file: str, name: str, value: int) -> None:
    assert f"constexpr int {name} = {value};" in (NATIVE / "cuda" / file).read_text()
