# SPDX-License-Identifier: Apache-2.0
"""Two decoders, one written from docs/format.md alone, must agree on every bit."""

import ast
import inspect

import numpy as np
import pytest

from potr.format.bitstream import pack_model
from potr.format.coder import Entropy
from potr.format.decode import decode
from tests.format import second_decoder, second_mixers, second_models, second_sh_ac
from tests.golden import cases
from tests.golden.defects import DEFECTS
from tests.helpers.quantized_models import random_quantized


def assert_same(data):
    ours, theirs = decode(data), second_decoder.decode(data)
    for name in cases.TENSORS:
        array = getattr(ours, name).numpy()
        assert array.shape == theirs[name].shape, name
        assert array.tobytes() == theirs[name].astype(np.float32).tobytes(), name


@pytest.mark.parametrize("name", cases.VALID)
def test_goldens(name):
    assert_same((cases.HERE / f"{name}.potr").read_bytes())


@pytest.mark.parametrize("entropy", Entropy)
@pytest.mark.parametrize("seed", range(6))
def test_fresh_files(seed, entropy):
    rng = np.random.default_rng(seed)
    model = random_quantized(
        seed, 80, seed % 4, max_depth=int(rng.integers(0, 22)), zeros=float(rng.random()), wide=seed == 5
    )
    assert_same(pack_model(model, 19, entropy))


@pytest.mark.parametrize(
    "defect", [d for d in DEFECTS if d.section in ("header", "table", "payload")], ids=lambda d: d.name
)
def test_it_refuses_broken_containers_too(defect):
    with pytest.raises((second_decoder.Refused, KeyError)):
        second_decoder.decode(defect.make())


def imports(module):
    imported = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    return imported


def test_it_shares_no_code():
    own = {"tests.format"} | {f"tests.format.second_{name}" for name in ("mixers", "models", "sh_ac")}
    plain = {"__future__", "collections", "collections.abc", "struct"}
    for module in (second_mixers, second_models, second_sh_ac):
        assert imports(module) <= plain | own
    assert imports(second_decoder) - own == {"__future__", "math", "struct", "zlib", "numpy", "zstandard"}
