# SPDX-License-Identifier: Apache-2.0
"""Where the paper's scenes and the released 3DGS models lie on this machine, and what to do where they do not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from potr.errors import SceneError
from potr.experiment.scenes.suites import ITERATION, MODELS, SCENES, SUITE_FOLDERS, Archive, SuiteScene, scenes_of
from potr.io.blender import PAIR
from potr.io.folder import find_model
from potr.model.scene import Scene

DATA_VARIABLE, MODELS_VARIABLE = "POTR_DATA", "POTR_MODELS"
DEFAULT_DATA, DEFAULT_MODELS = "data", "models"
MODEL_FILE = f"point_cloud/iteration_{ITERATION}/point_cloud.ply"


@dataclass(frozen=True)
class Roots:
    """The folder of all scenes and the folder of all trained models."""

    data: Path
    models: Path

    @classmethod
    def from_environment(cls) -> Roots:
        """As POTR_DATA and POTR_MODELS say, else data/ and models/ below the working directory."""
        data, models = os.environ.get(DATA_VARIABLE), os.environ.get(MODELS_VARIABLE)
        return cls(Path(data or DEFAULT_DATA), Path(models or DEFAULT_MODELS))


@dataclass(frozen=True)
class Place:
    """Where a scene's parts lie; None where nothing is found."""

    folder: Path | None
    model: Path | None


def locate(
    scene: SuiteScene, roots: Roots, *, path: str | None = None, model: str | None = None, images: str | None = None
) -> Place:
    """Find a scene's folder and its model's .ply in the layouts of docs/datasets.md.

    ``path``, ``model`` and ``images``, where given, are taken as they are. The model is looked for under
    ``roots.models``, then in the scene's own folder.
    """
    folder = Path(path) if path is not None else find_folder(scene, roots.data, images)
    if model is not None:
        return Place(folder, Path(model))
    candidates = model_folders(scene, roots.models) + ([folder] if folder is not None else [])
    return Place(folder, next((ply for ply in map(_model_in, candidates) if ply is not None), None))


def demand(
    scene: SuiteScene, roots: Roots, *, path: str | None = None, model: str | None = None, images: str | None = None
) -> tuple[Path, Path]:
    """The scene's folder and its model, as ``locate`` finds them.

    Raises:
        SceneError: one of them is missing; says what is expected where, where it comes from and what fetches it.
    """
    place = locate(scene, roots, path=path, model=model, images=images)
    if place.folder is None or place.model is None:
        raise SceneError(missing_message(scene, roots, place))
    return place.folder, place.model


def differences(known: SuiteScene, scene: Scene) -> list[str]:
    """In what a scene that was read is not the paper's, so that its figures are not comparable with published ones."""
    views = (*scene.train_views, *scene.test_views)
    sizes = sorted({f"{view.camera.width} x {view.camera.height}" for view in views})
    compared = (
        ("photographs", f"{len(views)}", f"{known.photographs}"),
        ("test views", f"{len(scene.test_views)}", f"{known.test_views}"),
        ("size", ", ".join(sizes[:3]), f"{known.width} x {known.height}"),
        ("splats", f"{scene.model.num_splats:,}", f"{known.splats:,}" if known.splats is not None else None),
    )
    return [f"{what} {found}, not {usual}" for what, found, usual in compared if usual is not None and found != usual]


def scene_folders(scene: SuiteScene, data: Path) -> list[Path]:
    """Where a scene's folder may lie: as its archive unpacks, in a folder of its suite, or as ``data`` itself."""
    folders = [data / scene.root, data / scene.name]
    folders += [data / suite / scene.name for suite in SUITE_FOLDERS[scene.suite]]
    if data.name == scene.name:
        folders.append(data)
    return list(dict.fromkeys(folders))


def model_folders(scene: SuiteScene, models: Path) -> list[Path]:
    """Where a scene's trained model may lie; models.zip unpacks one folder per scene."""
    folders = [models / scene.name, models / "models" / scene.name]
    folders += [models / suite / scene.name for suite in SUITE_FOLDERS[scene.suite]]
    return list(dict.fromkeys(folders))


def find_folder(scene: SuiteScene, data: Path, images: str | None = None) -> Path | None:
    """The first of ``scene_folders`` that has cameras and the photographs' folder."""
    return next((folder for folder in scene_folders(scene, data) if not missing_in(scene, folder, images)), None)


def needs(scene: SuiteScene) -> list[str]:
    """What a scene's folder must have, as paths inside it."""
    return [name for name, _ in PAIR] if scene.images is None else [f"{scene.images}/", "sparse/0/"]


def missing_in(scene: SuiteScene, folder: Path, images: str | None = None) -> list[str]:
    """What a scene's folder lacks, as paths inside it; no photograph is looked at."""
    if scene.images is None:
        return [name for name, _ in PAIR if not (folder / name).is_file()]
    wanted = images or scene.images
    missing = [] if (folder / wanted).is_dir() else [f"{wanted}/"]
    cameras = ("sparse/0/images.bin", "sparse/0/images.txt", "sparse/images.bin", "sparse/images.txt")
    if not any((folder / name).is_file() for name in cameras):
        missing.append("sparse/0/")
    return missing


def missing_message(scene: SuiteScene, roots: Roots, place: Place) -> str:
    """One message: what is expected where, where it comes from, and the command that fetches it."""
    parts = [part for part, found in (("photographs", place.folder), ("model", place.model)) if found is None]
    lines = [f"{scene.title}: no {' and no '.join(parts)} found"]
    if place.folder is None:
        lines += _missing_photographs(scene, roots.data)
    if place.model is None:
        lines += _missing_model(scene, roots.models)
    if place.folder is None or scene.has_released_model:
        lines.append(f"fetch what is missing: {fetch_command(scene.name, roots)}")
        lines.append("  (with --partial only this scene's files out of the archives, a fraction of their size)")
    lines.append(where_it_may_be(", or for this scene alone dataset.path=DIR dataset.model=FILE_OR_DIR"))
    return "\n  ".join(lines)


def suite_message(suite: str, here: Sequence[SuiteScene], lacking: Mapping[str, Place], roots: Roots) -> str:
    """One message for several scenes of a suite: which are here, what the others lack, and how to get it.

    Args:
        suite: its name.
        here: the scenes that are complete.
        lacking: name to what was found of a scene that is not.
        roots: where they were looked for.
    """
    scenes = [SCENES[name] for name in lacking]
    found = f": {_names(here)}" if here else ""
    lines = [f"{suite}: {len(here)} of {len(here) + len(scenes)} scenes here{found}"]
    without_photos = [scene for scene in scenes if lacking[scene.name].folder is None]
    without_model = [scene for scene in scenes if lacking[scene.name].model is None]
    if without_photos:
        first = without_photos[0]
        lines.append(f"no photographs of {_names(without_photos)}")
        lines.append(
            f"  expected as {' or '.join(map(str, scene_folders(first, roots.data)[:2]))}, with {_needed(first)}"
        )
        archives = dict.fromkeys(origin(scene.archive) for scene in without_photos)
        lines.append(f"  they come from {' and '.join(archives)}")
    if without_model:
        first = without_model[0]
        lines.append(f"no model of {_names(without_model)}")
        lines.append(f"  expected as {model_folders(first, roots.models)[0] / MODEL_FILE}")
        lines.append(f"  {_origin_of_model(first, roots.models)}")
    if without_photos or any(scene.has_released_model for scene in without_model):
        what = suite if len(scenes) == len(scenes_of(suite)) else " ".join(scene.name for scene in scenes)
        lines.append(f"fetch: {fetch_command(what, roots)}")
        lines.append("  (with --partial only what is needed out of the archives, a fraction of their size)")
    return "\n  ".join(lines)


def where_it_may_be(also: str = "") -> str:
    """How to say where data lie that are here already."""
    return (
        f"or say where it is: environment {DATA_VARIABLE}=DIR and {MODELS_VARIABLE}=DIR (or paths.data=DIR "
        f"paths.models=DIR){also}"
    )


def _names(scenes: Sequence[SuiteScene]) -> str:
    return ", ".join(scene.name for scene in scenes)


def _needed(scene: SuiteScene) -> str:
    return " and ".join(needs(scene))


def fetch_command(what: str, roots: Roots) -> str:
    """The command that downloads into exactly these folders."""
    usual = Roots.from_environment()
    command = f"python -m potr.datasets download {what}"
    command += f" --data {roots.data}" if roots.data != usual.data else ""
    return command + (f" --models {roots.models}" if roots.models != usual.models else "")


def origin(archive: Archive) -> str:
    """An archive's address, size and remarks, in words."""
    return f"{archive.url} ({archive.about}{f'; {archive.note}' if archive.note else ''})"


def _missing_photographs(scene: SuiteScene, data: Path) -> list[str]:
    first, *others = scene_folders(scene, data)
    lines = [f"photographs: expected {_needed(scene)} in {first} (or {_listed(others)})"]
    lines += [
        f"  {folder} is there, but lacks {', '.join(missing_in(scene, folder))}"
        for folder in (first, *others)
        if folder.is_dir()
    ]
    return [*lines, f"  they come from {origin(scene.archive)}"]


def _missing_model(scene: SuiteScene, models: Path) -> list[str]:
    first, *others = model_folders(scene, models)
    return [
        f"model: expected {MODEL_FILE} in {first} (or {_listed(others)})",
        f"  {_origin_of_model(scene, models)}",
    ]


def _origin_of_model(scene: SuiteScene, models: Path) -> str:
    if scene.has_released_model:
        return f"it comes from {origin(MODELS)}"
    return (
        f"{MODELS.file} of 3DGS has no models of {scene.suite}: train one with 3DGS "
        f"(train.py -s {scene.root} -m {model_folders(scene, models)[0]} --eval --white_background)"
    )


def _listed(folders: list[Path]) -> str:
    shown = ", ".join(map(str, folders[:2]))
    return shown + (", ..." if len(folders) > 2 else "")


def _model_in(folder: Path) -> Path | None:
    """The model's .ply in a folder; None where there is none."""
    try:
        return find_model(folder) if folder.is_dir() else None
    except SceneError:
        return None
