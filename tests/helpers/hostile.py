# SPDX-License-Identifier: Apache-2.0
"""What damaged files must do, whichever coder wrote them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from potr.errors import BitstreamError
from potr.format.bitstream import pack_model, unpack_model
from potr.format.coder import Entropy
from potr.format.container import HEADER_SIZE
from potr.format.decode import dequantize
from potr.format.quantized import validate
from tests.helpers.forge import with_true_checksums
from tests.helpers.quantized_models import assert_identical


def refused(data: bytes, entropy: Entropy = Entropy.ZSTD) -> bool:
    """Whether decoding ends in BitstreamError; a file that passes must hold a valid model that codes to itself."""
    try:
        model = unpack_model(data)
    except BitstreamError as error:
        if not 0 <= error.offset <= len(data):
            raise AssertionError(f"offset {error.offset} outside the file") from error
        return True
    validate(model)
    splats = dequantize(model)
    for name in ("means", "log_scales", "quats", "opacity_logits", "sh_dc", "sh_ac"):
        assert bool(getattr(splats, name).isfinite().all()), name
    assert_identical(unpack_model(pack_model(model, 1, entropy)), model)
    return False


def cut_files(file: bytes) -> Iterator[bytes]:
    """Cut at every byte behind the header, with a size that says so, the checksums as they were and true ones."""
    for size in range(HEADER_SIZE, len(file)):
        cut = bytearray(file[:size])
        struct.pack_into("<Q", cut, 16, size)
        yield bytes(cut)
        yield with_true_checksums(bytes(cut))
