# SPDX-License-Identifier: Apache-2.0
"""The jobs of a sweep in this process, in several of this machine, on a SLURM cluster, or by ray.

A launcher takes jobs and yields each with its outcome as soon as there is one, in any order. A process that dies takes
its own job along and no other. The only module that imports joblib, submitit and ray.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from potr.experiment.lock import Busy
from potr.experiment.scenes.open import LastScene
from potr.experiment.sweep.job import Job, Outcome, attempt, attempt_elsewhere, died
from potr.experiment.sweep.launcher import LauncherConfig
from potr.threads import available_cores, available_threads

log = logging.getLogger(__name__)

Done = Iterator[tuple[Job, Outcome]]
SUBMITIT_FOLDER = ".submitit"  # scripts and logs of submitted jobs, under outputs
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def launch(jobs: Sequence[Job], launcher: LauncherConfig, outputs: Path) -> Done:
    """Do the jobs, every one of which has a config."""
    launchers: dict[str, Callable[[Sequence[Job], LauncherConfig, Path], Done]] = {
        "local": _local,
        "joblib": _joblib,
        "submitit_local": _submitit_local,
        "slurm": _slurm,
        "ray": _ray,
    }
    return launchers[launcher.name](jobs, launcher, outputs)


def _local(jobs: Sequence[Job], launcher: LauncherConfig, outputs: Path) -> Done:
    """One after the other. Those that another process works on come last, so that two sweeps share the work."""
    left, scenes = [], LastScene()
    for job in jobs:
        log.info("run %d of %d: %s", job.number, job.of, job.title)
        try:
            yield job, attempt(replace(job, wait=False), scenes)
        except Busy as error:
            log.info("%s; it comes later", error)
            left.append(job)
    for job in left:
        yield job, attempt(job, scenes)


def _joblib(jobs: Sequence[Job], launcher: LauncherConfig, outputs: Path) -> Done:
    """Several processes. One that dies ends its whole pool; the runs it was doing then go on one by one."""
    at_once = launcher.jobs or 1
    threads = max(1, min(available_threads(), available_cores() // at_once))
    left = [replace(job, threads=threads) for job in jobs]
    while left:
        begun: list[Job] = []
        done: set[int] = set()
        try:
            for job, outcome in _pool(left, at_once, threads, begun):
                done.add(job.number)
                yield job, outcome
        except BrokenExecutor:
            handed = list(begun)  # joblib's own thread may still be adding
            suspects = [job for job in handed if job.number not in done]
            log.warning("a process died; the %d runs it may have been doing go on one by one", len(suspects))
            for job in suspects:
                try:
                    yield from _pool([job], 1, threads, [])
                except BrokenExecutor:
                    yield job, died(job, "killed, perhaps for want of memory")
            left = left[len(handed) :]
        else:
            left = []


def _pool(jobs: Sequence[Job], at_once: int, threads: int, begun: list[Job]) -> Done:
    """One pool of processes; ``begun`` grows by the jobs that are handed out."""
    import joblib

    def handed_out() -> Iterator[Any]:
        for job in jobs:
            begun.append(job)
            yield joblib.delayed(_named_attempt)(job)

    # More than one job at a time, for joblib does a single one at a time in this very process.
    settings = {"n_jobs": max(2, at_once), "batch_size": 1, "pre_dispatch": at_once, "return_as": "generator_unordered"}
    with joblib.parallel_config(backend="loky", inner_max_num_threads=threads):
        yield from joblib.Parallel(**settings)(handed_out())


def _named_attempt(job: Job) -> tuple[Job, Outcome]:
    return job, attempt_elsewhere(job)


def _submitit_local(jobs: Sequence[Job], launcher: LauncherConfig, outputs: Path) -> Done:
    """What SLURM would do, in processes of this machine."""
    at_once = launcher.jobs or 1
    cpus = launcher.cpus or max(1, min(available_threads(), available_cores() // at_once))
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(cpus)))  # the jobs' processes inherit them
    try:
        executor = _executor("local", outputs, {"timeout_min": launcher.minutes})
        waiting = [replace(job, threads=cpus) for job in jobs]
        submitted: dict[int, tuple[Job, Any]] = {}
        while waiting or submitted:
            while waiting and len(submitted) < at_once:
                job = waiting.pop(0)
                submitted[job.number] = job, executor.submit(Resumable(), job)
            yield from _finished(submitted, seconds=0.1)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _slurm(jobs: Sequence[Job], launcher: LauncherConfig, outputs: Path) -> Done:
    """One job array. A job that SLURM preempts or that runs out of time is queued again and resumes."""
    threads = launcher.cpus or 1
    exports = [f"export {name}={threads}" for name in _THREAD_VARIABLES]
    parameters = {
        "name": "potr",
        "timeout_min": launcher.minutes,
        "cpus_per_task": launcher.cpus,
        "gpus_per_node": launcher.gpus,
        "mem_gb": launcher.memory_gb,
        "slurm_array_parallelism": launcher.jobs,
        "slurm_partition": launcher.partition,
        "slurm_account": launcher.account,
        "slurm_qos": launcher.qos,
        "slurm_setup": [*(launcher.setup or ()), *exports],
        "slurm_additional_parameters": launcher.options,
    }
    executor = _executor("slurm", outputs, parameters, slurm_max_num_timeout=launcher.requeues or 0)
    asked = [replace(job, threads=threads) for job in jobs]
    submitted = {
        job.number: (job, sent) for job, sent in zip(asked, executor.map_array(Resumable(), asked), strict=True)
    }
    log.info("%d jobs submitted; their logs: %s", len(submitted), outputs / SUBMITIT_FOLDER)
    while submitted:
        yield from _finished(submitted, seconds=2.0)


class Resumable:
    """What submitit pickles. At a timeout or a preemption it asks ``checkpoint`` for what is to be queued again."""

    def __call__(self, job: Job) -> Outcome:
        """Do the run."""
        return attempt_elsewhere(job)

    def checkpoint(self, job: Job) -> Any:
        """The same job: its run goes on from the last pruning pass."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


def _executor(cluster: str, outputs: Path, parameters: dict[str, Any], **options: Any) -> Any:
    import submitit

    executor = submitit.AutoExecutor(folder=outputs.resolve() / SUBMITIT_FOLDER / "%j", cluster=cluster, **options)
    executor.update_parameters(**{name: value for name, value in parameters.items() if value not in (None, {})})
    return executor


def _finished(submitted: dict[int, tuple[Job, Any]], seconds: float) -> Done:
    """The submitted jobs that have come to an end, removed from ``submitted``; all are cancelled at an interruption."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        time.sleep(seconds)
        for job, sent in [(job, sent) for job, sent in submitted.values() if sent.done()]:
            del submitted[job.number]
            try:
                outcome = sent.result()
            except (FailedJobError, UncompletedJobError):
                outcome = died(job, f"{sent.state.lower()}; its log: {sent.paths.stderr}")
            yield job, outcome
    except (KeyboardInterrupt, GeneratorExit):
        for _, sent in submitted.values():
            sent.cancel()
        raise


def _ray(jobs: Sequence[Job], launcher: LauncherConfig, outputs: Path) -> Done:
    """As many at once as ray finds room for."""
    import ray

    cpus = launcher.cpus or available_threads()
    resources: dict[str, Any] = {"num_cpus": cpus, "num_gpus": launcher.gpus or 0, "max_retries": 0}
    if launcher.memory_gb:
        resources["memory"] = launcher.memory_gb * 10**9
    ray.init(address=launcher.address, ignore_reinit_error=True)
    try:
        remote = ray.remote(**resources)(attempt_elsewhere)
        submitted = {remote.remote(replace(job, threads=cpus)): job for job in jobs}
        while submitted:
            (ready, *_), _ = ray.wait(list(submitted))
            job = submitted.pop(ready)
            try:
                outcome = ray.get(ready)
            except ray.exceptions.RayError as error:
                outcome = died(job, str(error).splitlines()[0])
            yield job, outcome
    finally:
        ray.shutdown()
