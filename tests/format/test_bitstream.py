# SPDX-License-Identifier: Apache-2.0
"""serialize/deserialize: laws, both ends of every range, what is refused, determinism."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potr.errors import ModelError
from potr.format.bitstream import pack_model, serialize, unpack_model
from potr.format.coder import Entropy
from potr.format.container import SectionId
from potr.format.quantized import QuantizedModelError
from potr.format.sparse_sh import dense_from_values, significance_from_gaps, sparse_from_dense
from potr.format.symbols import unzigzag, zigzag
from tests.helpers.forge import Forge
from tests.helpers.quantized_models import assert_identical, extreme_quantized, random_quantized


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 60),
    sh_degree=st.integers(0, 3),
    max_depth=st.sampled_from([0, 1, 5, 12, 21]),
    zeros=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    wide=st.booleans(),
    entropy=st.sampled_from(Entropy),
)
@settings(max_examples=120, deadline=None)
def test_unpack_undoes_pack_bit_for_bit(seed, n, sh_degree, max_depth, zeros, wide, entropy):
    model = random_quantized(seed, n, sh_degree, max_depth=max_depth, zeros=zeros, wide=wide)
    data = pack_model(model, 3, entropy)
    assert_identical(unpack_model(data), model)
    assert pack_model(model, 3, entropy) == data


@pytest.mark.parametrize("entropy", Entropy)
def test_extremes_survive(entropy):
    model = extreme_quantized()
    assert_identical(unpack_model(pack_model(model, 1, entropy)), model)


@pytest.mark.parametrize(("smooth", "most"), [(False, 1.0), (True, 0.96)])
def test_coding_by_context_takes_fewer_bytes(smooth, most):
    """On noise, and more so where neighbours have similar colours."""
    model = random_quantized(5, 4000, 1)
    if smooth:
        places = (model.cells + 0.5) / 2.0 ** model.depths[:, None]
        sh = model.sh.copy()
        sh[:, 0] = np.rint(60 * np.sin(20 * places)) + model.sh[:, 0] // 4
        model = replace(model, sh=sh)
    old, new = pack_model(model, 22), pack_model(model, 22, Entropy.ANS)
    assert (old[8], new[8]) == (1, 3)
    assert len(new) < most * len(old)
    assert_identical(unpack_model(new), model)


@pytest.mark.parametrize("entropy", Entropy)
def test_cells_out_of_order_are_refused_by_both_coders(entropy):
    model = random_quantized(5, 50, 0, duplicates=0.0)
    with pytest.raises(ModelError, match="depth-first order"):
        pack_model(replace(model, cells=model.cells[::-1].copy(), depths=model.depths[::-1].copy()), 1, entropy)


@pytest.mark.parametrize("level", [1, 9, 19, 22])
def test_every_level_holds_the_same_model(level):
    model = random_quantized(3, 400)
    assert_identical(unpack_model(pack_model(model, level)), model)


def test_symbols_take_the_bytes_they_need():
    narrow = {s.id: s.layout for s in serialize(random_quantized(1, 50))}
    wide = {s.id: s.layout for s in serialize(random_quantized(1, 50, wide=True))}
    assert (narrow[SectionId.OPACITY], wide[SectionId.OPACITY]) == (1, 2)
    assert (narrow[SectionId.SH_DC_LUMA], wide[SectionId.SH_DC_LUMA]) == (1, 4)
    assert (narrow[SectionId.SH_AC_VALUES], wide[SectionId.SH_AC_VALUES]) == (1, 4)
    assert (narrow[SectionId.ROTATION_X], wide[SectionId.ROTATION_X]) == (1, 2)


def test_scales_that_follow_the_depth_cost_less_for_it():
    model = random_quantized(7, 3000, 0)
    steep = replace(model, scale_step=float(np.float32(np.log(2) / 18)))
    rng = np.random.default_rng(0)
    unrelated = replace(steep, log_scales=rng.permuted(model.log_scales, axis=0))
    scales = [s for s in serialize(steep) if s.id.label.startswith("log_scales")]
    assert all(s.raw[:2] == (18 * 16).to_bytes(2, "little") for s in scales)
    assert all(s.raw[:2] == b"\0\0" for s in serialize(unrelated) if s.id.label.startswith("log_scales"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extent": 0.0}, r"extent: expected positive values"),
        ({"extent": float("nan")}, r"extent: expected finite"),
        ({"origin": np.array([0.0, np.inf, 0.0])}, r"origin: expected finite"),
        ({"scale_step": 0.1}, r"scale_step: expected a float32 value, got 0\.1"),
        ({"rotation_step": -1.0}, r"rotation_step: expected positive"),
        ({"sh_steps": np.zeros((16, 3), np.float32)}, r"sh_steps: expected positive"),
        ({"sh_steps": np.ones((5, 3), np.float32)}, r"sh_steps: expected 1, 4, 9 or 16"),
        ({"opacity_table": np.zeros(22, np.float32)}, r"opacity_table: expected strictly ascending"),
        ({"opacity_table": np.zeros(1, np.float32)}, r"opacity: expected indices below 1, got 2"),
        ({"rotation": np.full((30, 3), 12, np.int16)}, r"rotation: expected x\^2 \+ y\^2 \+ z\^2 <= 1, splat 0"),
        ({"sh": np.full((30, 16, 3), 2**24 + 1, np.int32)}, r"sh: expected magnitudes up to 16777216"),
        ({"sh": np.zeros((30, 16, 3), np.int64)}, r"sh: expected \[30, 16, 3\] int32, got \[30, 16, 3\] int64"),
        ({"depths": np.zeros(30, np.uint8)}, r"splat 0: expected cell coordinates below 2\^0"),
    ],
)
def test_a_model_that_breaks_its_contract_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        pack_model(replace(random_quantized(2, 30), **change), 1)


def test_the_refused_field_is_named():
    with pytest.raises(QuantizedModelError) as caught:
        serialize(replace(random_quantized(2, 30), extent=-1.0))
    assert caught.value.field == "extent"


def test_a_file_has_a_byte_for_every_splat_beyond_the_free_ones():
    n = 70_000
    one = random_quantized(0, 1, 3)
    same = {
        name: np.repeat(getattr(one, name), n, axis=0)
        for name in ("cells", "depths", "opacity", "log_scales", "rotation", "sh")
    }
    model = replace(one, **same)
    data = pack_model(model, 3)
    assert len(data) >= n - 65536
    assert_identical(unpack_model(data), model)


def test_gap_streams_by_hand():
    # Two splats of P = 9: coefficients 2 and 8 of the first, 0 of the second.
    planes = np.zeros((2, 9), np.int32)
    planes[0, [2, 8]] = 7, -3
    planes[1, 0] = 5
    sh_ac = np.ascontiguousarray(planes.reshape(2, 3, 3).transpose(0, 2, 1))
    counts, gaps, values = sparse_from_dense(sh_ac)
    assert counts.tolist() == [2, 1]
    assert gaps.tolist() == [0, 2, 5]  # start 0: the splat with one to come before the one with two; then start 3
    assert values.tolist() == [5, 7, -3]  # by position
    significant = significance_from_gaps(counts, gaps, 9)
    np.testing.assert_array_equal(dense_from_values(significant, values), sh_ac)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=30))
@settings(deadline=None)
def test_zigzag_is_a_bijection(values):
    array = np.array(values, np.int32)
    expected = [2 * v if v >= 0 else -2 * v - 1 for v in values]
    assert zigzag(array).tolist() == expected
    np.testing.assert_array_equal(unzigzag(zigzag(array)), array)


def test_the_reserved_bytes_of_the_model_section_are_the_same_in_every_file():
    for entropy in Entropy:
        file = Forge(pack_model(random_quantized(0, 20, 1), 1, entropy))
        assert file.raw(1)[48:56] == bytes.fromhex("00000060b81ed53f")
