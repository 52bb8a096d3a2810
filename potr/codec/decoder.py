# SPDX-License-Identifier: Apache-2.0
"""Bytes to a splat model: the encoder's last steps backwards. Needs nothing but the bytes.

Every value comes from a fixed order of exactly rounded operations (+, -, *, /, sqrt) in numpy, so every machine and
number of threads gets the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from potr.bitstream.container import ENTRY_SIZE, HEADER_SIZE, unpack
from potr.codec.color import opponent_to_rgb
from potr.codec.quantized import QuantizedModel, rotation_remainder
from potr.codec.serialize import read_parameters, unpack_model
from potr.splats import SplatModel


def decode(data: bytes) -> SplatModel:
    """The model that a bitstream holds, in octree order.

    Raises:
        BitstreamError: the bytes are not a valid file; names section and offset.
    """
    return dequantize(unpack_model(data))


def dequantize(quantized: QuantizedModel) -> SplatModel:
    """The float32 model that the integers stand for (docs/format.md, "Reconstruction")."""
    side = np.ldexp(quantized.extent, -quantized.depths.astype(np.int32))  # exact
    means = quantized.origin + (quantized.cells + 0.5) * side[:, None]

    log_scales = quantized.log_scales.astype(np.float32) * np.float32(quantized.scale_step)
    log_scales += np.float32(quantized.scale_origin)

    quats = np.empty((quantized.num_splats, 4), np.float32)
    quats[:, 0] = np.sqrt(rotation_remainder(quantized))
    quats[:, 1:] = quantized.rotation.astype(np.float32) * np.float32(quantized.rotation_step)

    rgb = opponent_to_rgb(quantized.sh.astype(np.float32) * quantized.sh_steps)
    return SplatModel(
        means=torch.from_numpy(means.astype(np.float32)),
        log_scales=torch.from_numpy(log_scales),
        quats=torch.from_numpy(quats),
        opacity_logits=torch.from_numpy(quantized.opacity_table[quantized.opacity]),
        sh_dc=torch.from_numpy(rgb[:, 0].copy()),
        sh_ac=torch.from_numpy(rgb[:, 1:].copy()),
    )


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
        "opacity_boost": parameters.opacity_boost,
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
