# SPDX-License-Identifier: Apache-2.0
"""Finished runs as one HTML page that needs nothing else: ``potr report outputs/``.

What the page says comes from ``report_data``; how it looks lies in ``report/assets/``. Style, script, data and pictures
are written into the page, and its own content security policy forbids it everything else: it makes no request, and
runs no script but its own, whatever a folder is called.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potr.errors import PotrError
from potr.experiment.report.data import report_data
from potr.experiment.summary import collect
from potr.files import refuse_existing, write_atomic

ASSETS = Path(__file__).resolve().parent / "assets"
SCRIPTS = ("dom.js", "plots.js", "pixels.js", "viewer.js", "tables.js", "page.js")
GENERATOR = "potr report"
TITLE = "POTR report"
PICTURE_BYTES = 10_000_000  # a page of 14 MB
_OURS = f'<meta name="generator" content="{GENERATOR}">'.encode()


@dataclass(frozen=True)
class Written:
    """A page that was written: where, its size, and how many runs, holes and pictures are in it."""

    output: Path
    bytes: int
    runs: int
    holes: int
    pictures: int
    pictures_left_out: int


def write_report(
    outputs: Path,
    path: Path,
    *,
    made: str,
    title: str = TITLE,
    overwrite: bool = False,
    picture_bytes: int = PICTURE_BYTES,
) -> Written:
    """Write the page of everything that lies under a folder of runs.

    Args:
        outputs: the folder.
        path: of the page. An earlier report is replaced, another file only with ``overwrite``.
        made: the date that the page bears; otherwise the same runs give the same bytes.
        title: of the page.
        overwrite: replace whatever is there.
        picture_bytes: leave out pictures beyond so many bytes (the page has four thirds of them).

    Raises:
        PotrError: there is no run, or the page may not or cannot be written.
    """
    refuse_existing(path, overwrite or is_report(path))
    if not outputs.is_dir():
        raise PotrError(f"{outputs}: expected a folder of runs, found none")
    found = collect(outputs)
    if not found.results:
        without = len(found.failures) + len(found.problems)
        holes = f", {without} without a result" if without else ""
        command = f"python -m potr.run outputs={shlex.quote(str(outputs))}"
        raise PotrError(f"{outputs}: no finished run{holes}; {command} makes one")
    content = report_data(found, outputs, picture_bytes)
    try:
        pictures = [picture.read_bytes() for picture in content.pictures]
    except OSError as error:
        raise PotrError(f"{error.filename}: cannot read: {error.strerror}") from None
    text = page({"made": made, **content.data}, pictures, title).encode("utf-8", "replace")
    write_atomic(path, text, overwrite=overwrite or is_report(path))
    return Written(
        output=path,
        bytes=len(text),
        runs=len(content.data["runs"]),
        holes=len(content.data["holes"]),
        pictures=len(pictures),
        pictures_left_out=content.data["pictures"]["left_out"],
    )


def is_report(path: Path) -> bool:
    """Whether a file is a page that ``write_report`` wrote."""
    try:
        with open(path, "rb") as file:
            return _OURS in file.read(2000)
    except OSError:
        return False


def page(data: dict[str, Any], pictures: Iterable[bytes], title: str) -> str:
    """The whole page from the data its script reads and the WebP files that the data number."""
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    script = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        "generator": GENERATOR,
        "title": html.escape(title),
        "style": style,
        "script": script,
        "data": _json_in_html(data),
        "pictures": "\n".join(
            f'<script type="text/plain" id="picture-{number}">{base64.b64encode(picture).decode()}</script>'
            for number, picture in enumerate(pictures)
        ),
    }
    template = (ASSETS / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json_in_html(data: dict[str, Any]) -> str:
    """JSON that no HTML parser mistakes for the end of its script element: ASCII without <, > and &."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text)
