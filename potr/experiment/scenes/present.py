# SPDX-License-Identifier: Apache-2.0
"""Whether the scenes of a sweep are on this machine: looked up before its first run, told once for each suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from potr.errors import SceneError
from potr.experiment.scenes.places import Place, Roots, locate, suite_message, where_it_may_be
from potr.experiment.scenes.suites import SUITES, suite_scene
from potr.experiment.schema import DatasetConfig, PathsConfig, RunConfig
from potr.experiment.sweep.job import Job
from potr.io.folder import check_present


@dataclass(frozen=True)
class Looked:
    """A sweep after a look at its data.

    Attributes:
        jobs: those whose scene is here, numbered anew, and those that are refused for another reason.
        left_out: how many are neither.
        messages: why, one for each suite and one for all other folders; empty where nothing is missing.
    """

    jobs: tuple[Job, ...]
    left_out: int
    messages: tuple[str, ...]


def look(jobs: Sequence[Job]) -> Looked:
    """Look for the scene of every job; photographs and splats are not read."""
    asked = {_key(job.config): job.config for job in jobs if job.config is not None}
    problems = {key: problem for key, config in asked.items() if (problem := _problem(config)) is not None}
    left = [job for job in jobs if job.config is None or _key(job.config) not in problems]
    numbered = tuple(replace(job, number=number, of=len(left)) for number, job in enumerate(left, 1))
    return Looked(numbered, len(jobs) - len(left), tuple(_messages(asked, problems)) if problems else ())


_Key = tuple[DatasetConfig, PathsConfig]


def _key(config: RunConfig) -> _Key:
    return config.dataset, config.paths


def _problem(config: RunConfig) -> Place | SceneError | None:
    """What was found of a paper's scene that is not complete, or what is wrong with a folder; None if all is here."""
    dataset = config.dataset
    path: Path | str | None = dataset.path
    model: Path | str | None = dataset.model
    if dataset.kind == "demo":
        return None
    if dataset.kind == "suite":
        scene = suite_scene(str(dataset.scene))
        place = locate(scene, _roots(config), path=dataset.path, model=dataset.model, images=dataset.images)
        if place.folder is None or place.model is None:
            return place
        path, model = place.folder, place.model
    try:
        check_present(path or "", model)
    except SceneError as error:
        return error
    return None


def _messages(asked: dict[_Key, RunConfig], problems: dict[_Key, Place | SceneError]) -> list[str]:
    messages = []
    incomplete = {key: problem for key, problem in problems.items() if isinstance(problem, Place)}
    for suite in SUITES:
        for roots in dict.fromkeys(_roots(asked[key]) for key in incomplete):
            of_suite = {
                key: suite_scene(str(config.dataset.scene))
                for key, config in asked.items()
                if config.dataset.kind == "suite" and _roots(config) == roots
            }
            of_suite = {key: scene for key, scene in of_suite.items() if scene.suite == suite}
            here = list(dict.fromkeys(scene for key, scene in of_suite.items() if key not in problems))
            lacking = {scene.name: incomplete[key] for key, scene in of_suite.items() if key in incomplete}
            if lacking:
                messages.append(suite_message(suite, here, lacking, roots))
    if messages:
        messages[-1] += f"\n{where_it_may_be()}"
    others = dict.fromkeys(str(problem) for problem in problems.values() if isinstance(problem, SceneError))
    if others:
        messages.append("\n  ".join([f"{len(others)} scene folders cannot be used", *others]))
    return messages


def _roots(config: RunConfig) -> Roots:
    return Roots(Path(config.paths.data), Path(config.paths.models))
