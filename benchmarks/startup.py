"""What starting costs: importing mlray, and `mlray --help`, beside a bare interpreter.

Run: python benchmarks/startup.py     Writes benchmarks/results/startup.json

Wall seconds of whole processes, medians over interleaved rounds; the bare interpreter's are shown,
not subtracted.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROUNDS = 15
COMMANDS = {
    "python_s": [sys.executable, "-c", "pass"],
    "import_s": [sys.executable, "-c", "import mlray"],
    "help_s": [sys.executable, "-m", "mlray", "--help"],
}
GOALS = {"import_s": 0.5, "help_s": 0.5}


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(each) for name, each in times.items()}
    table = Table("", "seconds", "goal")
    for name, seconds in medians.items():
        table.add_row(name, f"{seconds:.3f}", str(GOALS.get(name, "")))
    Console().print(table)
    save(medians)


def save(medians: dict[str, float]) -> None:
    claims = [
        {"claim": n, "value": round(s, 4), "goal": GOALS.get(n), "unit": "s", "better": "lower"}
        for n, s in medians.items()
    ]
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "typer": version("typer")},
        "date": datetime.now(UTC).date().isoformat(),
        "claims": claims,
    }
    file = Path(__file__).parent / "results" / "startup.json"
    file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
