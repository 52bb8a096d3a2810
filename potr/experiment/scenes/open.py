# SPDX-License-Identifier: Apache-2.0
"""From a run's settings to its scene: where it lies, how it is read, and what a sweep keeps of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from potr.evaluate.measure import evenly_spaced
from potr.experiment.photo_cache import CACHE, with_cached_photos
from potr.experiment.scenes.places import Roots, demand, differences
from potr.experiment.scenes.suites import MAX_WIDTH, suite_scene
from potr.experiment.schema import RunConfig, parse_color
from potr.io.demo import demo_folder
from potr.io.folder import load_scene
from potr.model.cameras import View
from potr.model.scene import Scene
from potr.progress import Progress, silent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a scene lies and how its photographs are read."""

    path: Path | str
    model: Path | str | None
    images: str | None
    max_width: int | None


def open_scene(config: RunConfig, progress: Progress = silent) -> Scene:
    """The scene that a run's settings name, with as many views as they allow; the demo is made if it is not there."""
    dataset, place = config.dataset, locate(config, progress)
    scene = load_scene(
        place.path,
        model=place.model,
        background=None if dataset.background is None else parse_color(dataset.background),
        downscale=dataset.downscale,
        max_width=place.max_width,
        images=place.images,
        clean=dataset.clean,
    )
    if dataset.kind == "suite" and (unlike := differences(suite_scene(str(dataset.scene)), scene)):
        log.warning("%s: not as in the paper: %s", dataset.scene, "; ".join(unlike))
    return replace(
        scene,
        name=config.dataset_name(),
        train_views=_spread(scene.train_views, dataset.max_views),
        test_views=_spread(scene.test_views, dataset.max_views),
    )


class LastScene:
    """Opens scenes and keeps the last one in memory, for the next run of a sweep that reads the same files."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._scene: Scene | None = None

    def open(self, config: RunConfig, progress: Progress = silent) -> Scene:
        """As ``open_scene``; with ``config.cache`` kept, and its photographs read by way of the cache."""
        if not config.cache:
            return open_scene(config, progress)
        place = locate(config, progress)
        key = (config.dataset, place, *_stamps(place.path), *_stamps(place.model))
        if self._scene is None or key != self._key:
            self._scene = None  # before the next one is read: they are large
            self._scene = with_cached_photos(open_scene(config, progress), Path(config.outputs) / CACHE)
            self._key = key
        return self._scene


def locate(config: RunConfig, progress: Progress = silent) -> Place:
    """Where the scene lies; SceneError says what of a paper's scene is missing and how to get it."""
    dataset = config.dataset
    if dataset.kind == "demo":
        return Place(demo_folder(Path(config.outputs) / "demo", progress=progress), dataset.model, dataset.images, None)
    if dataset.kind == "suite":
        known, roots = suite_scene(str(dataset.scene)), Roots(Path(config.paths.data), Path(config.paths.models))
        path, model = demand(known, roots, path=dataset.path, model=dataset.model, images=dataset.images)
        return Place(path, model, dataset.images or known.images, MAX_WIDTH)
    return Place(dataset.path or "", dataset.model, dataset.images, None)


def _stamps(path: Path | str | None) -> list[tuple[str, int, int]]:
    """Name, size and time of every file under a path: when one changes, the scene is read again."""
    if path is None:
        return []
    found = [(file, file.stat()) for file in sorted([Path(path), *Path(path).rglob("*")]) if file.is_file()]
    return [(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in found]


def _spread(views: Sequence[View], count: int | None) -> tuple[View, ...]:
    return tuple(views[index] for index in sorted(evenly_spaced(len(views), count)))
