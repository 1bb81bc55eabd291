"""Versions as a table for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mlray.registry.version import Version

if TYPE_CHECKING:
    from rich.table import Table

_DECISION = "mlray.decision"


def render_versions(versions: Iterable[Version]) -> Table:
    """A rich table: what is registered, what it measured on its test rows, what the gate said."""
    from rich.table import Table

    shown = Table(expand=False)
    for name in ("model", "version", "alias", "registered", "test metrics", "gate"):
        shown.add_column(name, justify="right" if name == "version" else "left")
    for version in versions:
        shown.add_row(
            version.name,
            str(version.number),
            ", ".join(version.aliases),
            version.created_at[:16].replace("T", " "),
            ", ".join(f"{n} {v:.4f}" for n, v in list(version.metrics.items())[:3]),
            version.tags.get(_DECISION, ""),
            style="bold" if version.aliases else "",
        )
    return shown
