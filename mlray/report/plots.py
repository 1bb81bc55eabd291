"""The drawings of the report, as inline SVG.

One unit of a drawing is one CSS pixel at full width. Colours are written as variables of the
page's style sheet, so that every drawing follows light and dark. Nothing here touches pyplot.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mlray.report.words import Estimate, count, precise, share, short

# Stand-ins that Matplotlib can parse; `_themed` turns each into the page's variable.
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
ACCENT, SECOND, THIRD = "#050505", "#060606", "#070707"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "line",
    PAPER: "paper",
    ACCENT: "accent",
    SECOND: "second",
    THIRD: "third",
}
_COLOUR = re.compile(r"#0[1-7]0[1-7]0[1-7]")
_TAG = re.compile(r"<[^>]+>")
_NOT_DRAWN = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|<\?xml.*?\?>|<!DOCTYPE.*?>", re.S)
_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and selected
    "svg.hashsalt": "mlray",  # the same numbers give the same bytes
    "text.parse_math": False,  # a `$` in a label is a dollar
    "font.size": 12,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "axes.unicode_minus": True,
}
_LABEL_CHARS = 16
_WIDTH = 330
"""Pixels of a drawing in a row of three; most are drawn at this width, so text keeps its size."""


@contextmanager
def style() -> Iterator[None]:
    """All drawings of one page happen inside this block."""
    with rc_context(_STYLE), warnings.catch_warnings():
        # a script that Matplotlib's own font lacks is drawn by the reader's browser
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def roc(points: tuple[np.ndarray, np.ndarray], auc: Estimate | None) -> Markup:
    """ROC curve: share of negatives against share of positives above each threshold."""
    axes = _axes("false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    axes.fill_between(*points, color=ACCENT, alpha=0.10, linewidth=0)
    axes.plot(*points, color=ACCENT, linewidth=2)
    _unit(axes)
    area = f", area {precise(auc.value)}" if auc else ""
    return _svg(axes, "roc", f"ROC curve{area}. The dashed diagonal is guessing.")


def precision_recall(
    points: tuple[np.ndarray, np.ndarray], base_rate: float | None, area: Estimate | None
) -> Markup:
    """Precision against recall, with the base rate that guessing reaches."""
    axes = _axes("recall", "precision")
    if base_rate is not None:
        axes.axhline(base_rate, color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
        above = base_rate < 0.1  # at the left, where a good curve is far from the line
        axes.text(0.01, base_rate + (0.015 if above else -0.02), f"base rate {share(base_rate)}",
                  va="bottom" if above else "top", color=MUTED, fontsize=11)  # fmt: skip
    axes.plot(*points, color=ACCENT, linewidth=2)
    _unit(axes)
    said = f", average precision {precise(area.value)}" if area else ""
    return _svg(axes, "pr", f"Precision-recall curve{said}.")


def calibration(predicted: np.ndarray, observed: np.ndarray, rows: np.ndarray | None) -> Markup:
    """Observed share of positives in bins of the predicted probability."""
    axes = _axes("predicted probability", "observed share")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    axes.plot(predicted, observed, color=ACCENT, linewidth=1.5)
    sizes = 36.0 if rows is None else 16 + 84 * rows / max(rows.max(), 1)
    axes.scatter(predicted, observed, s=sizes, color=ACCENT, edgecolors=PAPER, linewidths=1.5)
    _unit(axes)
    said = "Calibration curve. On the dashed diagonal, probabilities mean what they say."
    return _svg(axes, "calibration", said)


def histogram(
    edges: np.ndarray,
    series: Mapping[str, np.ndarray],
    label: str,
    name: str,
    mark: tuple[float, str] | None = None,
) -> Markup:
    """Rows per bin, one translucent outline per series; `mark` is a labelled vertical line."""
    axes = _axes(label, "share of rows" if len(series) > 1 else "rows", (_WIDTH, 290), 56,
                 above=24 if len(series) > 1 else 10)  # fmt: skip
    tallest = 0.0
    for (text, counts), colour in zip(series.items(), (ACCENT, SECOND, THIRD), strict=False):
        heights = counts / max(counts.sum(), 1) if len(series) > 1 else counts.astype(float)
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.28)
        axes.stairs(heights, edges, color=colour, linewidth=1.5, label=_cut(text))
        tallest = max(tallest, float(heights.max(initial=0)))
    _short_ticks(axes)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, (tallest or 1.0) * 1.16)
    if len(series) > 1:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.3g} %"))
        _legend(axes)
    if mark is not None:
        right = mark[0] > (edges[0] + edges[-1]) / 2
        axes.axvline(mark[0], color=INK, linewidth=1, linestyle=(0, (2, 3)))
        axes.annotate(mark[1], (mark[0], axes.get_ylim()[1]), (-5 if right else 5, 0), va="top",
                      textcoords="offset points", ha="right" if right else "left", color=INK,
                      fontsize=11)  # fmt: skip
    shown = " and ".join(series)
    return _svg(axes, name, f"Histogram of {label}: {shown}.")


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Markup:
    """Rows by true (down) and predicted (across) class; the shade is the share of the true class.

    Args:
        matrix: (K, K) counts.
        classes: K names.
    """
    k = len(classes)
    names = [_cut(name) for name in classes]
    left = 34 + 7 * max(map(len, names))
    side = max(18, min(84, int(_WIDTH - left - 12) // k, 300 // k))
    turned = k > 4 and max(map(len, names)) * 7 > side
    below = 34 + (6 * max(map(len, names)) if turned else 14)
    width = max(_WIDTH, left + k * side + 12)
    axes = _axes("predicted", "true", (width, k * side + below + 10), left, below,
                 right=width - left - k * side)  # fmt: skip
    axes.grid(False)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for i in range(k):
        for j in range(k):
            part = float(shares[i, j])
            axes.fill([j, j + 0.97, j + 0.97, j], [i, i, i + 0.97, i + 0.97], color=ACCENT,
                      alpha=0.06 + 0.86 * part, linewidth=0)  # fmt: skip
            if k <= 8:
                _cell(axes, i, j, int(matrix[i, j]), part, side)
    axes.set(xlim=(0, k), ylim=(k, 0))
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(np.arange(k) + 0.5, names, rotation=45 if turned else 0,
                    ha="right" if turned else "center", rotation_mode="anchor")  # fmt: skip
    axes.set_yticks(np.arange(k) + 0.5, names)
    right = float(np.trace(matrix)) / max(float(matrix.sum()), 1)
    return _svg(axes, "confusion", f"Confusion matrix; {share(right)} of rows on the diagonal.")


def _cell(axes: Axes, i: int, j: int, rows: int, part: float, side: int) -> None:
    colour = PAPER if part > 0.65 else INK
    two = side >= 40
    text = count(rows) if side >= 58 and rows < 1e6 else short(float(rows))
    axes.text(j + 0.485, i + (0.40 if two else 0.5), text, ha="center", va="center",
              color=colour, fontsize=13 if two else 10)  # fmt: skip
    if two:
        axes.text(j + 0.485, i + 0.68, f"{100 * part:.0f} %", ha="center", va="center",
                  color=colour, fontsize=10.5)  # fmt: skip


def predicted_against_true(
    true_edges: np.ndarray, predicted_edges: np.ndarray, counts: np.ndarray
) -> Markup:
    """Regression: rows per cell of true and predicted value; a darker cell holds more rows.

    Args:
        counts: (true bins, predicted bins).
    """
    axes = _axes("true value", "predicted value")
    axes.grid(False)
    strongest = np.log1p(max(counts.max(initial=0), 1))
    for i, j in zip(*np.nonzero(counts), strict=True):
        x0, x1 = true_edges[i], true_edges[i + 1]
        y0, y1 = predicted_edges[j], predicted_edges[j + 1]
        axes.fill([x0, x1, x1, x0], [y0, y0, y1, y1], color=ACCENT, linewidth=0,
                  alpha=0.08 + 0.9 * float(np.log1p(counts[i, j]) / strongest))  # fmt: skip
    low = max(true_edges[0], predicted_edges[0])
    high = min(true_edges[-1], predicted_edges[-1])
    if high > low:
        axes.plot([low, high], [low, high], color=INK, linewidth=1, linestyle=(0, (4, 4)))
    axes.set(xlim=(true_edges[0], true_edges[-1]), ylim=(predicted_edges[0], predicted_edges[-1]))
    _short_ticks(axes)
    said = "Predicted against true values. Right predictions lie on the dashed diagonal."
    return _svg(axes, "predicted", said)


def curve(
    epochs: Sequence[int],
    series: Mapping[str, Sequence[float]],
    label: str,
    name: str,
    best: int | None,
) -> Markup:
    """One or more series by epoch, the best epoch marked."""
    axes = _axes("epoch", "", (_WIDTH, 230), 52, above=24 if len(series) > 1 else 10)
    for (text, values), colour in zip(series.items(), (ACCENT, SECOND, THIRD), strict=False):
        dots: Any = {"marker": "o", "markersize": 4} if len(epochs) <= 30 else {}
        axes.plot(epochs, values, color=colour, linewidth=2, label=text, **dots)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.4g}"))
    axes.margins(x=0.04, y=0.16)
    if best is not None and best in epochs:
        axes.axvline(best, color=INK, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
    if len(series) > 1:
        _legend(axes)
    marked = f" The dashed line marks the best epoch, {best}." if best is not None else ""
    return _svg(axes, name, f"{label} by epoch: {', '.join(series)}.{marked}")


def intervals(rows: Sequence[tuple[str, Estimate]], label: str) -> Markup:
    """Estimates with their 95 % intervals on one axis, the first one in the accent colour."""
    left = 20 + 7 * max(len(text) for text, _ in rows)
    axes = _axes(label, "", (460, 56 + 34 * len(rows)), left)
    axes.grid(False, axis="y")
    for i, (_, estimate) in enumerate(rows):
        colour = ACCENT if i == 0 else MUTED
        if estimate.low is not None and estimate.high is not None:
            axes.plot([estimate.low, estimate.high], [i, i], color=colour, linewidth=5,
                      alpha=0.35, solid_capstyle="round")  # fmt: skip
        axes.plot([estimate.value], [i], marker="o", markersize=8, color=colour)
        axes.annotate(precise(estimate.value), (estimate.value, i), (0, 9), color=INK,
                      textcoords="offset points", ha="center", fontsize=11)  # fmt: skip
    axes.set_yticks(range(len(rows)), [text for text, _ in rows])
    axes.set_ylim(len(rows) - 0.6, -0.75)
    axes.margins(x=0.10)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    if max(abs(estimate.value) for _, estimate in rows) >= 1e4:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short(float(v))))
    said = "; ".join(f"{text} {precise(e.value)} ({e.interval})" for text, e in rows)
    return _svg(axes, "headline", f"{label}: {said}.")


def spark(counts: Sequence[float], said: str, labels: Sequence[str] = ()) -> Markup:
    """A histogram as small as a word, drawn by hand: a table may hold hundreds of them."""
    width, height = 120.0, 28.0
    tallest = max([*counts, 1e-12])
    step = width / max(len(counts), 1)
    gap = 1.0 if step > 3 else 0.0
    bars = []
    for i, value in enumerate(counts):
        tall = max(height * value / tallest, 1.0 if value else 0.0)
        tip = f"<title>{escape(labels[i])}: {count(value)}</title>" if labels else ""
        bars.append(
            f'<rect x="{i * step:.1f}" y="{height - tall:.1f}" width="{step - gap:.1f}"'
            f' height="{tall:.1f}">{tip}</rect>'
        )
    return Markup(
        f'<svg class="spark" viewBox="0 0 {width:g} {height:g}" role="img"'
        f' aria-label="{escape(said)}">{"".join(bars)}</svg>'
    )


def _axes(
    x: str,
    y: str,
    size: tuple[float, float] = (_WIDTH, 290),
    left: float = 52,
    below: float = 44,
    *,
    above: float = 10,
    right: float = 12,
) -> Axes:
    """New axes in a figure of `size` pixels, with fixed margins: no layout engine to wait for."""
    width, height = size
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.patch.set_visible(False)
    axes = figure.add_axes(
        (
            left / width,
            below / height,
            (width - left - right) / width,
            (height - below - above) / height,
        )
    )
    axes.patch.set_visible(False)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return axes


def _unit(axes: Axes) -> None:
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])


def _short_ticks(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5))
        axis.set_major_formatter(FuncFormatter(lambda v, _: short(float(v))))


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.03), fontsize=12,
                borderaxespad=0.1, borderpad=0, handlelength=1.2, columnspacing=1.4)  # fmt: skip


def _cut(text: str) -> str:
    return text if len(text) <= _LABEL_CHARS else text[: _LABEL_CHARS - 1] + "…"


def _svg(axes: Axes, name: str, said: str) -> Markup:
    """The figure of `axes` as SVG for an HTML page; `said` is what a screen reader says."""
    buffer = io.StringIO()
    FigureCanvasSVG(axes.figure).print_svg(buffer)
    text = _NOT_DRAWN.sub("", buffer.getvalue())
    text = _TAG.sub(lambda tag: _themed(tag[0], name), text).strip()
    view = re.search(r'viewBox="[^"]+"', text)
    inner = text[text.index(">") + 1 :]
    return Markup(
        f'<svg class="plot" {view[0] if view else ""} role="img"'
        f' aria-label="{escape(said)}">{inner}'
    )


def _themed(tag: str, name: str) -> str:
    """One SVG tag in the page's colours and font, its ids unlike those of other drawings."""
    tag = _COLOUR.sub(lambda c: f"var(--{_VARIABLES[c[0]]})" if c[0] in _VARIABLES else c[0], tag)
    tag = re.sub(r"font-family: [^;\"]+", "font-family: inherit", tag)
    tag = tag.replace('xlink:href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    return tag.replace(' id="', f' id="{name}-')


def numbers(values: Any) -> np.ndarray:
    """As float64 array."""
    return np.asarray(values, dtype=np.float64)
