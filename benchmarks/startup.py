"""What starting costs: importing mlray, and `mlray --help`, beside a bare interpreter.

Run: python benchmarks/startup.py     Writes benchmarks/results/startup.json

Wall seconds of whole processes, medians over interleaved rounds; the bare interpreter's are shown,
not subtracted.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from _claims import Claim, save

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
    claims = [Claim(n, round(s, 4), GOALS.get(n), "s", "lower") for n, s in medians.items()]
    save("startup", claims, ("typer",))


if __name__ == "__main__":
    main()
