# SPDX-License-Identifier: Apache-2.0
"""``potr encode | decode | info | render | compare | report``: arguments in, one library call, a few lines out."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import potr
from potr.errors import ConfigError, PotrError
from potr.threads import MAX_THREADS, THREADS_VARIABLE, available_threads

_QUALITY = 0.5
_TRAIN_VIEWS = 8  # that PSNR before and after is told of, which takes 2 to 5 % of an encode (chair, fern)
REFUSED, INTERRUPTED = 2, 130  # exit codes; argparse's own errors are 2 too


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 2 refused (one line on stderr says why), 130 interrupted.
    """
    args = _parser().parse_args(arguments)
    try:
        from potr import screen  # after parsing: --help needs neither torch nor rich

        if hasattr(args, "threads"):
            import torch

            torch.set_num_threads(args.threads or min(available_threads(), torch.get_num_threads()))
        with screen.screen(args.verbose - args.quiet) as args.progress:
            text = args.command(args)
    except PotrError as error:
        if args.verbose:
            traceback.print_exc()
        sys.stderr.write(f"potr {args.name}: {error}\n")
        return REFUSED
    except KeyboardInterrupt:
        sys.stderr.write(f"potr {args.name}: interrupted; nothing is half-written{_resumable(args)}\n")
        return INTERRUPTED
    if text:
        screen.show(text)
    return 0


def _encode(args: argparse.Namespace) -> str:
    from potr.encoder.quality import parse_overrides
    from potr.encoder.resume import Resume
    from potr.encoder.target import mean_psnr
    from potr.evaluate.measure import evaluate, evenly_spaced
    from potr.experiment.compare import refuse_potr
    from potr.files import refuse_existing, write_atomic

    refuse_existing(args.output, args.overwrite)
    refuse_potr(args.model)
    given = parse_overrides(args.set)
    potr.config_for(_QUALITY, args.codec, given)  # refuses what is out of range before anything is read
    target = _target(args)
    rasterizer = potr.select_rasterizer(args.backend, threads=args.threads)
    scene, splats, adapted = _to_encode(args, rasterizer)

    def config_at(quality: float) -> potr.CodecConfig:
        return adapted(potr.config_for(quality, args.codec, given))

    quality, found = args.quality or _QUALITY, None
    resume = Resume(_resume_folder(args.output))
    how: dict[str, Any] = {"rasterizer": rasterizer, "resume": resume, "progress": args.progress}
    if target is None:
        config = config_at(quality)
        encoded = potr.encode(scene.model, scene.train_views, config=config, **how)
    else:
        try:
            found = potr.encode_to_target(scene.model, scene.train_views, target, config_at=config_at, **how)
        except potr.TargetError:
            resume.clear()  # the search has come to its end
            raise
        quality, encoded = found.quality, found.encoded
    write_atomic(args.output, encoded.data, overwrite=args.overwrite)
    resume.clear()
    report: dict[str, Any] = {
        "output": str(args.output),
        "bytes": len(encoded.data),
        "input": str(args.model),
        "input_bytes": scene.model_bytes,
        "splats_before": splats,
        "splats_after": encoded.stages[-1].splats_after,
        "quality": quality,
        "stages": [dataclasses.asdict(stage) for stage in encoded.stages],
    }
    if found is not None:
        report["target"] = found.to_dict()
    alone, to_a_loss = args.scene is None, found is not None and found.train_psnr is not None
    before, decoded = (model.to(rasterizer.device) for model in (scene.model, potr.decode(encoded.data)))
    if scene.test_views and (alone or to_a_loss):
        after = evaluate(decoded, scene.test_views, rasterizer, progress=args.progress.stage("evaluate"))
        report["judged"] = {"views": len(after.views), "psnr_after": after.psnr, "ssim_after": after.ssim}
        if not alone:
            report["judged"]["psnr_before"] = evaluate(before, scene.test_views, rasterizer).psnr
    if not alone and not to_a_loss:
        total = len(scene.train_views)
        views = [scene.train_views[index] for index in sorted(evenly_spaced(total, _TRAIN_VIEWS))]
        psnr = {
            f"psnr_{when}": mean_psnr(model, views, rasterizer, args.progress)
            for when, model in (("before", before), ("after", decoded))
        }
        report["train"] = {"views": len(views), "of": total, **psnr}
    return _json(report) if args.json else _encoded_text(report)


def _to_encode(
    args: argparse.Namespace, rasterizer: potr.Rasterizer
) -> tuple[potr.Scene, int, Callable[[potr.CodecConfig], potr.CodecConfig]]:
    """The model with its views, how many splats it had, and what its configuration becomes where views are placed."""
    from potr.experiment import schema

    if args.scene is not None:
        background = None if args.background is None else schema.parse_color(args.background)
        scene = potr.load_scene(
            args.scene, model=args.model, background=background, downscale=args.downscale, clean=args.clean
        )
        return scene, scene.model.num_splats, lambda config: config
    if args.background is not None or args.downscale != 1.0:
        raise ConfigError("--background and --downscale are of a scene's photographs: they need --scene DIR")
    if args.psnr_drop is not None:
        raise ConfigError(
            "--psnr-drop is a loss against photographs: it needs --scene DIR; --size-mb and --splats do not"
        )
    from potr.encoder.placed_views import model_alone

    whole = potr.load_ply(args.model, clean=args.clean)
    alone = model_alone(whole, rasterizer, progress=args.progress)
    views, size = alone.views, args.model.stat().st_size
    scene = potr.Scene(args.model.stem, alone.model, views.train, views.held_out, model_bytes=size)
    return scene, whole.num_splats, alone.adapted


def _decode(args: argparse.Namespace) -> str:
    from potr.experiment.compare import read_potr
    from potr.files import refuse_existing

    refuse_existing(args.output, args.overwrite)
    model = potr.decode(read_potr(args.input))
    potr.save_ply(model, args.output, overwrite=args.overwrite)
    report = {"output": str(args.output), "bytes": args.output.stat().st_size, "splats": model.num_splats}
    if args.json:
        return _json(report)
    return f"{args.output}: {model.num_splats:,} splats, SH degree {model.sh_degree}, {report['bytes']:,} bytes"


def _info(args: argparse.Namespace) -> str:
    from potr.experiment.compare import read_potr
    from potr.format.decode import describe

    description = describe(read_potr(args.input))
    return _json(description) if args.json else _described(args.input, description)


def _render(args: argparse.Namespace) -> str:
    from potr.experiment.cameras import find_view
    from potr.experiment.compare import load_model
    from potr.experiment.pictures import save_image
    from potr.experiment.schema import parse_color
    from potr.files import refuse_existing

    refuse_existing(args.output, args.overwrite)
    model = load_model(args.input)
    view = find_view(args.input, args.scene, args.camera)
    background = view.background if args.background is None else parse_color(args.background)
    rasterizer = potr.select_rasterizer(args.backend, threads=args.threads)
    image = rasterizer.render(model.to(rasterizer.device), view.camera, background)
    save_image(args.output, image, overwrite=args.overwrite)
    camera = view.camera
    if args.json:
        report = {"output": str(args.output), "view": view.name, "width": camera.width, "height": camera.height}
        return _json(report)
    return f"{args.output}: view {view.name}, {camera.width} x {camera.height}"


def _compare(args: argparse.Namespace) -> str:
    from potr.experiment import compare, schema
    from potr.files import refuse_existing

    if args.output is not None:
        refuse_existing(args.output, args.overwrite)
    for path in (args.first, args.second):
        if path.suffix.lower() == ".ply":
            compare.refuse_potr(path)  # before it is read as the scene's model
    background = None if args.background is None else schema.parse_color(args.background)
    scene = potr.load_scene(args.scene, model=_scene_model(args), background=background, downscale=args.downscale)
    judged = compare.compare(
        (args.first, args.second),
        scene,
        potr.select_rasterizer(args.backend, threads=args.threads),
        schema.EvaluateConfig(lpips=args.lpips),
        picture=args.output,
        overwrite=args.overwrite,
        progress=args.progress,
    )
    if args.json:
        return _json([dataclasses.asdict(one) for one in judged])
    return compare.table(*judged) + (f"\n{args.output}" if args.output else "")


def _report(args: argparse.Namespace) -> str:
    import datetime

    from potr.experiment.report.page import TITLE, write_report

    written = write_report(
        args.outputs,
        args.output or args.outputs / "report.html",
        made=datetime.datetime.now(datetime.UTC).date().isoformat(),
        title=args.title or TITLE,
        overwrite=args.overwrite,
        picture_bytes=round(1e6 * args.pictures_mb),
    )
    if args.json:
        return _json({**dataclasses.asdict(written), "output": str(written.output)})
    without = f", {written.holes} without a result or pictures" if written.holes else ""
    left_out = f" ({written.pictures_left_out} more left out, see --pictures-mb)" if written.pictures_left_out else ""
    size = f"{written.bytes / 1e6:.1f} MB"
    return f"{written.output}: {size}, {written.runs} runs{without}, {written.pictures} pictures{left_out}"


def _scene_model(args: argparse.Namespace) -> Path | None:
    """A .ply among the two serves where the scene folder has no model of its own."""
    return next((path for path in (args.first, args.second) if path.suffix.lower() == ".ply"), None)


def _target(args: argparse.Namespace) -> potr.Target | None:
    asked = {"size_mb": args.size_mb, "psnr_drop": args.psnr_drop, "splats": args.splats}
    given = {name: value for name, value in asked.items() if value is not None}
    return potr.Target(**given) if given else None


def _resume_folder(output: Path) -> Path:
    return output.with_name(output.name + ".resume")


def _resumable(args: argparse.Namespace) -> str:
    if args.name != "encode" or not _resume_folder(args.output).exists():
        return ""
    return f"; the same command goes on from the last pruning pass ({_resume_folder(args.output)})"


def _json(value: object) -> str:
    return json.dumps(value, indent=2, allow_nan=False)


def _encoded_text(report: dict[str, Any]) -> str:
    size, before, after = report["bytes"], report["splats_before"], report["splats_after"]
    ratio = f"{report['input_bytes'] / size:.1f}x smaller than {report['input']}"
    seconds = ", ".join(f"{stage['name']} {stage['seconds']:.1f} s" for stage in report["stages"])
    text = f"{report['output']}: {size:,} bytes, {ratio}; {after:,} of {before:,} splats; {seconds}"
    if "target" in report:
        text += _found_text(report["quality"], report["target"])
    if "train" in report:
        train = report["train"]
        text += f"\n{train['views']} of {train['of']} training views, which the encoder has seen: {_psnr_text(train)}"
    if "judged" in report:
        judged = report["judged"]
        text += f"\n{judged['views']} views that the encoder has not seen: "
        if "psnr_before" in judged:
            text += _psnr_text(judged)
        else:
            text += f"PSNR {judged['psnr_after']:.2f} dB, SSIM {judged['ssim_after']:.4f} to the model's own renders,"
            text += "\nwhich is no quality against photographs (only --scene DIR can tell that); "
            text += "a model alone wants a higher --quality"
    return text


def _psnr_text(figures: dict[str, Any]) -> str:
    before, after = figures["psnr_before"], figures["psnr_after"]
    return f"PSNR {before:.2f} to {after:.2f} dB ({after - before:+.2f})"


def _found_text(quality: float, target: dict[str, Any]) -> str:
    text = f"\nquality {quality:.4f}, found in {len(target['trials'])} trials"
    if "train_psnr_before" in target:
        before, after = target["train_psnr_before"], target["train_psnr_after"]
        text += f"; PSNR on the training views {before:.2f} to {after:.2f} dB ({after - before:+.2f})"
    return text


def _described(path: Path, description: dict[str, Any]) -> str:
    size, splats = description["bytes"], description["num_splats"]
    sections = [(s["name"], s["coder"], s["raw_bytes"], s["coded_bytes"]) for s in description["sections"]]
    sections.append(("header", "", description["header_bytes"], description["header_bytes"]))
    room = max(len(s[0]) for s in sections)
    head = f"version {description['version']}, SH degree {description['sh_degree']}"
    lines = [
        f"{path}: {size:,} bytes, {splats:,} splats, {head}",
        f"{'section':<{room}}  {'coder':<6} {'raw bytes':>12} {'bytes':>12} {'share':>7} {'bits a splat':>12}",
    ]
    for name, coder, raw, coded in [*sections, ("all", "", sum(s[2] for s in sections), size)]:
        bits = f"{8 * coded / splats:.2f}" if splats else ""
        lines.append(f"{name:<{room}}  {coder:<6} {raw:>12,} {coded:>12,} {coded / size:>7.1%} {bits:>12}")
    return "\n".join(lines)


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number in (0, 1], got '{text}'")
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got '{text}'")
    return int(text)


def _threads(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_THREADS:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {MAX_THREADS}, got '{text}'")
    return int(text)


def _megabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"expected a number in [0, 1000], got '{text}'")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="potr",
        description="Compress trained 3D Gaussian Splatting models, and look at what that did.",
        epilog="Exit codes: 0 done, 2 refused (one line on stderr says why), 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"potr {potr.__version__}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    add = _command(commands, "encode", _encode, "compress a .ply, best with the views it was trained on")
    add("model", type=Path, metavar="MODEL.ply", help="the trained model")
    add("-o", "--output", type=Path, required=True, metavar="OUT.potr", help="the compressed file")
    help_scene = (
        "folder with the training cameras and photographs; without it views are placed around the model, which "
    )
    help_scene += "costs more of its quality: give a higher --quality then, such as 0.8"
    add("--scene", type=Path, metavar="DIR", help=help_scene)
    one = commands.choices["encode"].add_mutually_exclusive_group()
    one.add_argument("--quality", type=_quality, metavar="Q", help="0 < Q <= 1, larger is better and bigger (0.5)")
    help_drop = "or as good: PSNR on the training views this much below the uncompressed model's, within 0.02 dB"
    one.add_argument("--size-mb", type=float, metavar="MB", help="or as large: 10^6 bytes, within 2 %%, by search")
    one.add_argument("--psnr-drop", type=float, metavar="DB", help=help_drop)
    one.add_argument("--splats", type=_positive, metavar="N", help="or with so many splats, within 2 %%")
    add("--codec", default="default", metavar="NAME", help="default (the best we have) or paper")
    help_set = "one parameter of the codec, for example prune.cap=1e-8; again for more (conf/ explains them all)"
    add("--set", action="append", default=[], metavar="STAGE.FIELD=VALUE", help=help_set)
    add("--downscale", type=float, default=1.0, metavar="F", help="shrink the photographs by this factor (1)")
    add("--clean", action="store_true", help="remove splats with NaN, infinite or absurd values instead of refusing")
    _common(add, background=True, overwrite=True, backend=True)

    add = _command(commands, "decode", _decode, "a compressed file back to a .ply")
    add("input", type=Path, metavar="IN.potr")
    add("-o", "--output", type=Path, required=True, metavar="OUT.ply")
    _common(add, overwrite=True)

    add = _command(commands, "info", _info, "what is in a compressed file")
    add("input", type=Path, metavar="IN.potr")
    _common(add)

    add = _command(commands, "render", _render, "one view of a .ply or .potr as PNG")
    add("input", type=Path, metavar="MODEL", help="a .ply or .potr")
    add("--camera", required=True, metavar="N|NAME", help="a view's number (from 0, by sorted name) or its name")
    add("-o", "--output", type=Path, required=True, metavar="OUT.png")
    help_scene = "folder with the cameras; without it the cameras.json beside the model, or two folders above"
    add("--scene", type=Path, metavar="DIR", help=help_scene)
    _common(add, background=True, overwrite=True, backend=True)

    add = _command(commands, "compare", _compare, "measure two models on a scene's test views")
    add("first", type=Path, metavar="A", help="a .ply or .potr, usually the one before")
    add("second", type=Path, metavar="B", help="a .ply or .potr, usually the one after")
    add("--scene", type=Path, required=True, metavar="DIR", help="folder with the cameras and photographs")
    add("-o", "--output", type=Path, metavar="OUT.png", help="picture of a typical view, before and after")
    add("--lpips", choices=("none", "alex", "vgg"), default="none", help="LPIPS too (none)")
    add("--downscale", type=float, default=1.0, metavar="F", help="shrink the photographs by this factor (1)")
    _common(add, background=True, overwrite=True, backend=True)

    add = _command(commands, "report", _report, "one HTML page of every run under a folder")
    add("outputs", type=Path, metavar="OUTPUTS", help="a folder of runs")
    add("-o", "--output", type=Path, metavar="REPORT.html", help="the page (OUTPUTS/report.html); replaces a report")
    add("--title", metavar="TEXT", help="of the page (POTR report)")
    help_pictures = "leave out pictures beyond so many MB; the page is a third larger than they are (10)"
    add("--pictures-mb", type=_megabytes, default=10.0, metavar="MB", help=help_pictures)
    _common(add, overwrite=True)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: Callable[[argparse.Namespace], str],
    help_text: str,
) -> Callable[..., argparse.Action]:
    parser = commands.add_parser(name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.")
    parser.set_defaults(command=function)
    return parser.add_argument


def _common(
    add: Callable[..., argparse.Action], *, background: bool = False, overwrite: bool = False, backend: bool = False
) -> None:
    if background:
        add("--background", metavar="COLOR", help="black, white or #rrggbb (the scene's own)")
    if backend:
        add("--backend", default="auto", metavar="NAME", help="auto, cuda, cpu or reference (auto)")
        add("--threads", type=_threads, metavar="N", help=f"CPU threads ({THREADS_VARIABLE}, else every core granted)")
    if overwrite:
        add("--overwrite", action="store_true", help="replace an output that exists")
    add("--json", action="store_true", help="the answer as JSON")
    add("-v", "--verbose", action="count", default=0, help="log everything; show where an error came from")
    add("-q", "--quiet", action="count", default=0, help="only warnings and errors, no progress")


if __name__ == "__main__":
    sys.exit(main())
