# SPDX-License-Identifier: Apache-2.0
"""Posed photographs as the camera readers give them, and which of them a model is judged on."""

from __future__ import annotations

import enum
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from potr.errors import SceneError
from potr.model.cameras import Camera

log = logging.getLogger(__name__)

TEST_EVERY = 8  # the field's hold-out (Mip-NeRF 360, 3DGS): by sorted name the 1st, 9th, 17th ... is a test view
TRAIN, TEST = "train", "test"


@dataclass(frozen=True, eq=False)
class Shot:
    """A photograph's name and camera, before the photograph has been looked for.

    Attributes:
        name: as the camera file has it, with or without suffix, unique within the scene.
        camera: at the size that the camera file states.
        split: "train", "test", or None where the file does not say.
    """

    name: str
    camera: Camera
    split: str | None = None


class Split(enum.Enum):
    """How photographs are divided into training and test views."""

    AUTO = "auto"  # as the camera file says, else every 8th
    EVERY_8TH = "every_8th"  # every 8th by sorted name is a test view, whatever the file says
    NONE = "none"  # all are training views


def divide(shots: Sequence[Shot], split: Split = Split.AUTO) -> tuple[tuple[Shot, ...], tuple[Shot, ...]]:
    """(training, test) shots, each in the order of the input.

    Raises:
        SceneError: there is no shot, two have one name, or the file's own split covers only a part or leaves nothing
            to train on.
    """
    if not shots:
        raise SceneError("expected at least one photograph with a camera, found none")
    twice = [name for name, count in Counter(shot.name for shot in shots).items() if count > 1]
    if twice:
        raise SceneError(f"photograph names must be unique; {len(twice)} occur more than once: {', '.join(twice[:5])}")
    if split is Split.NONE:
        return tuple(shots), ()
    if split is Split.AUTO and any(shot.split for shot in shots):
        return _own_split(shots)
    held_out = set(sorted(shot.name for shot in shots)[::TEST_EVERY])
    if len(shots) == 1:
        log.warning("a single photograph: it is the training view, and there is no test view")
        held_out = set()
    train = tuple(shot for shot in shots if shot.name not in held_out)
    return train, tuple(shot for shot in shots if shot.name in held_out)


def _own_split(shots: Sequence[Shot]) -> tuple[tuple[Shot, ...], tuple[Shot, ...]]:
    without = [shot.name for shot in shots if shot.split is None]
    if without:
        raise SceneError(f"expected a split for every photograph or none; {len(without)} lack it: {without[0]}, ...")
    train = tuple(shot for shot in shots if shot.split == TRAIN)
    if not train:
        raise SceneError(f"all {len(shots)} photographs are marked '{TEST}': nothing to train on")
    return train, tuple(shot for shot in shots if shot.split == TEST)
