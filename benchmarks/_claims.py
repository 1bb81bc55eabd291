"""What benchmarks share: a claim, and where it is written (see docs/design.md, section 6)."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Claim:
    """One measured figure; `goal` is what the design asks for, if it does."""

    claim: str
    value: float
    goal: float | None
    unit: str
    better: Literal["higher", "lower"]


def save(theme: str, claims: Iterable[Claim], packages: Iterable[str] = (), **more: Any) -> Path:
    """Write benchmarks/results/THEME.json, and print its table.

    Args:
        theme: name of the benchmark's file.
        claims: what was measured.
        packages: whose versions matter.
        more: what else a reader of the file should know.
    """
    listed = list(claims)
    document = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, "
        f"load {os.getloadavg()[0]:.1f} at the end",
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
        "claims": [asdict(claim) for claim in listed],
    }
    path = Path(__file__).parent / "results" / f"{theme}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    show(theme, listed)
    return path


def show(theme: str, claims: Iterable[Claim]) -> None:
    """Print a table."""
    table = Table("claim", "value", "goal", "unit", title=theme)
    for each in claims:
        goal = "" if each.goal is None else f"{each.goal:g}"
        table.add_row(each.claim, f"{each.value:,.4g}", goal, each.unit)
    Console().print(table)
