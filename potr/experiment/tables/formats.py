# SPDX-License-Identifier: Apache-2.0
"""A document as Markdown, LaTeX (booktabs) or CSV. Same document, same text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from potr.experiment.tables.document import MISSING, Cell, Column, Document, Marked, Table, Value, holes_table

_LONG = 35  # rows that still fit on a page
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
    **{"—": "--", "–": "--", "−": "$-$", "×": r"$\times$", "±": r"$\pm$", "Δ": r"$\Delta$", "†": r"\dag{}"},
    **{"\n": " ", "≥": r"$\geq$", "≤": r"$\leq$", "λ": r"$\lambda$", "…": r"\ldots{}"},
}


def markdown(document: Document) -> str:
    """The whole document; figures as links to their .svg in the folder of its name."""
    parts = [f"# {document.title}", document.intro]
    for table in document.tables:
        parts += [f"## {table.title}", table_markdown(table)]
    if document.figures:
        parts.append("## Figures")
        parts += [f"![{_cell_text(f.title)}]({document.name}/{f.name}.svg)" for f in document.figures]
    if document.holes:
        parts += ["## Holes", table_markdown(holes_table(document))]
    return "\n\n".join(part for part in parts if part) + "\n"


def table_markdown(table: Table) -> str:
    """A table and its notes."""
    marks = table.marks()
    lines = [
        [column.head for column in table.columns],
        ["---:" if column.spec else "---" for column in table.columns],
        *([_printed(c, col, marks) for c, col in zip(row, table.columns, strict=True)] for row in table.rows),
    ]
    text = "\n".join("| " + " | ".join(_cell_text(cell) for cell in line) + " |" for line in lines)
    if not table.rows:
        text += "\n\nNo run yet."
    notes = [*(f"{mark}: {note}" for note, mark in marks.items()), *table.notes]
    return text + "".join(f"\n\n{_cell_text(note)}." for note in notes)


def table_text(table: Table) -> str:
    """As ``table_markdown``, padded so that it reads as a table on a terminal too."""
    marks = table.marks()
    lines = [[column.head for column in table.columns]]
    for row in table.rows:
        lines.append([_cell_text(_printed(c, col, marks)) for c, col in zip(row, table.columns, strict=True)])
    notes = [*(f"{mark}: {note}" for note, mark in marks.items()), *table.notes]
    text = aligned(lines, [not column.spec for column in table.columns])
    return text + ("" if table.rows else "\n\nNo run yet.") + "".join(f"\n\n{_cell_text(note)}." for note in notes)


def aligned(lines: Sequence[Sequence[str]], left: Sequence[bool]) -> str:
    """Cells as Markdown with columns of equal width; the first line is the head, ``left`` aligns words."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(left))]
    rule = ["-" * width if is_left else "-" * (width - 1) + ":" for width, is_left in zip(widths, left, strict=True)]
    padded = [
        [
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(line, widths, left, strict=True)
        ]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


def latex(document: Document) -> str:
    r"""Every table as one to \input; nothing of it needs more than booktabs, longtable and graphicx."""
    head = f"% {document.title}. Written by make tables; needs \\usepackage{{booktabs,longtable,graphicx}}"
    tables = [*document.tables, *([holes_table(document)] if document.holes else [])]
    return "\n\n".join([escape_comment(head), *(table_latex(document.name, table) for table in tables)]) + "\n"


def table_latex(prefix: str, table: Table) -> str:
    """One table with its caption, label and notes; a long one runs over pages."""
    marks = table.marks()
    align = "".join(map(_alignment, table.columns))
    head = " & ".join(escape(column.head) for column in table.columns) + r" \\"
    body = [
        " & ".join(_latex_cell(c, col, marks) for c, col in zip(row, table.columns, strict=True)) + r" \\"
        for row in table.rows
    ]
    notes = [rf"\textsuperscript{{{escape(mark)}}}~{escape(note)}." for note, mark in marks.items()]
    notes += [f"{escape(note)}." for note in table.notes]
    title = rf"\caption{{{escape(table.title)}}}\label{{tab:{prefix}-{table.name}}}"
    below = [rf"\par\footnotesize {' '.join(notes)}"] if notes else []
    if len(body) > _LONG:
        lines = [rf"\begin{{longtable}}{{{align}}}", title + r" \\", r"\toprule", head, r"\midrule", r"\endfirsthead"]
        lines += [r"\toprule", head, r"\midrule", r"\endhead", *body, r"\bottomrule", r"\end{longtable}"]
        return "\n".join([*lines, *([rf"{{{below[0]}\par}}"] if below else [])])
    lines = [r"\begin{table}[t]", r"\centering", title, rf"\begin{{tabular}}{{{align}}}", r"\toprule", head]
    return "\n".join([*lines, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", *below, r"\end{table}"])


def table_csv(table: Table) -> str:
    """Numbers as they are, a missing one empty; a column with marked cells is followed by one with their notes."""
    marked = [any(isinstance(row[i], Marked) for row in table.rows) for i in range(len(table.columns))]
    head: list[str] = []
    for column, has_notes in zip(table.columns, marked, strict=True):
        name = column.raw or column.head
        head += [name, f"{name} note"] if has_notes else [name]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in table.rows:
        cells: list[Value] = []
        for cell, has_notes in zip(row, marked, strict=True):
            value, note = (cell.value, cell.note) if isinstance(cell, Marked) else (cell, "")
            cells += [value, note] if has_notes else [value]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return out.getvalue()


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands, in ASCII; what has no name here becomes a question mark."""
    safe = "".join(_LATEX.get(character, character) for character in text)
    return safe.encode("ascii", "replace").decode()


def escape_comment(text: str) -> str:
    """Text for a comment line."""
    return text.replace("\n", " ").encode("ascii", "replace").decode()


def _printed(cell: Cell, column: Column, marks: dict[str, str]) -> str:
    if isinstance(cell, Marked):
        mark = marks[cell.note]
        return f"{column.text(cell.value)} {mark if mark == '†' else f'({mark})'}"
    return column.text(cell)


def _alignment(column: Column) -> str:
    if column.share:
        return rf"p{{{column.share:g}\linewidth}}"
    return "r" if column.spec else "l"


def _latex_cell(cell: Cell, column: Column, marks: dict[str, str]) -> str:
    if isinstance(cell, Marked):
        return rf"{_latex_cell(cell.value, column, marks)}\textsuperscript{{{escape(marks[cell.note])}}}"
    text = column.text(cell)
    if column.spec and text.startswith("-") and text != MISSING:
        return f"$-${escape(text[1:])}"
    return escape(text)


def _cell_text(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
