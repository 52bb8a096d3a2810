# SPDX-License-Identifier: Apache-2.0
"""A scene: a trained model with the views it was trained on and the views it is judged on."""

from __future__ import annotations

from dataclasses import dataclass

from potr.model.cameras import BLACK, RGB, View
from potr.model.splats import SplatModel


@dataclass(frozen=True, eq=False)
class Scene:
    """Attributes: ``model_bytes`` is the size of the file that the model was read from; None for one made in memory."""

    name: str
    model: SplatModel
    train_views: tuple[View, ...]
    test_views: tuple[View, ...]
    background: RGB = BLACK
    model_bytes: int | None = None

    def __repr__(self) -> str:
        views = f"{len(self.train_views)} training and {len(self.test_views)} test views"
        return f"Scene({self.name!r}, {self.model.num_splats:,} splats, {views})"
