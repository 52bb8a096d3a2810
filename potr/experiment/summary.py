# SPDX-License-Identifier: Apache-2.0
"""Stored results as text: one run on one screen, many runs as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from potr.errors import PotrError
from potr.experiment.failure import FAILURE_FILE, INTERRUPTED, Failure, read_failure
from potr.experiment.result import CONFIG_FILE, LPIPS_NAMES, RESULT_FILE, Measured, RunResult, read_result

_MISSING = "—"
_COLUMNS = (
    *("dataset", "run", "splats", "bytes", "smaller", "AC zeros", "PSNR before", "after", "SSIM before", "after"),
    *("FPS before", "after", "encode s", "decode s", "peak MB"),
)


def summary(result: RunResult) -> str:
    """What was compressed, what it cost and gained, and where everything lies; at most 24 lines of 100 columns."""
    r, before, after = result, result.before, result.after
    judged = f"judged on {len(before.views)} test views" if before.views else "no test views to judge it on"
    at = "" if r.quality is None else f" at quality {r.quality:g}"
    basis = "" if r.input_bytes else " than 248 bytes a splat"
    bits = f"{8 * r.bytes / r.splats_after:.1f} bits a splat" if r.splats_after else "nothing left"
    rows = [
        ("", "before", "after", ""),
        ("splats", f"{r.splats_before:,}", f"{r.splats_after:,}", f"{_share(r.splats_after, r.splats_before)} kept"),
        (
            "bytes",
            f"{r.input_bytes or r.uncompressed_bytes:,}",
            f"{r.bytes:,}",
            f"{r.smaller:.1f}x smaller{basis}, {bits}",
        ),
        ("PSNR dB", _number(before.psnr, 2), _number(after.psnr, 2), _change(before.psnr, after.psnr, 2)),
        ("SSIM", _number(before.ssim, 4), _number(after.ssim, 4), _change(before.ssim, after.ssim, 4)),
        *_lpips(before, after),
        ("FPS", _number(before.fps, 1), _number(after.fps, 1), _times(before.fps, after.fps)),
    ]
    width = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{r.dataset}{at}: {r.codec} codec, {r.backend} rasteriser, {judged}",
        *_target(r),
        "",
        *(f"  {a:<{width[0]}}  {b:>{width[1]}}  {c:>{width[2]}}   {d}".rstrip() for a, b, c, d in rows),
        "",
        f"  AC zeros  {_percent(ac_zero_share(r))} of the SH coefficients of degrees 1 to 3",
        f"  seconds   {_seconds(r.encode_seconds)}; decode {r.decode_seconds:.2f}"
        + (" (pruning resumed)" if r.resumed else ""),
        f"  memory    {_megabytes(r.peak_memory)} at most while encoding",
        "",
        *_files(r),
    ]
    return "\n".join(lines)


def table(results: Sequence[RunResult]) -> str:
    """One line a run, Markdown, by dataset and quality; a figure that is missing is a dash."""
    rows: list[tuple[str, ...]] = [_COLUMNS, tuple("---" if index < 2 else "---:" for index in range(len(_COLUMNS)))]
    for r in sorted(results, key=lambda r: (r.dataset, r.codec, r.quality or 0)):
        rows.append(
            (
                *(r.dataset, r.folder.name, f"{r.splats_after:,} ({_share(r.splats_after, r.splats_before)})"),
                *(f"{r.bytes:,}", f"{r.smaller:.1f}x", _percent(ac_zero_share(r))),
                *(_number(r.before.psnr, 2), _number(r.after.psnr, 2)),
                *(_number(r.before.ssim, 4), _number(r.after.ssim, 4)),
                *(_number(r.before.fps, 1), _number(r.after.fps, 1)),
                *(f"{sum(r.encode_seconds.values()):.1f}", f"{r.decode_seconds:.2f}"),
                _number(None if r.peak_memory is None else r.peak_memory / 1e6, 0),
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


@dataclass(frozen=True)
class Collected:
    """What lies under a folder of runs: the finished ones, the failed ones, and one line for what is neither."""

    results: tuple[RunResult, ...]
    failures: tuple[Failure, ...]
    problems: tuple[str, ...]


def collect(outputs: Path) -> Collected:
    """Every run under a folder, whatever became of it, in the order of the folders' names.

    A failure beside a result is the later of the two: what was asked last has no result.
    """
    results: list[RunResult] = []
    failures: list[Failure] = []
    problems: list[str] = []
    folders = {path.parent for name in (RESULT_FILE, FAILURE_FILE, CONFIG_FILE) for path in outputs.glob(f"**/{name}")}
    folders = {
        folder for folder in folders if "wandb" not in folder.relative_to(outputs).parts
    }  # has a config.yaml too
    for folder in sorted(folders):
        try:
            if (folder / FAILURE_FILE).exists():
                failures.append(read_failure(folder))
            elif (folder / RESULT_FILE).exists():
                results.append(read_result(folder))
            else:
                problems.append(f"{folder.relative_to(outputs)}: {INTERRUPTED}")
        except PotrError as error:
            problems.append(str(error))
    return Collected(tuple(results), tuple(failures), tuple(problems))


def ac_zero_share(result: RunResult) -> float | None:
    """Share of the AC coefficients that are zero in the bitstream, as the last stage that knows it says."""
    shares = [stage["details"].get("ac_zero_share") for stage in result.stages]
    return next((share for share in reversed(shares) if share is not None), None)


def _lpips(before: Measured, after: Measured) -> list[tuple[str, str, str, str]]:
    """A row for each of the two measures; none where none was computed."""
    pairs = [(label, getattr(before, name), getattr(after, name)) for name, label in LPIPS_NAMES.items()]
    return [(label, _number(a, 4), _number(b, 4), _change(a, b, 4)) for label, a, b in pairs if (a, b) != (None, None)]


def _target(result: RunResult) -> list[str]:
    """What was asked for instead of a quality, and what it came to."""
    if result.target is None:
        return []
    ((name, asked),) = result.target["asked"].items()
    text = f"target.{name}={asked:g}: {result.target['reached']:.6g} in {len(result.target['trials'])} trials"
    if "train_psnr_before" in result.target:
        before, after = result.target["train_psnr_before"], result.target["train_psnr_after"]
        text += f"; PSNR on training views {before:.2f} to {after:.2f} dB"
    return [text]


def _files(result: RunResult) -> list[str]:
    folder = result.folder
    told = {"before_after.png": "before and after", result.file: "the compressed scene", RESULT_FILE: "every number"}
    room = max(len(str(folder / name)) for name in told)
    return [f"  {folder / name!s:<{room}}  {what}" for name, what in told.items() if (folder / name).exists()]


def _number(value: float | None, digits: int) -> str:
    return _MISSING if value is None else f"{value:,.{digits}f}"


def _change(before: float | None, after: float | None, digits: int) -> str:
    return "" if before is None or after is None else f"{after - before:+.{digits}f}"


def _times(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{after / before:.2f}x"


def _percent(share: float | None) -> str:
    return _MISSING if share is None else f"{100 * share:.1f} %"


def _share(part: int, whole: int) -> str:
    return _percent(part / whole if whole else None)


def _seconds(stages: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.items())


def _megabytes(size: int | None) -> str:
    return _MISSING if size is None else f"{size / 1e6:,.0f} MB"
