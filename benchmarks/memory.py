"""More rows than memory: a generated set of files through profile, rules, split and encoding.

Run: python benchmarks/memory.py [--gb 20] [--folder /on/a/large/disk]
Writes benchmarks/results/memory.json

Ray gets 1 GB of shared memory and workers of at most 2 GB each, enforced by the system (see
`cluster.worker_memory`). What every process really took, shared pages aside, is read from /proc
twice a second. A smaller set runs in tests/end_to_end/test_memory.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _claims import Claim, save

import mlray
from mlray.pipeline.run import run

FILE_ROWS, NUMERIC = 1_000_000, 22
COLOURS = np.array(["red", "green", "blue", "black", "white", "grey", "pink", "gold"])
PROJECT = """\
name: large
sources: {rows: {path: rows}}
quality:
  rules:
    - {columns: [x0, x1, x2], range: [-30, 30]}
    - {column: colour, required: true, allowed: [red, green, blue, black, white, grey, pink, gold]}
    - {column: id, unique: true}
    - {column: at, required: true}
split: {by: time, column: at, validation: 0.05, test: 0.05}
model: {target: y}
cluster: {object_store: 1GB, worker_memory: 2GB}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gb", type=float, default=20.0)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--set", nargs="*", default=[], help="overrides; nothing is saved then")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mlray-memory-", dir=arguments.folder))
    try:
        claims, rows = measured(folder, int(arguments.gb * 1e9), arguments.set)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not arguments.set:
        save("memory", claims, ("ray", "pyarrow"), rows=rows)


def measured(folder: Path, wanted_bytes: int, overrides: list[str]) -> tuple[list[Claim], int]:
    in_memory, rows = generate(folder / "rows", wanted_bytes)
    file = folder / "large.yaml"
    file.write_text(PROJECT)
    project = mlray.load(file, f"storage.path={folder}/home", *overrides)
    began = time.perf_counter()
    with Memory() as memory:
        done = run(project, until="encode")
    seconds = time.perf_counter() - began
    for stage in done.stages:
        print(f"{stage.name:>8} {stage.seconds:7.1f} s  {stage.result.get('summary', '')}")
    print(f"{in_memory / 1e9:.1f} GB, {rows:,} rows in {seconds:.0f} s; {memory}")
    return claims_of(in_memory, seconds, memory), rows


def generate(folder: Path, wanted_bytes: int) -> tuple[int, int]:
    """Parquet files of about `wanted_bytes` as Arrow tables; returns bytes and rows."""
    folder.mkdir(parents=True)
    random, total, rows = np.random.default_rng(0), 0, 0
    while total < wanted_bytes:
        table = some_rows(random, rows)
        pq.write_table(table, folder / f"{rows:012d}.parquet", row_group_size=FILE_ROWS // 8)
        total, rows = total + table.nbytes, rows + table.num_rows
    return total, rows


def some_rows(random: np.random.Generator, first: int) -> pa.Table:
    numbers = random.normal(size=(NUMERIC, FILE_ROWS)).round(3)
    row = np.arange(first, first + FILE_ROWS)
    columns: dict[str, Any] = {f"x{i}": values for i, values in enumerate(numbers)}
    columns["colour"] = COLOURS[random.integers(0, len(COLOURS), FILE_ROWS)]
    columns["id"] = row
    columns["at"] = (row * 1_000_000).astype("datetime64[us]")
    columns["y"] = (numbers[0] + numbers[1] + random.normal(size=FILE_ROWS) > 0).astype(np.int64)
    return pa.table(columns)


@dataclass
class Memory:
    """The most that this process and its workers took, sampled twice a second."""

    worker: int = 0
    driver: int = 0
    together: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            own = {pid: private_bytes(pid) for pid in descendants(os.getpid())}
            driver = private_bytes(os.getpid())
            self.worker = max(self.worker, *own.values(), 0) if own else self.worker
            self.driver = max(self.driver, driver)
            self.together = max(self.together, driver + sum(own.values()))

    def __str__(self) -> str:
        gb = [f"{value / 1e9:.2f}" for value in (self.worker, self.driver, self.together)]
        return f"peak memory: worker {gb[0]} GB, driver {gb[1]} GB, all processes {gb[2]} GB"


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def private_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended meanwhile
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def claims_of(in_memory: int, seconds: float, memory: Memory) -> list[Claim]:
    return [
        Claim("memory_rows_gb", in_memory / 1e9, 20.0, "GB", "higher"),
        Claim("memory_peak_worker_gb", memory.worker / 1e9, 2.0, "GB", "lower"),
        Claim("memory_peak_driver_gb", memory.driver / 1e9, None, "GB", "lower"),
        Claim("memory_seconds", seconds, None, "s", "lower"),
    ]


if __name__ == "__main__":
    main()
