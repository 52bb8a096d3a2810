# SPDX-License-Identifier: Apache-2.0
"""Bytes to a splat model: the encoder's last steps backwards. Needs nothing but the bytes.

Every value comes from a fixed order of exactly rounded operations (+, -, *, /, sqrt) in numpy, so every machine and
number of threads gets the same bits.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from potr.format.bitstream import read_parameters, unpack_model
from potr.format.container import ENTRY_SIZE, HEADER_SIZE, unpack
from potr.format.quantized import QuantizedModel, dequantized_rotation, squared_w
from potr.model.opponent import opponent_to_rgb
from potr.model.splats import SplatModel

_BLOCK = 1 << 13  # splats at a time: their intermediate values stay in the cache
_THREADS = 2


def decode(data: bytes) -> SplatModel:
    """The model that a bitstream holds, in octree order.

    Raises:
        BitstreamError: the bytes are not a valid file; names section and offset.
    """
    return dequantize(unpack_model(data))


def dequantize(quantized: QuantizedModel) -> SplatModel:
    """The float32 model that the integers stand for (docs/format.md, section 11)."""
    n, k, _ = quantized.sh.shape
    log_scales = quantized.log_scales.astype(np.float32) * np.float32(quantized.scale_step)
    log_scales += np.float32(quantized.scale_origin)
    means, quats = np.empty((n, 3), np.float32), np.empty((n, 4), np.float32)
    sh_dc, sh_ac = np.empty((n, 3), np.float32), np.empty((n, k - 1, 3), np.float32)

    def fill(start: int) -> None:
        block = slice(start, start + _BLOCK)
        means[block] = _means(quantized, block)
        quats[block] = _quats(quantized, block)
        rgb = opponent_to_rgb(quantized.sh[block].astype(np.float32) * quantized.sh_steps)
        sh_dc[block], sh_ac[block] = rgb[:, 0], rgb[:, 1:]

    if n <= _BLOCK:
        fill(0)
    else:
        with ThreadPoolExecutor(_THREADS) as pool:  # numpy works without the GIL
            list(pool.map(fill, range(0, n, _BLOCK)))
    return SplatModel(
        means=torch.from_numpy(means),
        log_scales=torch.from_numpy(log_scales),
        quats=torch.from_numpy(quats),
        opacity_logits=torch.from_numpy(quantized.opacity_table[quantized.opacity]),
        sh_dc=torch.from_numpy(sh_dc),
        sh_ac=torch.from_numpy(sh_ac),
    )


def _means(quantized: QuantizedModel, block: slice) -> NDArray[np.float64]:
    """[B, 3] centres of the cells."""
    side = np.ldexp(quantized.extent, -quantized.depths[block].astype(np.int32))  # exact
    means: NDArray[np.float64] = quantized.origin + (quantized.cells[block] + 0.5) * side[:, None]
    return means


def _quats(quantized: QuantizedModel, block: slice) -> NDArray[np.float64]:
    """[B, 4] wxyz; w from the unit length."""
    xyz = dequantized_rotation(quantized.rotation[block], quantized.rotation_step)
    w = np.sqrt(squared_w(xyz))
    return np.concatenate([w[:, None], xyz], axis=1)


def describe(data: bytes) -> dict[str, Any]:
    """What a file holds, without decoding the splats; JSON-able. Sizes are bytes.

    Raises:
        BitstreamError: header, table, a checksum or the model section is invalid.
    """
    bitstream = unpack(data)
    parameters = read_parameters(bitstream)
    return {
        "version": bitstream.version,
        "bytes": bitstream.size,
        "num_splats": parameters.num_splats,
        "sh_degree": parameters.sh_degree,
        "origin": parameters.origin.tolist(),
        "extent": parameters.extent,
        "opacity_levels": len(parameters.opacity_table),
        "scale_origin": parameters.scale_origin,
        "scale_step": parameters.scale_step,
        "rotation_step": parameters.rotation_step,
        "sh_steps": parameters.sh_steps.tolist(),
        "header_bytes": HEADER_SIZE + ENTRY_SIZE * len(bitstream.sections),
        "sections": [
            {
                "name": section.id.label,
                "coder": section.coder.name.lower(),
                "layout": section.layout,
                "raw_bytes": section.raw_size,
                "coded_bytes": len(section.coded),
            }
            for section in bitstream.sections
        ],
    }
