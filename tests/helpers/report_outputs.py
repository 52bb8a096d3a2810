# SPDX-License-Identifier: Apache-2.0
"""A folder of runs with pictures, as runs leave it, made without running anything."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from potr.experiment.failure import Failure, write_failure
from potr.experiment.report.view_pictures import Pixels, write_views
from potr.experiment.result import write_result
from tests.helpers.results import a_result

WIDTH, HEIGHT = 240, 160
VIEWS = ("a", "b")  # of a_result
HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>{{data}}&amp;"
SIZES = {"paper": {0.1: 10_000, 0.5: 20_000, 0.8: 40_000}, "default": {0.1: 8_000, 0.5: 15_000}}


def make_outputs(outputs: Path) -> Path:
    """Two scenes of two codecs, one failure with a name and a reason full of HTML, one interrupted run."""
    for scene in ("garden", "stump"):
        for codec, sizes in SIZES.items():
            for quality, size in sizes.items():
                add_run(outputs / scene / f"{codec},q{quality}", scene, codec, quality, size)
    folder = outputs / "garden" / "q0.9"
    folder.mkdir(parents=True)
    write_failure(Failure(HOSTILE, None, 0.9, "default", {}, None, reason=f"no memory {HOSTILE}"), folder)
    (outputs / "garden" / "q0.7").mkdir()
    (outputs / "garden" / "q0.7" / "config.yaml").write_text("quality: 0.7\n")
    return outputs


def add_run(folder: Path, scene: str, codec: str, quality: float, size: int, **changes: Any) -> None:
    base = a_result()
    psnr = 30 - 5_000 / size
    figures: dict[str, Any] = {
        "dataset": scene,
        "codec": codec,
        "quality": quality,
        "bytes": size,
        "ratio": base.uncompressed_bytes / size,
        "after": dataclasses.replace(base.after, psnr=psnr, fps=10 + 20_000 / size),
        "bitstream_sha256": f"{scene}-{codec}-{size}",
        "folder": folder,
    }
    folder.mkdir(parents=True)
    write_result(a_result(**{**figures, **changes}), folder)
    shift = 40 if codec == "paper" else 20
    write_views(folder, [(name, *pictures(number, scene, shift)) for number, name in enumerate(VIEWS)])


def pictures(number: int, scene: str, shift: int) -> tuple[Pixels, Pixels, Pixels]:
    """A gradient; one a level away from it; and one with a square that is ``shift`` levels too bright."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    base = 40 + number * 20 + (columns / 4 + rows / 4 + (30 if scene == "stump" else 0))
    photo = np.repeat(base[..., None], 3, axis=2).astype(np.uint8)
    after = photo.copy()
    after[100:130, 180:220] += np.uint8(shift)
    return photo, photo + np.uint8(1), after
