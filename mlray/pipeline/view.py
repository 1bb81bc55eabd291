"""What a person sees while the pipeline runs: a live table, or plain lines in a log.

Progress goes to the error stream, so that what a verb prints can be piped on.
"""

from __future__ import annotations

import sys
import time
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text


class View(Protocol):
    """What the pipeline tells while it works."""

    def begin(self, names: list[str]) -> None: ...
    def started(self, name: str) -> None: ...
    def note(self, name: str, text: str) -> None: ...
    def done(self, name: str, seconds: float, summary: str) -> None: ...
    def skipped(self, name: str, summary: str) -> None: ...
    def failed(self, name: str) -> None: ...
    def end(self) -> None: ...


def for_terminal() -> View:
    """A live table on a terminal, plain lines in a pipe or a job's log."""
    return LiveTable() if sys.stderr.isatty() else Lines()


class Lines:
    """One line for each thing that happens: for logs."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)

    def begin(self, names: list[str]) -> None:
        self._console.print(f"stages: {', '.join(names)}")

    def started(self, name: str) -> None:
        self._console.print(f"▶ {name}")

    def note(self, name: str, text: str) -> None:
        self._console.print(f"  {name}: {text}", markup=False)

    def done(self, name: str, seconds: float, summary: str) -> None:
        self._console.print(f"✓ {name} {seconds:.1f} s  {summary}", markup=False)

    def skipped(self, name: str, summary: str) -> None:
        self._console.print(f"= {name} unchanged  {summary}", markup=False)

    def failed(self, name: str) -> None:
        self._console.print(f"✗ {name} failed")

    def end(self) -> None:
        """Nothing to close."""


class LiveTable:
    """A table that changes while stages run: for people."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._rows: dict[str, tuple[str, str, str]] = {}
        self._began: dict[str, float] = {}
        self._live = Live(console=self._console, refresh_per_second=8, get_renderable=self._draw)

    def begin(self, names: list[str]) -> None:
        self._rows = dict.fromkeys(names, ("waiting", "", ""))
        self._live.start()

    def started(self, name: str) -> None:
        self._began[name] = time.monotonic()
        self._rows[name] = ("running", "", "")

    def note(self, name: str, text: str) -> None:
        self._rows[name] = ("running", "", text)

    def done(self, name: str, seconds: float, summary: str) -> None:
        self._rows[name] = ("done", f"{seconds:.1f} s", summary)

    def skipped(self, name: str, summary: str) -> None:
        self._rows[name] = ("unchanged", "", summary)

    def failed(self, name: str) -> None:
        self._rows[name] = ("failed", "", self._rows[name][2])

    def end(self) -> None:
        self._live.stop()

    def _draw(self) -> RenderableType:
        table = Table(box=None, show_header=False, padding=(0, 1))
        for name, (state, seconds, text) in self._rows.items():
            if state == "running":
                seconds = f"{time.monotonic() - self._began[name]:.0f} s"
            table.add_row(_sign(state), Text(name), Text(seconds, justify="right"), Text(text))
        return Group(table)


def _sign(state: str) -> RenderableType:
    if state == "running":
        return Spinner("dots")
    signs = {"done": "✓", "unchanged": "=", "failed": "✗", "waiting": "·"}
    styles = {"done": "green", "unchanged": "cyan", "failed": "red", "waiting": "dim"}
    return Text(signs[state], style=styles[state])
