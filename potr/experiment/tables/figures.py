# SPDX-License-Identifier: Apache-2.0
"""Draws figures with matplotlib, the only module that does; the same figure gives the same bytes."""

from __future__ import annotations

import io
from typing import Any

from potr.errors import install_command
from potr.experiment.tables.document import Figure, Panel, Series

HOW_TO_GET = f"no figures: matplotlib is not installed; what brings it: {install_command('figures')}"
FORMATS = ("svg", "png")
_WIDTH, _HEIGHT, _ROW = 4.6, 3.4, 0.23  # inches: of a panel, and of a category
_SETTINGS: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 5.5,
    "savefig.bbox": "tight",
    "savefig.dpi": 160,
    "svg.hashsalt": "potr",
}


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw(figure: Figure) -> dict[str, bytes]:
    """The figure as .svg and .png, by these endings."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    count = len(figure.panels)
    rows = max((len(panel.categories) for panel in figure.panels), default=0)
    with mpl.rc_context(_SETTINGS):
        canvas: Any = Canvas(figsize=(_WIDTH * count, max(_HEIGHT, _ROW * rows + 1.1)), layout="constrained")
        FigureCanvasAgg(canvas)
        legend: dict[str, Any] = {}
        for axes, panel in zip(canvas.subplots(1, count, squeeze=False)[0], figure.panels, strict=True):
            legend |= _draw_panel(axes, panel)
        canvas.suptitle(figure.title, fontsize=10)
        if legend:
            columns = 1 if len(legend) > 3 else len(legend)
            place = "outside right center" if columns == 1 else "outside lower center"
            canvas.legend(legend.values(), legend.keys(), loc=place, ncols=columns)
        files: dict[str, bytes] = {}
        for ending, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            out = io.BytesIO()
            canvas.savefig(out, format=ending, metadata=metadata)
            files[ending] = out.getvalue()
    return files


def _draw_panel(axes: Any, panel: Panel) -> dict[str, Any]:
    """Draws it; legend words to what they stand for."""
    drawn = {series.label: _draw_series(axes, series) for series in panel.series}
    for text, level in panel.levels:
        axes.axhline(level, color="#333333", linewidth=0.9, linestyle=":")
        where: Any = ("axes fraction", "data")
        axes.annotate(text, (0.01, level), xycoords=where, xytext=(0, 2), textcoords="offset points", fontsize=7.5)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    axes.margins(x=0.06, y=0.09)
    if panel.log_x:
        _log_axis(axes)
    if panel.categories:
        for y in range(len(panel.categories)):
            x = [x for series in panel.series for x, at in zip(series.x, series.y, strict=True) if at == y]
            axes.hlines(y, min(x, default=0.0), max(x, default=0.0), color="#bbbbbb", linewidth=1.2, zorder=1)
        axes.set_yticks(range(len(panel.categories)), panel.categories)
        axes.set_ylim(len(panel.categories) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
    return drawn


def _draw_series(axes: Any, series: Series) -> Any:
    style, color = series.style, series.style.color
    line = "none" if not series.line else "--" if series.dashed else "-"
    (handle,) = axes.plot(
        series.x,
        series.y,
        color=color,
        linestyle=line,
        marker=style.marker,
        markerfacecolor="white" if series.hollow else color,
        markeredgecolor=color,
        label=series.label,
    )
    return handle


def _log_axis(axes: Any) -> None:
    """Plain numbers at 1, 2 and 5 instead of powers of ten; some more where the axis is short."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    subs = (1.0, 2.0, 5.0) if high / low > 6 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
