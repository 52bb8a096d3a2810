# SPDX-License-Identifier: Apache-2.0
"""The valid golden files: regenerate.py writes files from VALID, the tests read all. Defects are in defects.py."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from potr.format import parameters
from potr.format.bitstream import pack_model
from potr.format.coder import Entropy
from potr.format.decode import describe
from potr.format.quantized import QuantizedModel
from potr.model.splats import SplatModel
from tests.helpers.quantized_models import extreme_quantized, random_quantized

HERE = Path(__file__).parent
ERRORS = HERE / "errors"
HASHES = HERE / "hashes.csv"
SIZES = HERE / "sizes.csv"
TENSORS = ("means", "log_scales", "quats", "opacity_logits", "sh_dc", "sh_ac")
ZSTD_LEVEL = 19

VALID: dict[str, Callable[[], QuantizedModel]] = {
    "empty": lambda: random_quantized(0, 0, 0),
    "empty_degree_3": lambda: random_quantized(0, 0, 3),
    "one_splat": lambda: random_quantized(1, 1, 3),
    "degree_0": lambda: random_quantized(2, 200, 0),
    "degree_1": lambda: random_quantized(3, 100, 1),
    "degree_2": lambda: random_quantized(4, 60, 2),
    "degree_3": lambda: random_quantized(5, 60, 3),
    "no_ac": lambda: random_quantized(6, 60, 3, zeros=1.0),
    "full_ac": lambda: random_quantized(7, 20, 3, zeros=0.0),
    "wide_symbols": lambda: random_quantized(8, 12, 3, wide=True),
    "deepest_octree": lambda: random_quantized(9, 60, 1, max_depth=21),
    "root_leaf": lambda: random_quantized(10, 30, 1, max_depth=0),
    "duplicates": lambda: random_quantized(11, 400, 1, duplicates=0.9),
    "compressible": lambda: random_quantized(12, 400, 3, max_depth=6, zeros=0.98),
    "extremes": lambda: extreme_quantized(levels=300),
}
VALID |= {f"modelled_{name}": make for name, make in VALID.items()}  # the same in format version 3


def pack(name: str) -> bytes:
    """The file of a case as the encoder writes it now, but for eight bytes that were a parameter when it was made."""
    reserved = -(2.0**64) if "extremes" in name else 0.33
    with mock.patch.object(parameters, "RESERVED", reserved):
        return pack_model(VALID[name](), ZSTD_LEVEL, Entropy.ANS if name.startswith("modelled_") else Entropy.ZSTD)


def hash_row(name: str, model: SplatModel) -> str:
    """A line of hashes.csv: sha256 of every tensor's little-endian bytes."""
    arrays = (getattr(model, tensor).numpy().astype("<f4") for tensor in TENSORS)
    digests = (hashlib.sha256(array.tobytes()).hexdigest() for array in arrays)
    return ",".join([name, str(model.num_splats), str(model.sh_degree), *digests])


def size_rows(name: str, data: bytes) -> list[str]:
    """Lines of sizes.csv: bytes per section."""
    sections = describe(data)["sections"]
    rows = [f"{name},{s['name']},{s['coder']},{s['layout']},{s['raw_bytes']},{s['coded_bytes']}" for s in sections]
    return [*rows, f"{name},file,,,,{len(data)}"]


HASH_HEADER = ",".join(["case", "splats", "sh_degree", *TENSORS])
SIZE_HEADER = "case,section,coder,layout,raw_bytes,coded_bytes"
