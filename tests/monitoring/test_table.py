from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console

from mlray.monitoring.counters import count
from mlray.monitoring.table import render_table, table
from mlray.monitoring.windows import Window
from mlray.stats.bins import Reference

FEATURES = ("delay", "load", "carrier", "score")


def window(reference: Reference, rows: Any) -> Window:
    return Window(tuple(count(reference.features, *rows)))


def printed(renderable: Any, width: int = 200) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_shifted_traffic_raises_alarms_and_unshifted_does_not(
    reference: Reference, traffic: Callable[..., Any]
) -> None:
    calm = table(reference, window(reference, traffic(3000, seed=5)))
    assert not any(d.alarm for d in calm)
    moved = table(reference, window(reference, traffic(3000, seed=5, shift=1.0)))
    assert {d.feature for d in moved if d.alarm} == {"delay", "load", "score"}


def test_the_table_shows_the_prediction_first_bars_and_both_shapes(
    reference: Reference, traffic: Callable[..., Any]
) -> None:
    seen = window(reference, traffic(3000, seed=5, shift=1.0))
    text = printed(render_table(table(reference, seen), reference, seen, title="flights"))
    rows = [line for line in text.splitlines() if line.strip().startswith(FEATURES)]
    assert rows[0].split()[0] == "score"
    assert [line.endswith("ALARM") for line in map(str.rstrip, rows)] == [True] * 3 + [False]
    assert "████████" in rows[0]
    assert "▁" in rows[0]
    assert text.count("drifted: values moved up") == 3


def test_the_table_fits_a_terminal_of_80_columns(
    reference: Reference, traffic: Callable[..., Any]
) -> None:
    seen = window(reference, traffic(3000, seed=5))
    text = printed(render_table(table(reference, seen), reference, seen), width=80)
    assert "…" not in text
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert sum(line.rstrip().endswith(" ok") for line in text.splitlines()) == 4


def test_a_window_without_rows_has_no_drift_and_says_so(reference: Reference) -> None:
    empty = Window(tuple(np.zeros_like(c) for c in reference.counts))
    assert table(reference, empty) == []
    assert "no served rows" in printed(render_table([], reference, empty))
