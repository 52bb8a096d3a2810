# SPDX-License-Identifier: Apache-2.0
"""One run from the scene to result.json: measure, encode, write, decode what was written, measure again."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from potr.encoder.resume import NO_RESUME, Resume
from potr.errors import ConfigError, PotrError
from potr.evaluate.bd_rate import rate
from potr.evaluate.machine import describe_machine, peak_memory_bytes, reset_peak_memory
from potr.experiment import identity, ranks
from potr.experiment.cameras import CAMERAS_FILE
from potr.experiment.codec import Coder, Searched, coder
from potr.experiment.failure import FAILURE_FILE, Failure, write_failure
from potr.experiment.lock import locked
from potr.experiment.measure import Judge, judge
from potr.experiment.photo_cache import CACHE
from potr.experiment.pictures import caption, megabytes, save_comparison, typical_view
from potr.experiment.report.view_pictures import pictured, save_views
from potr.experiment.result import (
    CONFIG_FILE,
    RESULT_FILE,
    Measured,
    RunResult,
    read_result,
    without_idle_reasons,
    write_result,
)
from potr.experiment.scenes.open import LastScene
from potr.experiment.schema import RunConfig, changes, to_yaml, with_codec_resolved
from potr.experiment.tracking.tracker import track_finished, tracker
from potr.files import write_atomic
from potr.io.cameras_json import write_cameras_json
from potr.io.posed_images import TEST, TRAIN, Shot
from potr.model.scene import Scene
from potr.model.splats import UNCOMPRESSED_BYTES_PER_SPLAT, SplatModel
from potr.progress import SILENT, Progress
from potr.render.base import Rasterizer
from potr.render.select import select, signature
from potr.screen import log_file
from potr.threads import available_threads

log = logging.getLogger(__name__)

PICTURE_FILE = "before_after.png"
LOG_FILE, RESUME = "run.log", "resume"


@dataclass(frozen=True)
class Identity:
    """What decides whether a stored result answers a run."""

    config_sha256: str
    inputs_sha256: str
    code_sha256: str
    codec_version: str


def run(
    config: RunConfig, *, progress: Progress = SILENT, wait: bool = True, scenes: LastScene | None = None
) -> RunResult:
    """Compress a scene and find out what that did; everything lands in ``<outputs>/<dataset>/q<quality>...``.

    A finished run is read instead of done again, unless ``config.force`` or other code made it; an interrupted one goes
    on from the last pass of its pruning. One process at a time works on a run: ``wait`` for another, or else Busy is
    raised. A sweep hands the same ``scenes`` to all of its runs.

    Raises:
        PotrError: whatever the scene, the settings or the machine do not allow, or the folder holds the result of
            another configuration.
    """
    codec = coder(config)  # refuse what is out of range or not installed before minutes of work
    with locked(run_folder(config), wait=wait), _torch_threads(ranks.own_threads(config.threads)):
        return _run(config, codec, scenes or LastScene(), progress)


def run_folder(config: RunConfig) -> Path:
    """Where a run's files lie; known before its scene is read."""
    return Path(config.outputs) / config.dataset_name() / identity.run_name(config)


def record_failure(config: RunConfig, reason: str, trace: str | None = None) -> Failure:
    """Leave failure.json where the run would have left its result."""
    folder = run_folder(config)
    failure = Failure(
        dataset=config.dataset_name(),
        suite=config.dataset.suite,
        quality=config.asked_quality,
        codec=config.codec.name,
        settings=_settings(config),
        sweep=config.sweep,
        reason=reason,
        trace=trace,
        folder=folder,
    )
    write_failure(failure, folder)
    return failure


def _run(config: RunConfig, codec: Coder, scenes: LastScene, progress: Progress) -> RunResult:
    scene = scenes.open(config, progress)
    folder = run_folder(config)
    hashes = (identity.config_sha256(config), identity.inputs_sha256(scene))
    run_identity = Identity(*hashes, identity.results_code_sha256(), codec.version)
    finished = find_finished(folder, run_identity, config.force)
    if finished is not None:
        (folder / FAILURE_FILE).unlink(missing_ok=True)  # what was asked last has a result
        log.info("%s: finished earlier; force=true does it again", folder)
        track_finished(config, finished, _pictures(folder))
        return finished
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PotrError(f"{folder}: cannot make this folder: {error.strerror}") from None
    for stale in (RESULT_FILE, FAILURE_FILE):
        (folder / stale).unlink(missing_ok=True)
    resume = Resume(Path(config.outputs) / CACHE / "encode" if config.cache else folder / RESUME)
    with log_file(folder / LOG_FILE), tracker(config, folder, hashes) as track:
        log.info("%s: %d splats, %d training views", folder, scene.model.num_splats, len(scene.train_views))
        write_atomic(folder / CONFIG_FILE, to_yaml(with_codec_resolved(config)).encode(), overwrite=True)
        try:
            result = _compress_and_measure(config, codec, scene, folder, run_identity, resume, progress)
        except KeyboardInterrupt:
            rest = "goes on from the last pruning pass" if codec.resumes else "starts over"
            log.warning("%s: interrupted, nothing is half-written; the same command %s", folder, rest)
            raise
        if not config.cache:
            resume.clear()
        write_result(result, folder)
        track.record(result, _pictures(folder))
    return result


def _compress_and_measure(
    config: RunConfig, codec: Coder, scene: Scene, folder: Path, run_identity: Identity, resume: Resume,
    progress: Progress,
) -> RunResult:  # fmt: skip
    rasterizer = select(config.backend.name, threads=ranks.own_threads(config.threads), options=config.backend.options)
    scene = replace(scene, model=scene.model.to(rasterizer.device))
    jury = judge(scene.test_views, scene.background, rasterizer, config.evaluate)
    earlier = (resume if config.cache else NO_RESUME).of(scene.model, scene.test_views, signature(rasterizer))
    known = earlier.entry(Measured, "before", *jury.depends_on(), lasting=True)
    before = known.load()
    if before is None:
        before = known.save(jury.quality(scene.model, progress.stage("measure before")))
    _log_measured("before", before)
    reset_peak_memory()
    helped = ranks.shared(rasterizer, config.threads, config.backend.options)
    encoded = codec.encode(scene, helped, resume, progress)
    peak_memory = None if codec.in_child_process else peak_memory_bytes()
    write_atomic(folder / codec.file, encoded.data, overwrite=True)
    data = (folder / codec.file).read_bytes()
    start = time.perf_counter()
    decoded = codec.decode(data)
    decode_seconds = time.perf_counter() - start
    decoded = decoded.to(rasterizer.device)
    after = jury.quality(decoded, progress.stage("measure after"))
    _log_measured("after", after)
    before, after = jury.speed(scene.model, before), jury.speed(decoded, after)  # one after the other, under one load
    _save_picture(folder / PICTURE_FILE, scene, decoded, after, len(data), rasterizer)
    shown = pictured([figures["psnr"] for figures in before.views], config.evaluate.pictures)
    save_views(folder, [scene.test_views[index] for index in shown], scene.model, decoded, rasterizer)
    _save_cameras(folder / CAMERAS_FILE, scene)
    rates = rate(len(data), scene.model.num_splats, decoded.num_splats, encoded.sections)
    commit = identity.git_commit()
    result = RunResult(
        dataset=scene.name,
        suite=config.dataset.suite,
        quality=encoded.quality if isinstance(encoded, Searched) else config.asked_quality,
        codec=config.codec.name,
        codec_version=codec.version,
        settings=_settings(config),
        parameters=_plain(encoded.parameters),
        sweep=config.sweep,
        file=codec.file,
        backend=rasterizer.name,
        seed=config.seed,
        git_commit=commit,
        bytes=rates.bytes,
        bytes_per_section={section.name: section.bytes for section in rates.sections},
        input_bytes=scene.model_bytes,
        uncompressed_bytes=rates.uncompressed_bytes,
        ratio=rates.ratio,
        splats_before=rates.splats_before,
        splats_after=rates.splats_after,
        train_views=len(scene.train_views),
        before=before,
        after=after,
        encode_seconds={stage.name: stage.seconds for stage in encoded.stages},
        saved_seconds={stage.name: stage.saved_seconds for stage in encoded.stages if stage.saved_seconds},
        decode_seconds=decode_seconds,
        peak_memory=peak_memory,
        machine=asdict(describe_machine()) | {"processes": ranks.count(), "runs_at_once": _runs_at_once(config)},
        stages=tuple(asdict(stage) for stage in encoded.stages),
        target=encoded.target if isinstance(encoded, Searched) else None,
        resumed=encoded.resumed,
        reasons=_reasons(config, codec, jury, commit),
        config_sha256=run_identity.config_sha256,
        inputs_sha256=run_identity.inputs_sha256,
        code_sha256=run_identity.code_sha256,
        bitstream_sha256=hashlib.sha256(data).hexdigest(),
        folder=folder,
    )
    return without_idle_reasons(result)


def _log_measured(side: str, measured: Measured) -> None:
    psnr = "no test views" if measured.psnr is None else f"PSNR {measured.psnr:.2f} dB"
    log.info("measured %s compression: %s", side, psnr)


def _runs_at_once(config: RunConfig) -> int:
    """How many runs may have shared the machine with this one, itself included: its times are as good as that."""
    return 1 if config.launcher.name == "local" else config.launcher.jobs or 1


def find_finished(folder: Path, wanted: Identity, force: bool) -> RunResult | None:
    """The result that lies in a run's folder, if it is whole and answers this run.

    Raises:
        ConfigError: there is a result, of other settings or another scene, and ``force`` is not given.
    """
    if force or not (folder / RESULT_FILE).exists():
        return None
    try:
        result = read_result(folder)
        data = (folder / result.file).read_bytes()
    except (PotrError, OSError, TypeError, ValueError) as error:
        log.warning("%s: not a finished run (%s); it is done again", folder, error)
        return None
    if hashlib.sha256(data).hexdigest() != result.bitstream_sha256:
        log.warning("%s: %s is not what %s measured; it is done again", folder, result.file, RESULT_FILE)
        return None
    what = {"config_sha256": "settings", "inputs_sha256": "model, cameras or photographs"}
    differs = [what[key] for key in what if getattr(result, key) != getattr(wanted, key)]
    made = (result.code_sha256, result.codec_version) == (wanted.code_sha256, wanted.codec_version)
    if differs == [what["config_sha256"]] and not made:
        differs = []  # other code may make other parameters of the same settings
    if differs:
        raise ConfigError(
            f"{folder}: holds a result of other {' and '.join(differs)}; "
            "give another dataset.name or outputs, or force=true to replace it"
        )
    if not made:
        log.warning("%s: made by another version (%s) of the code; it is done again", folder, result.codec_version)
        return None
    return result


def _save_picture(
    path: Path, scene: Scene, decoded: SplatModel, after: Measured, size: int, rasterizer: Rasterizer
) -> None:
    if not scene.test_views:
        path.unlink(missing_ok=True)  # of an earlier run
        return
    splats = scene.model.num_splats
    uncompressed = scene.model_bytes or UNCOMPRESSED_BYTES_PER_SPLAT * splats
    view = typical_view(scene.test_views, [figures["psnr"] for figures in after.views])
    title = f"{scene.name}: {megabytes(uncompressed)} to {megabytes(size)}, {uncompressed / size:.1f} times smaller"
    captions = (caption(splats, uncompressed), caption(decoded.num_splats, size))
    save_comparison(path, view, scene.model, decoded, rasterizer, title=title, captions=captions, overwrite=True)


def _pictures(folder: Path) -> dict[str, Path]:
    """For the tracker."""
    return {path.stem: path for path in [folder / PICTURE_FILE] if path.exists()}


def _save_cameras(path: Path, scene: Scene) -> None:
    """For ``potr render`` on the run's own files."""
    shots = [Shot(view.name, view.camera, TRAIN) for view in scene.train_views]
    shots += [Shot(view.name, view.camera, TEST) for view in scene.test_views]
    write_cameras_json(path, shots, overwrite=True)


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(min(available_threads(), before) if count is None else count)
        yield
    finally:
        torch.set_num_threads(before)


def _settings(config: RunConfig) -> dict[str, Any]:
    """What tells this run from another of the same scene, codec and quality."""
    return {key: _plain(value) for key, value in changes(config).items() if key != "codec.name"}


def _plain(value: Any) -> Any:
    """Enums as their values, as JSON has them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.value if isinstance(value, Enum) else value


def _reasons(config: RunConfig, codec: Coder, jury: Judge, commit: str | None) -> dict[str, str]:
    reasons = {f"{side}.{path}": why for side in ("before", "after") for path, why in jury.reasons().items()}
    reasons |= {"suite": "not one of the paper's", "sweep": "a single run"}
    if not config.codec.has_quality:
        reasons["quality"] = f"{config.codec.name} has a single operating point"
    if commit is None:
        reasons["git_commit"] = "not a git checkout"
    untold = "this system does not tell it"
    reasons["peak_memory"] = "another program did the work" if codec.in_child_process else untold
    return reasons | {"machine.gpu": "none", "machine.memory_bytes": untold}
