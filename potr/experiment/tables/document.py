# SPDX-License-Identifier: Apache-2.0
"""What an experiment has to say, before it is Markdown, LaTeX, CSV or a picture: tables, plots and what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from potr.experiment.tables.curves import Style

PUBLISHED_NOTE = "published by others, copied from experiments/paper; not measured here"
MISSING = "—"

Value = str | int | float | None


@dataclass(frozen=True)
class Marked:
    """A value with a note that must not be read past; the table gives it a letter."""

    value: Value
    note: str


Cell = Value | Marked


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title, unit: of its head.
        spec: format of its numbers; empty for a column of words, which is aligned left.
        scale: printed numbers are multiplied by it; CSV has them as they are.
        raw: what CSV calls it, where that is not title and unit (bytes printed as MB).
        share: of the line, for a column of sentences in LaTeX.
    """

    title: str
    unit: str = ""
    spec: str = ""
    scale: float = 1.0
    raw: str = ""
    share: float = 0.0

    @property
    def head(self) -> str:
        """Title and unit."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title

    def text(self, value: Value) -> str:
        """A value as it is printed; a missing one is a dash, never 0."""
        if value is None:
            return MISSING
        if isinstance(value, str):
            return value
        return format(value if self.scale == 1.0 else value * self.scale, self.spec)


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; ``notes`` explain it, beside those of its marked cells."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.name}: expected {len(self.columns)} cells, got {row}")

    def marks(self) -> dict[str, str]:
        """Note to its mark, in the order of their first cells: a dagger for what is published, letters for the rest."""
        found: dict[str, str] = {}
        letters = 0
        for row in self.rows:
            for cell in row:
                if isinstance(cell, Marked) and cell.note not in found:
                    found[cell.note] = "†" if cell.note == PUBLISHED_NOTE else _letter(letters)
                    letters += cell.note != PUBLISHED_NOTE
        return found


def _letter(number: int) -> str:
    """a to z, then aa, ab, ..."""
    letter = chr(ord("a") + number % 26)
    return letter if number < 26 else _letter(number // 26 - 1) + letter


@dataclass(frozen=True)
class Series:
    """Points of one colour and marker, joined by a line unless ``line`` is False; ``hollow`` is for what is published
    or was before.
    """

    label: str
    style: Style
    x: tuple[float, ...]
    y: tuple[float, ...]
    hollow: bool = False
    line: bool = True
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes. ``levels`` are horizontal lines with their words; ``categories`` name y = 0, 1, 2, ..."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    levels: tuple[tuple[str, float], ...] = ()
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """Panels side by side with one legend."""

    name: str
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Document:
    """All of one experiment.

    Attributes:
        name: of the experiment and of its files.
        intro: what was done, a paragraph.
        tables: the first is what the screen shows.
        holes: what has no result, and why.
    """

    name: str
    title: str
    intro: str
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...] = ()
    holes: tuple[tuple[str, str], ...] = field(default=())


def holes_table(document: Document) -> Table:
    """The holes as a table of their own."""
    return Table("holes", "No result", (Column("run", share=0.35), Column("because", share=0.6)), document.holes)


def mean(values: Iterable[float | None]) -> Cell:
    """Mean of what is there; marked where some is missing, None where all is."""
    values = tuple(values)
    there = [value for value in values if value is not None]
    if not there:
        return None
    result = sum(there) / len(there)
    return result if len(there) == len(values) else Marked(result, f"mean of {len(there)} of {len(values)} scenes")
