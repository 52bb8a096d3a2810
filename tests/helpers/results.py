# SPDX-License-Identifier: Apache-2.0
"""A run's result with every field filled, for tests of what reads results."""

from typing import Any

from potr.experiment.result import Measured, RunResult


def a_result(**changes: Any) -> RunResult:
    views = tuple({"name": name, "psnr": 30.0, "ssim": 0.9, "lpips": None, "lpips_3dgs": None} for name in "ab")
    before = Measured(psnr=30.0, ssim=0.9, lpips=None, lpips_3dgs=None, fps=10.0, slowest_fps=9.0, views=views)
    after = Measured(psnr=29.5, ssim=0.89, lpips=None, lpips_3dgs=None, fps=15.0, slowest_fps=12.0, views=views)
    no_lpips = ("lpips", "lpips_3dgs", "views.*.lpips", "views.*.lpips_3dgs")
    fields: dict[str, Any] = {
        "dataset": "garden",
        "suite": "MipNeRF360",
        "quality": 0.5,
        "codec": "paper",
        "codec_version": "potr 0.1.0",
        "settings": {},
        "parameters": {"name": "paper"},
        "sweep": "rate_distortion",
        "file": "scene.potr",
        "backend": "cpu",
        "seed": 0,
        "git_commit": "0123abc",
        "bytes": 20_000,
        "bytes_per_section": {"sh_ac": 12_000, "container": 8_000},
        "uncompressed_bytes": 2_480_000,
        "ratio": 124.0,
        "splats_before": 10_000,
        "splats_after": 2_000,
        "train_views": 10,
        "before": before,
        "after": after,
        "encode_seconds": {"prune": 12.0, "compact": 3.0},
        "decode_seconds": 0.1,
        "peak_memory": 500_000_000,
        "machine": {"cpu": "some", "cores": 2},
        "stages": (
            {"name": "prune", "seconds": 12.0, "splats_before": 10_000, "splats_after": 2_000, "details": {}},
            {
                "name": "compact",
                "seconds": 3.0,
                "splats_before": 2_000,
                "splats_after": 2_000,
                "details": {"ac_zero_share": 0.951},
            },
        ),
        "resumed": False,
        "reasons": {f"{side}.{path}": "not asked for" for side in ("before", "after") for path in no_lpips},
        "config_sha256": "c" * 64,
        "inputs_sha256": "i" * 64,
        "bitstream_sha256": "b" * 64,
    }
    return RunResult(**{**fields, **changes})
