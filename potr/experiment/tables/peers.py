# SPDX-License-Identifier: Apache-2.0
"""experiment=peers: every codec that runs here, ours and others', on the same models and views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from potr.experiment.result import LPIPS_NAMES, RunResult
from potr.experiment.summary import Collected
from potr.experiment.tables.choose import by_scene, difference, failed, has_only, lpips_of, plain_curves
from potr.experiment.tables.curves import Curve
from potr.experiment.tables.document import Cell, Column, Document, Marked, Table
from potr.experiment.tables.published import Published
from potr.experiment.tables.rate_distortion import anchor_of, bd_table, points, scene_figure

OURS = "default"


def document(collected: Collected, published: Published) -> Document:
    """Every codec's points, and what ours takes for the same PSNR."""
    chosen = plain_curves(collected.results)
    return Document(
        name="peers",
        title="Codecs side by side",
        intro="Every codec got the same model and was measured in the same way on its decoded model. Sizes are of "
        "everything the decoder needs; MB = 10^6 bytes. Nothing in the tables was published by others: their code, "
        "or our implementation of their paper, was run.",
        tables=(_table(chosen), bd_table(chosen, OURS)),
        figures=tuple(
            scene_figure(suite, scene, found, published.of_scene(suite, scene))
            for (suite, scene), found in by_scene(chosen).items()
            if len({c.codec for c in found}) > 1
        ),
        holes=failed(collected, lambda f: has_only(f.settings)),
    )


def bytes_at(curve: Curve, psnr: float) -> float | None:
    """Bytes that a curve takes for a PSNR: log(bytes) linear between its points, None outside them or not rising."""
    pairs = points(curve, "psnr")
    for (size, low), (next_size, high) in pairwise(pairs):
        if low <= psnr <= high and low < high:
            share = (psnr - low) / (high - low)
            return math.exp((1 - share) * math.log(size) + share * math.log(next_size))
    return None


def _table(chosen: Sequence[Curve]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for (_, scene), found in by_scene(chosen).items():
        ours = anchor_of(found, OURS)
        rows += [(scene, c.label, r.codec_version, *_figures(r, c, ours)) for c in found for r in c.points]
    columns = (
        *(Column("scene"), Column("codec"), Column("version"), Column("quality", spec="g")),
        *(Column("size", "MB", ".3f", 1e-6, "size [bytes]"), Column("ratio", spec=".1f")),
        *(Column("PSNR", "dB", ".2f"), Column("change", "dB", "+.2f"), Column("SSIM", spec=".4f")),
        *(Column(LPIPS_NAMES["lpips_3dgs"], spec=".4f"), Column("splats", spec=",d"), Column("encode", "s", ".1f")),
        *(Column("decode", "s", ".2f"), Column(f"over {OURS}", "x", ".2f", raw=f"bytes over {OURS} at equal PSNR")),
    )
    notes = (
        "Ratio: of 248 bytes a splat of the model that was compressed to the file's size",
        f"Over {OURS}: bytes as a multiple of what codec={OURS} takes for the same PSNR, interpolated between its runs",
        "LPIPS 0..1: VGG, images in 0..1, as 3DGS's evaluation has it",
    )
    return Table("runs", "Every run", columns, tuple(rows), notes)


def _figures(r: RunResult, curve: Curve, ours: Curve | None) -> tuple[Cell, ...]:
    return (
        *(r.quality, r.bytes, r.ratio, r.after.psnr, difference(r.after.psnr, r.before.psnr), r.after.ssim),
        *(lpips_of(r.after), r.splats_after, sum(r.encode_seconds.values()), r.decode_seconds),
        1.0 if curve is ours else over(r, ours, OURS),
    )


def over(r: RunResult, ours: Curve | None, codec: str) -> Cell:
    """Bytes as a multiple of what our curve, of ``codec``, takes for the same PSNR; a bound where even that is more."""
    if ours is None or r.after.psnr is None:
        return Marked(None, f"codec={codec} was not run on this scene" if ours is None else "no PSNR")
    wanted = bytes_at(ours, r.after.psnr)
    if wanted is not None:
        return r.bytes / wanted
    size, lowest = min(points(ours, "psnr"), default=(0.0, -math.inf))
    if r.after.psnr < lowest:
        return Marked(r.bytes / size, f"at least: the smallest file of codec={codec} has a higher PSNR")
    return Marked(None, f"codec={codec} was run at no such PSNR")
