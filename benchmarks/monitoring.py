"""What watching costs: counting per value and per request, merging replicas, reading windows.

Run: python benchmarks/monitoring.py     Writes benchmarks/results/monitoring.json

CPU time of this process, the least of many interleaved rounds (machines are shared and busy).
The inputs: 30 numeric features of 20 bins, a score of 20 bins, no categories.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from _claims import Claim, save

from mlray.monitoring import windows
from mlray.monitoring.counters import BLOCK_ROWS, Counts, _Slots, count
from mlray.stats.bins import Reference, numeric_bins

FEATURES, BINS, ROWS, REPLICAS = 30, 20, 20_000, 100
FLUSHES_A_DAY = 17_280  # every 5 s
ROUNDS = 30


def main() -> None:
    reference, rows = make_inputs()
    claims = [*counting(reference, rows), *requests(reference, rows), *merging(reference, rows)]
    claims += reading(reference)
    save("monitoring", claims, ("numpy",))


def make_inputs() -> tuple[Reference, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    numeric = random.normal(size=(ROWS, FEATURES)).astype(np.float32)
    scores = random.random(ROWS).astype(np.float32)
    bins = [numeric_bins(f"f{j}", numeric[:, j], BINS, str) for j in range(FEATURES)]
    bins.append(numeric_bins("score", scores, BINS, str, kind="score"))
    rows = (numeric, np.zeros((ROWS, 0), np.int32), scores)
    return Reference(tuple(bins), tuple(count(bins, *rows)), ROWS), rows


def counting(reference: Reference, rows: tuple[np.ndarray, ...]) -> list[Claim]:
    """A block of rows into integers, beside a binary search over the same bins."""
    block = tuple(part[:BLOCK_ROWS] for part in rows)
    slots, bins = _Slots(reference.features), reference.features

    def search() -> None:
        for j, one in enumerate(bins[:-1]):
            one.count(block[0][:, j])
        bins[-1].count(block[2])

    ours, theirs = least(lambda: slots.count(*block), search)
    values = BLOCK_ROWS * (FEATURES + 1)
    return [
        Claim("count_ns_per_value", ours / values * 1e9, 6.0, "ns", "lower"),
        Claim("count_searchsorted_ns_per_value", theirs / values * 1e9, None, "ns", "lower"),
    ]


def requests(reference: Reference, rows: tuple[np.ndarray, ...]) -> list[Claim]:
    """Requests of one row, the counting that every 1024th of them pays included."""
    singles = [tuple(part[i : i + 1] for part in rows) for i in range(4 * BLOCK_ROWS)]
    counts = Counts(reference)

    def serve() -> None:
        for one in singles:
            counts.add(*one)

    (seconds,) = least(serve)
    return [Claim("count_us_per_request", seconds / len(singles) * 1e6, 2.0, "us", "lower")]


def merging(reference: Reference, rows: tuple[np.ndarray, ...]) -> list[Claim]:
    size = ROWS // REPLICAS
    parts = [
        windows.Window(tuple(count(reference.features, *(p[i : i + size] for p in rows))))
        for i in range(0, ROWS, size)
    ]
    assert windows.merge(parts).rows == ROWS
    (seconds,) = least(lambda: windows.merge(parts))
    return [Claim("merge_100_replicas_ms", seconds * 1e3, 1.0, "ms", "lower")]


def reading(reference: Reference) -> list[Claim]:
    """A day of one replica that flushed every 5 s with traffic in every bin."""
    midnight = datetime(2013, 11, 30, tzinfo=UTC)
    bins_id, flat = windows.bins_id(reference.features), np.concatenate(reference.counts)
    ends = midnight.timestamp() + 4.9 + 5 * np.arange(FLUSHES_A_DAY)
    with tempfile.TemporaryDirectory() as home:
        file = Path(home, "predictions/m/1/counts/2013-11-30/a.jsonl")
        file.parent.mkdir(parents=True)
        lines = [windows._line(end - 5, end, bins_id, ROWS, flat) for end in ends.tolist()]
        file.write_bytes(b"".join(lines))
        day = (midnight, midnight + timedelta(days=1))

        def read() -> windows.Window:
            return windows.read(home, "m", "1", *day, reference.features)

        assert read().rows == ROWS * FLUSHES_A_DAY
        (whole,) = least(read, rounds=2)
        windows.compact(home, "m", "1", midnight + timedelta(days=3))
        (compacted,) = least(read, rounds=2)
        append = append_ms(reference, home)
    return [
        Claim("read_day_of_a_replica_s", whole, None, "s", "lower"),
        Claim("read_compacted_day_ms", compacted * 1e3, None, "ms", "lower"),
        Claim("append_wall_ms", append, None, "ms", "lower"),
    ]


def append_ms(reference: Reference, home: str) -> float:
    log = windows.Log(home, "m", "2", "a", reference.features)
    start = time.perf_counter()
    for i in range(100):
        log.append(reference.counts, i, i + 1)
    return (time.perf_counter() - start) / 100 * 1e3


def least(*sides: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """CPU seconds of each side, the least of rounds in which they take turns."""
    best = [float("inf")] * len(sides)
    for _ in range(rounds):
        for i, side in enumerate(sides):
            start = time.process_time()
            side()
            best[i] = min(best[i], time.process_time() - start)
    return best


if __name__ == "__main__":
    main()
