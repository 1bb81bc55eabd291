"""The drift table: what `mlray monitor` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlray.monitoring.windows import Window
from mlray.stats.bins import Reference
from mlray.stats.drift import Drift, compare

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_BAR, _EIGHTHS = 8, " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_SHAPE = 12  # characters of a histogram
_WATCH = 0.1  # PSI beyond chance that is worth a look


def table(
    reference: Reference, window: Window, *, psi: float = 0.2, false_alarms: float = 0.01
) -> list[Drift]:
    """Drift of every feature and of the prediction, the most drifted first.

    `psi` and `false_alarms` as in `stats.drift.compare`. An empty window drifts nowhere: [].
    """
    if window.rows == 0:
        return []
    return compare(reference, window.counts, psi=psi, false_alarms=false_alarms)


def render_table(
    drifts: Sequence[Drift], reference: Reference, window: Window, *, title: str | None = None
) -> Table:
    """A rich table: a row per feature with bars and shapes, below it why alarms were raised.

    The prediction stands first, then the features as given. Bars are full at PSI 0.5; shapes are
    the shares of bins from low to high, or of categories by frequency, missing left out.
    """
    from rich import box
    from rich.table import Table

    prediction = reference.features[-1].name
    ordered = sorted(drifts, key=lambda drift: drift.feature != prediction)
    shown = Table(
        title=title,
        caption=_below(ordered, window),
        title_justify="left",
        caption_justify="left",
        caption_style="",
        box=box.SIMPLE,
        padding=0,
        pad_edge=False,
    )
    for name in ("feature", "PSI", "", "KS", "missing", "unseen", "training", "served", ""):
        right = name in ("PSI", "KS", "missing", "unseen")
        shown.add_column(name, justify="right" if right else "left", no_wrap=name != "feature")
    places = {f.name: i for i, f in enumerate(reference.features)}
    for drift in ordered:
        place = places[drift.feature]
        category = reference.features[place].kind == "category"
        plain = slice(2, None) if category else slice(0, -2)
        colour, verdict = _verdict(drift)
        shown.add_row(
            drift.feature,
            f"{drift.psi:.3f}",
            f"[{colour}]{bar(drift.psi / 0.5)}[/]",
            "" if drift.ks is None else f"{drift.ks:.3f}",
            f"{drift.missing_frac:.1%}",
            f"{drift.unseen_frac:.1%}" if category else "",
            shape(reference.counts[place][plain]),
            f"[{colour}]{shape(window.counts[place][plain])}[/]",
            f"[{colour}]{verdict}[/]",
        )
    return shown


def bar(share: float, width: int = _BAR) -> str:
    """A bar of `width` characters in steps of an eighth; cut off at 1.

    >>> bar(0.5, 4), bar(0.3, 4), bar(7, 4)
    ('██  ', '█▎  ', '████')
    """
    eighths = round(min(max(share, 0), 1) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def shape(counts: NDArray[np.int64], width: int = _SHAPE) -> str:
    """A histogram in one line: bins left to right, equally many in a character to fit `width`.

    >>> shape(np.array([0, 1, 2, 7, 14, 7, 0, 0])), shape(np.array([4, 4, 8, 8, 4]), 3)
    (' ▁▂▄█▄  ', '▄█▄')
    """
    if not counts.any():
        return ""
    each = -(-len(counts) // width)
    starts = np.arange(0, len(counts), each)
    heights = np.add.reduceat(counts, starts) / np.diff(starts, append=len(counts))
    steps = np.ceil(heights / heights.max() * len(_LEVELS)).astype(int)
    return "".join(_LEVELS[step - 1] if step else " " for step in steps)


def _verdict(drift: Drift) -> tuple[str, str]:
    """Colour and word: an alarm, half way to one, or nothing."""
    if drift.alarm:
        return "red", "ALARM"
    watch = drift.psi - drift.expected_psi >= _WATCH
    return ("yellow", "watch") if watch else ("green", "ok")


def _below(drifts: Sequence[Drift], window: Window) -> Text:
    """What was looked at, then the reasons of alarms, one a line."""
    from rich.text import Text

    lines = [Text(_caption(window), style="dim")]
    lines += [Text.assemble(("! ", "red"), drift.reason) for drift in drifts if drift.alarm]
    return Text("\n").join(lines)


def _caption(window: Window) -> str:
    if window.since is None or window.until is None:
        return "no served rows in this window"
    until = "%H:%M:%S" if window.since.date() == window.until.date() else "%Y-%m-%d %H:%M:%S"
    parts = [
        f"{window.rows:,} rows from {window.replicas} replica(s)",
        f"{window.since:%Y-%m-%d %H:%M:%S} to {window.until:{until}} UTC",
    ]
    if window.other_rows:
        parts.append(f"{window.other_rows:,} rows were counted into other bins and are left out")
    if window.torn:
        parts.append(f"{window.torn} line(s) could not be read")
    return "; ".join(parts)
