"""Rows several times larger than the memory that Ray is given, through to encoded shards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_half_a_gigabyte_streams_through_a_tenth_of_it(tmp_path: Path) -> None:
    """The benchmark of 20 GB in small: 100 MB of shared memory, workers of at most 0.7 GB."""
    limits = ["cluster.object_store=100MB", "cluster.worker_memory=700MB", "cluster.cpus=2"]
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--gb", "0.5"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path), "--set", *limits],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = re.search(r"([\d.]+) GB, .* rows in .* peak memory: worker ([\d.]+) GB", done.stdout)
    assert told, done.stdout
    assert float(told[1]) >= 0.5
    assert 0 < float(told[2]) < 0.7
    assert not list(tmp_path.iterdir())
