# SPDX-License-Identifier: Apache-2.0
"""Which results belong to one rate-distortion curve, what it is called, and what it looks like wherever it is drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from potr.encoder.quality import PRESETS
from potr.experiment.result import RunResult
from potr.experiment.scenes.suites import SUITES

# Settings of how a run was measured, which make no curve of their own.
_MEASURING = ("evaluate.",)
_SCENE = ("dataset.",)


@dataclass(frozen=True)
class Style:
    """Colour "#rrggbb" and a marker, named as matplotlib names them."""

    color: str
    marker: str


# Okabe and Ito's and Tol's colours, told apart by colour-blind eyes; the marker tells them apart in black and white.
STYLES = {
    "default": Style("#0072b2", "o"),
    "paper": Style("#d55e00", "s"),
    "spz": Style("#009e73", "^"),
    "compressed_ply": Style("#cc79a7", "v"),
    "sog": Style("#e69f00", "D"),
    "decimate_spz": Style("#56b4e9", "<"),
    "c3dgs": Style("#6b4c9a", "P"),
    "mesongs": Style("#8c6d31", "X"),
}
PUBLISHED = Style("#555555", "*")
_OTHERS = (Style("#44aa99", "h"), Style("#aa4499", "p"), Style("#999933", "d"), Style("#332288", "8"))


@dataclass(frozen=True)
class Curve:
    """The results of one scene with one codec and one set of settings, over quality.

    Attributes:
        scene: the dataset's name, with the settings that tell it apart from others of that name (other views, another
            size): curves of one scene name have seen the same model and the same cameras.
        suite: that the scene belongs to.
        codec: as in ``codec=``.
        settings: what else shapes the curve, dotted names to values.
        label: codec and settings, in words for a legend.
        points: by rising bytes.
    """

    scene: str
    suite: str | None
    codec: str
    settings: Mapping[str, Any]
    label: str
    points: tuple[RunResult, ...]

    @property
    def style(self) -> Style:
        """Its codec's, whatever the settings."""
        return style_of(self.codec)


def curves(results: Iterable[RunResult]) -> tuple[Curve, ...]:
    """Results by scene, codec and settings; ordered by suite, scene, codec and label, so never by when they were made.

    Of two results with the same bytes of one scene the one with more figures stays.
    """
    results = tuple(results)
    scenes = scene_names(results)
    groups: dict[tuple[str, str, str], list[RunResult]] = defaultdict(list)
    for result in results:
        groups[scenes[result.dataset, result.inputs_sha256], result.codec, label_of(result)].append(result)
    found = [
        Curve(scene, points[0].suite, codec, curve_settings(points[0]), label, _points(points))
        for (scene, codec, label), points in groups.items()
    ]
    return tuple(sorted(found, key=lambda c: (suite_rank(c.suite), c.scene, codec_rank(c.codec), c.label)))


def scene_names(results: Sequence[RunResult]) -> dict[tuple[str, str], str]:
    """(dataset, inputs_sha256) to a name that no other model or set of cameras has."""
    variants: dict[str, dict[str, RunResult]] = defaultdict(dict)
    for result in results:
        variants[result.dataset].setdefault(result.inputs_sha256, result)
    names: dict[tuple[str, str], str] = {}
    for dataset, inputs in variants.items():
        told = {sha: _told(_of(result.settings, _SCENE), strip=_SCENE) for sha, result in inputs.items()}
        unclear = len(set(told.values())) < len(told)
        for sha, text in told.items():
            words = [word for word in (text, f"inputs {sha[:8]}" if unclear else "") if word]
            alone = len(inputs) == 1
            names[dataset, sha] = dataset if alone or not words else f"{dataset} ({', '.join(words)})"
    return names


def curve_settings(result: RunResult) -> dict[str, Any]:
    """The settings that shape the curve: neither the scene's nor those of how it is measured."""
    return {k: v for k, v in sorted(result.settings.items()) if not k.startswith((*_SCENE, *_MEASURING))}


def label_of(result: RunResult) -> str:
    """``default (ours)``, ``paper (ours), prune.criterion=photo``, ``spz``."""
    return curve_label(result.codec, curve_settings(result))


def curve_label(codec: str, settings: Mapping[str, Any]) -> str:
    """A codec with its settings, and whether it is ours."""
    name = f"{codec} (ours)" if codec in PRESETS else codec
    if "rung" in settings:
        name, settings = f"rung {settings['rung']} (ours)", {k: v for k, v in settings.items() if k != "rung"}
    told = _told(settings)
    return f"{name}, {told}" if told else name


def style_of(codec: str) -> Style:
    """A codec's colour and marker in every figure; one not known here gets its own by its name."""
    return STYLES.get(codec, _OTHERS[sum(codec.encode()) % len(_OTHERS)])


def suite_rank(suite: str | None) -> tuple[int, str]:
    """Sorts suites as SUITES has them, unknown ones after, none last."""
    if suite is None:
        return len(SUITES) + 1, ""
    return (SUITES.index(suite) if suite in SUITES else len(SUITES)), suite


def codec_rank(codec: str) -> tuple[int, str]:
    """Sorts codecs as STYLES has them, unknown ones after."""
    known = list(STYLES)
    return (known.index(codec) if codec in STYLES else len(known)), codec


def _points(results: Sequence[RunResult]) -> tuple[RunResult, ...]:
    best: dict[str, RunResult] = {}
    for result in sorted(results, key=lambda r: (len(r.reasons), r.folder.as_posix())):
        best.setdefault(result.bitstream_sha256, result)
    return tuple(sorted(best.values(), key=lambda r: (r.bytes, r.quality or 0.0, r.bitstream_sha256)))


def _of(settings: Mapping[str, Any], prefixes: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in sorted(settings.items()) if key.startswith(prefixes)}


def _told(settings: Mapping[str, Any], strip: tuple[str, ...] = ()) -> str:
    words = []
    for key, value in sorted(settings.items()):
        for prefix in strip:
            key = key.removeprefix(prefix)
        words.append(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}")
    return ", ".join(words)
