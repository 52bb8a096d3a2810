# SPDX-License-Identifier: Apache-2.0
"""``python -m potr.datasets [list | verify | download]``: the scenes of the paper on this machine."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from potr.errors import ConfigError, PotrError

if TYPE_CHECKING:
    from potr.experiment.scenes.places import Roots
    from potr.experiment.scenes.suites import SuiteScene

REFUSED, INTERRUPTED = 2, 130  # exit codes; argparse's own errors are 2 too
MODELS_WORD = "models"  # where a scene is expected: its released model alone
MIRROR_VARIABLE = "POTR_MIRROR"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 2 refused or something is not as it should be, 130 interrupted.
    """
    args = _parser().parse_args(_with_command(sys.argv[1:] if arguments is None else list(arguments)))
    try:
        from potr import screen  # after parsing: --help needs neither torch nor rich

        with screen.screen(args.verbose - args.quiet) as args.progress:
            text, code = args.function(args)
    except PotrError as error:
        if args.verbose:
            traceback.print_exc()
        sys.stderr.write(f"potr.datasets {args.command}: {error}\n")
        return REFUSED
    except KeyboardInterrupt:
        sys.stderr.write(
            f"potr.datasets {args.command}: interrupted; nothing is half-unpacked, the same command goes on\n"
        )
        return INTERRUPTED
    screen.show(text)
    return int(code)


def _list(args: argparse.Namespace) -> tuple[str, int]:
    from potr.experiment.scenes.places import locate
    from potr.experiment.scenes.suites import SCENES

    roots = _roots(args)
    rows = [("suite", "scene", "photographs", "model")]
    complete = 0
    for scene in SCENES.values():
        place = locate(scene, roots)
        absent = "missing" if scene.has_released_model else "missing; none is released"
        rows.append((scene.suite, scene.name, str(place.folder or "missing"), str(place.model or absent)))
        complete += place.folder is not None and place.model is not None
    last = (
        f"{complete} of {len(SCENES)} scenes are complete. Looked in {roots.data} and {roots.models} "
        "(POTR_DATA, POTR_MODELS); python -m potr.datasets download SCENE fetches what is missing."
    )
    return f"{_table(rows)}\n\n{last}", 0


def _verify(args: argparse.Namespace) -> tuple[str, int]:
    from potr.experiment.scenes.places import Place, locate, missing_message
    from potr.experiment.scenes.verify import verify

    roots = _roots(args)
    blocks, wrong = [], 0
    for scene in _scenes(args.what):
        place = locate(scene, roots)
        if place == Place(None, None) and not args.what:
            continue  # of all scenes only those that are here
        if place.folder is None or place.model is None:
            blocks.append(missing_message(scene, roots, place))
            wrong += bool(args.what)
        if place != Place(None, None):
            checks = verify(scene, place, quick=args.quick, progress=args.progress)
            wrong += sum(not check.ok for check in checks)
            rows = [
                ("ok" if check.ok else "DIFFERS", check.what, check.found + _expected(check.ok, check.expected))
                for check in checks
            ]
            head = f"{scene.title}: {place.folder or 'no photographs'}, {place.model or 'no model'}"
            blocks.append(f"{head}\n{_table(rows, indent='  ')}")
    if not blocks:
        blocks.append(f"none of the paper's scenes is in {roots.data} or {roots.models}")
    blocks.append(f"{wrong} not as expected" if wrong else "all as expected")
    return "\n\n".join(blocks), REFUSED if wrong else 0


def _expected(ok: bool, expected: str | None) -> str:
    if expected is None:
        return " (what to expect is not known)"
    return "" if ok else f"; expected {expected}"


def _download(args: argparse.Namespace) -> tuple[str, int]:
    from potr.experiment.scenes.fetch import fetch, plan

    words = [word for word in args.what if word != MODELS_WORD]
    models_alone = MODELS_WORD in args.what or args.only == "models"
    scenes = [scene for scene in _scenes(words) if words or scene.has_released_model]
    tasks, remarks = plan(
        scenes,
        _roots(args),
        photographs=not models_alone,
        models=args.only != "photographs",
        everything=args.everything,
    )
    done = fetch(
        tasks,
        base_url=args.base_url,
        remove_archives=args.remove_archives,
        partial=args.partial,
        progress=args.progress,
    )
    return "\n".join([*remarks, *done]), 0


def _roots(args: argparse.Namespace) -> Roots:
    from potr.experiment.scenes.places import Roots

    usual = Roots.from_environment()
    return Roots(args.data or usual.data, args.models or usual.models)


def _scenes(words: Sequence[str]) -> list[SuiteScene]:
    """The scenes that names of scenes and suites stand for; without a name all of them."""
    from potr.experiment.scenes.suites import SCENES, SUITES, scenes_of

    found: dict[str, SuiteScene] = {}
    by_suite = {suite.lower(): suite for suite in SUITES}
    for word in words or ["all"]:
        if word == "all":
            found |= SCENES
        elif word.lower() in by_suite:
            found |= {scene.name: scene for scene in scenes_of(by_suite[word.lower()])}
        elif word in SCENES:
            found[word] = SCENES[word]
        else:
            names = f"a suite ({', '.join(SUITES)}) or a scene ({', '.join(SCENES)})"
            raise ConfigError(f"expected all, {names}, got '{word}'")
    return list(found.values())


def _table(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"{indent}{line}".rstrip() for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m potr.datasets",
        description="The scenes of the paper on this machine: list them, verify them, download what is missing.",
        epilog="Without a command: list. Exit codes: 0 done, 2 refused or not as expected, 130 interrupted.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    _command(commands, "list", _list, "which scenes and models are here, and where")

    add = _command(commands, "verify", _verify, "compare what is here with what is known of the scenes")
    add("what", nargs="*", metavar="SCENE|SUITE", help="without a name: every scene that is here")
    add("--quick", action="store_true", help="read headers only; else every photograph and every splat")

    add = _command(commands, "download", _download, "fetch the photographs and released models that are missing")
    help_what = "models: no photographs, only released models, of all scenes or of those named beside it"
    add("what", nargs="+", metavar="SCENE|SUITE|models|all", help=help_what)
    add("--only", choices=("photographs", "models"), help="one of the two parts")
    add("--everything", action="store_true", help="unpack all of a scene's folder, not only what a run reads")
    help_partial = "read only what is needed out of the archives on the server; no archive is kept"
    add("--partial", action="store_true", help=help_partial)
    add("--remove-archives", action="store_true", help="delete each archive once it is unpacked")
    add(
        "--base-url",
        default=os.environ.get(MIRROR_VARIABLE),
        metavar="URL",
        help=f"fetch the archives from here, by file name ({MIRROR_VARIABLE})",
    )
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: Callable[[argparse.Namespace], tuple[str, int]],
    help_text: str,
) -> Callable[..., argparse.Action]:
    parser = commands.add_parser(name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.")
    parser.set_defaults(function=function)
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="folder of all scenes (POTR_DATA, else data/)")
    add("--models", type=Path, metavar="DIR", help="folder of all trained models (POTR_MODELS, else models/)")
    add("-v", "--verbose", action="count", default=0, help="log everything; show where an error came from")
    add("-q", "--quiet", action="count", default=0, help="only warnings and errors, no progress")
    return add


def _with_command(arguments: list[str]) -> list[str]:
    """``list`` where no command is given."""
    given = arguments and (not arguments[0].startswith("-") or arguments[0] in ("-h", "--help"))
    return arguments if given else ["list", *arguments]


if __name__ == "__main__":
    sys.exit(main())
