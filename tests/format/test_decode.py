# SPDX-License-Identifier: Apache-2.0
"""dequantize against exact arithmetic, what a file says of itself, and what decoding must not import."""

import json
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from potr.format.bitstream import pack_model
from potr.format.decode import decode, dequantize, describe
from tests.helpers.processes import LIMIT
from tests.helpers.quantized_models import extreme_quantized, random_quantized


def test_reconstruction_follows_the_format_document():
    q = random_quantized(11, 50, 2)
    model = decode(pack_model(q, 3))
    f32 = np.float32
    for i in range(q.num_splats):
        side = Fraction(q.extent) / 2 ** int(q.depths[i])
        for axis in range(3):
            # float64 rounds the product and the sum, then float32.
            product = float((Fraction(int(q.cells[i, axis])) + Fraction(1, 2)) * side)
            assert model.means[i, axis].item() == f32(float(Fraction(q.origin[axis]) + Fraction(product)))
            log_scale = f32(f32(q.log_scales[i, axis]) * f32(q.scale_step)) + f32(q.scale_origin)
            assert model.log_scales[i, axis].item() == log_scale
        assert model.opacity_logits[i].item() == q.opacity_table[q.opacity[i]]
        x, y, z = (float(f32(v) * f32(q.rotation_step)) for v in q.rotation[i])
        expected = f32(np.sqrt(((1.0 - x * x) - y * y) - z * z))
        assert model.quats[i].tolist() == [expected, x, y, z]
    norms = model.quats.double().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-6, rtol=0)


def test_the_opponent_color_space_is_undone():
    q = random_quantized(4, 20, 1)
    model = dequantize(q)
    luma, red_blue, green = np.moveaxis(q.sh.astype(np.float64) * q.sh_steps, -1, 0)
    rgb = np.stack(
        [
            luma / 3**0.5 + red_blue / 2**0.5 - green / 6**0.5,
            luma / 3**0.5 + 2 * green / 6**0.5,
            luma / 3**0.5 - red_blue / 2**0.5 - green / 6**0.5,
        ],
        axis=-1,
    )
    np.testing.assert_allclose(model.sh.numpy(), rgb, rtol=1e-5, atol=1e-5)


def test_extremes_decode_to_finite_values():
    model = decode(pack_model(extreme_quantized(), 1))
    for name in ("means", "log_scales", "quats", "opacity_logits", "sh_dc", "sh_ac"):
        assert bool(getattr(model, name).isfinite().all()), name


@pytest.mark.parametrize(("n", "degree"), [(0, 0), (0, 3), (1, 0), (1, 3)])
def test_the_smallest_models(n, degree):
    model = decode(pack_model(random_quantized(0, n, degree), 3))
    assert (model.num_splats, model.sh_degree) == (n, degree)


def test_the_number_of_threads_does_not_matter():
    data = pack_model(random_quantized(5, 5000), 3)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = decode(data)
    finally:
        torch.set_num_threads(threads)
    many = decode(data)
    for name in ("means", "log_scales", "quats", "opacity_logits", "sh_dc", "sh_ac"):
        assert torch.equal(getattr(one, name), getattr(many, name)), name


def test_describe_adds_up_and_is_json():
    model = random_quantized(6, 300)
    data = pack_model(model, 3)
    description = json.loads(json.dumps(describe(data)))
    assert description["num_splats"] == 300
    assert description["sh_degree"] == 3
    assert description["version"] == 1
    assert description["header_bytes"] + sum(s["coded_bytes"] for s in description["sections"]) == len(data)
    assert [s["name"] for s in description["sections"]][:2] == ["model", "octree.nodes"]
    assert description["scale_step"] == model.scale_step


def test_decoding_imports_no_encoder_rasterizer_config_or_cameras():
    code = "import sys, potr.format.decode; print(*sorted(m for m in sys.modules if m.startswith('potr')))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=LIMIT
    ).stdout.split()
    forbidden = ("potr.encoder.encode", "potr.encoder.config", "potr.model.cameras", "potr.render", "potr._render")
    assert "potr.format.decode" in loaded
    assert not [m for m in loaded if m.startswith(forbidden)]
