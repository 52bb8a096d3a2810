# SPDX-License-Identifier: Apache-2.0
"""What each quantiser's step costs and saves: one parameter of codec=default changed at a time, at one quality.

    python experiments/ablate_steps.py ../shared/scenes/fern [--quality 0.1] [--share 0.5]

The scene is pruned to a share once and refitted; then only quantisation differs. Prints Markdown: PSNR on the test
views and bits per splat, as differences to the preset. Here geometry takes the closest levels and colours are quantised
all at once, whatever the preset.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import potr
from potr.encoder.config import PruneConfig, QuantizeConfig
from potr.encoder.prune import early_schedule, prune
from potr.encoder.quality import config_for
from potr.encoder.quantize import quantize_geometry
from potr.encoder.refit import refit_colors
from potr.encoder.sh_solver import quantize_group
from potr.evaluate.measure import evaluate
from potr.format.bitstream import pack_model
from potr.format.decode import decode
from potr.model.footprint import pixel_sizes
from potr.progress import SILENT
from potr.render.select import select

FACTORS = {
    "position_gamma": (0.5, 2.0),
    "rotation_levels": (0.5, 2.0),
    "scale_step": (0.5, 2.0),
    "opacity_levels": (0.5, 2.0),
    "dc_multiplier": (0.5, 2.0),
    "ac_multiplier": (0.5, 2.0),
    "bit_cost": (0.0, 0.25, 4.0),
}


def varied(config: QuantizeConfig, name: str, factor: float) -> QuantizeConfig:
    """The configuration with one parameter multiplied."""
    value = getattr(config, name) * factor
    return replace(config, **{name: round(value) if isinstance(getattr(config, name), int) else value})


def main() -> None:
    """Prune, refit, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--quality", type=float, default=0.1)
    parser.add_argument("--share", type=float, default=0.5, help="of the splats, kept")
    arguments = parser.parse_args()

    scene, rasterizer = potr.load_scene(arguments.scene), select("auto")
    pruning = PruneConfig(early_passes=5, target_splats=round(arguments.share * scene.model.num_splats))
    state = prune(scene.model, scene.train_views, rasterizer, pruning, early_schedule(pruning))
    model, statistics, _ = refit_colors(state.model, scene.train_views, rasterizer, 3, SILENT)
    pixel_size = pixel_sizes(model, [view.camera for view in scene.train_views])
    footprint = torch.where(pixel_size.isfinite(), pixel_size, 0.0)

    def measured(config: QuantizeConfig) -> tuple[float, float]:
        geometry, order = quantize_geometry(model, config, footprint)
        metric = statistics.hessian[order] if config.joint_rounding else None
        price = config.bit_cost * (state.cap or 0.0) * statistics.samples
        steps = torch.from_numpy(geometry.sh_steps).to(model.device)
        levels, _ = quantize_group(metric, model.sh[order], steps, price, None, False)
        data = pack_model(replace(geometry, sh=levels.cpu().numpy()), config.zstd_level, config.entropy)
        return evaluate(decode(data), scene.test_views, rasterizer).psnr or 0.0, 8 * len(data) / model.num_splats

    config = config_for(arguments.quality).quantize
    before = evaluate(model, scene.test_views, rasterizer).psnr or 0.0
    psnr, bits = measured(config)
    print(
        f"{scene.name}, {model.num_splats:,} splats, {before:.2f} dB; quantised {psnr:.2f} dB, {bits:.1f} bits/splat\n"
    )
    print("| parameter | value | PSNR | bits/splat |\n| --- | ---: | ---: | ---: |")
    for name, factors in FACTORS.items():
        for factor in factors:
            changed = varied(config, name, factor)
            p, b = measured(changed)
            print(f"| {name} | {getattr(changed, name):.4g} | {p - psnr:+.3f} | {b - bits:+.2f} |", flush=True)
    plain = measured(replace(config, joint_rounding=False))
    print(f"| joint_rounding | off | {plain[0] - psnr:+.3f} | {plain[1] - bits:+.2f} |")


if __name__ == "__main__":
    main()
