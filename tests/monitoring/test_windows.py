from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlray import storage
from mlray.errors import InputError, StorageError
from mlray.monitoring import windows
from mlray.monitoring.counters import count
from mlray.stats.bins import FeatureBins, Reference

NOON = datetime(2013, 11, 30, 12, tzinfo=UTC)


def lists(counts: Any) -> list[list[int]]:
    return [c.tolist() for c in counts]


def write(home: Any, reference: Reference, replica: str, rows: Any, at: datetime) -> None:
    log = windows.Log(str(home), "flights", "3", replica, reference.features)
    log.append(count(reference.features, *rows), at.timestamp() - 5, at.timestamp())


def read(home: Any, reference: Reference, since: datetime, until: datetime) -> windows.Window:
    return windows.read(str(home), "flights", "3", since, until, reference.features)


def test_a_window_merges_replicas_and_days_exactly(
    tmp_path: Path, reference: Reference, traffic: Callable[..., Any]
) -> None:
    rows = traffic(900)
    write(tmp_path, reference, "a", rows[:300], NOON)
    write(tmp_path, reference, "b", rows[300:500], NOON + timedelta(hours=1))
    write(tmp_path, reference, "a", rows[500:], NOON + timedelta(days=1))
    window = read(tmp_path, reference, NOON - timedelta(hours=1), NOON + timedelta(days=2))
    assert lists(window.counts) == lists(count(reference.features, *rows))
    assert (window.rows, window.replicas, window.torn) == (900, 2, 0)
    assert (window.since, window.until) == (NOON - timedelta(seconds=5), NOON + timedelta(days=1))


def test_merged_windows_are_the_window_of_all_rows(
    tmp_path: Path, reference: Reference, traffic: Callable[..., Any]
) -> None:
    rows = traffic(100)
    write(tmp_path, reference, "a", rows[:60], NOON)
    write(tmp_path, reference, "b", rows[60:], NOON + timedelta(hours=2))
    times = [NOON + timedelta(hours=h) for h in (-1, 1, 3)]
    parts = [read(tmp_path, reference, times[i], times[i + 1]) for i in range(2)]
    whole, merged = read(tmp_path, reference, times[0], times[2]), windows.merge(parts)
    assert lists(merged.counts) == lists(whole.counts)
    assert (merged.since, merged.until, merged.replicas) == (whole.since, whole.until, 2)


def test_a_flush_belongs_to_the_window_in_which_it_ended(
    tmp_path: Path, reference: Reference, traffic: Callable[..., Any]
) -> None:
    write(tmp_path, reference, "a", traffic(10), NOON)
    assert read(tmp_path, reference, NOON - timedelta(seconds=1), NOON).rows == 10
    assert read(tmp_path, reference, NOON, NOON + timedelta(hours=1)).rows == 0


def test_a_torn_last_line_is_reported_and_the_next_line_is_whole(
    tmp_path: Path, reference: Reference, traffic: Callable[..., Any]
) -> None:
    write(tmp_path, reference, "a", traffic(10), NOON)
    file = next(tmp_path.rglob("*.jsonl"))
    line = file.read_bytes()
    file.write_bytes(line + line[: len(line) // 2])
    window = read(tmp_path, reference, NOON - timedelta(hours=1), NOON + timedelta(hours=1))
    assert (window.rows, window.torn) == (10, 1)
    write(tmp_path, reference, "a", traffic(7), NOON)
    window = read(tmp_path, reference, NOON - timedelta(hours=1), NOON + timedelta(hours=1))
    assert (window.rows, window.torn) == (17, 1)


def test_what_was_flushed_survives_kill_9(
    tmp_path: Path, reference: Reference, traffic: Callable[..., Any]
) -> None:
    script = tmp_path / "replica.py"
    script.write_text(
        "import sys, time\n"
        "import numpy as np\n"
        "from mlray.monitoring.windows import Log\n"
        "from mlray.stats.bins import FeatureBins\n"
        "bins = [FeatureBins('score', 'score', (0.5,), ('low', 'high', 'missing', 'inf'))]\n"
        "log = Log(sys.argv[1], 'm', '1', 'a', bins)\n"
        "while True:\n"
        "    log.append([np.array([1, 2, 0, 0])], time.time() - 1, time.time())\n"
        "    print('x', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE) as replica:
        assert replica.stdout is not None
        flushed = sum(1 for _ in zip(range(50), replica.stdout, strict=False))
        replica.kill()
        flushed += len(replica.stdout.read().splitlines())
    bins = [FeatureBins("score", "score", (0.5,), ("low", "high", "missing", "inf"))]
    now = datetime.now(UTC)
    window = windows.read(
        str(tmp_path), "m", "1", now - timedelta(hours=1), now + timedelta(hours=1), bins
    )
    assert flushed * 3 <= window.rows <= flushed * 3 + 3  # the line it was about to announce


def test_rows_counted_into_other_bins_are_left_out_and_reported(
    tmp_path: Path, reference: Reference, traffic: Callable[..., Any]
) -> None:
    write(tmp_path, reference, "a", traffic(10), NOON)
    other = (FeatureBins("score", "score", (0.5,), ("low", "high", "missing", "inf")),)
    log = windows.Log(str(tmp_path), "flights", "4", "b", other)
    log.append([np.array([5, 0, 0, 0])], NOON.timestamp() - 5, NOON.timestamp())
    window = windows.read(
        str(tmp_path),
        "flights",
        windows.versions(str(tmp_path), "flights"),
        NOON - timedelta(hours=1),
        NOON,
        reference.features,
    )
    assert (window.rows, window.other_rows) == (10, 5)


def test_compacting_keeps_every_row_and_leaves_today_alone(
    tmp_path: Path, reference: Reference, traffic: Callable[..., Any]
) -> None:
    for second in range(0, 300, 5):
        write(tmp_path, reference, "a", traffic(4, seed=second), NOON + timedelta(seconds=second))
    before = read(tmp_path, reference, NOON - timedelta(hours=1), NOON + timedelta(hours=1))
    lines = sum(f.read_bytes().count(b"\n") for f in tmp_path.rglob("*.jsonl"))
    assert windows.compact(str(tmp_path), "flights", "3", NOON) == 0
    assert windows.compact(str(tmp_path), "flights", "3", NOON + timedelta(days=2)) == 1
    after = read(tmp_path, reference, NOON - timedelta(hours=1), NOON + timedelta(hours=1))
    assert lists(after.counts) == lists(before.counts)
    assert (after.since, after.until, after.rows) == (before.since, before.until, before.rows)
    assert lines == 60
    assert sum(f.read_bytes().count(b"\n") for f in tmp_path.rglob("*.jsonl")) == 5


def test_an_object_store_gets_the_same_counts(
    reference: Reference, traffic: Callable[..., Any]
) -> None:
    home = f"memory://counts-{time.time_ns()}"
    log = windows.Log(home, "flights", "3", "a", reference.features)
    for second in (0, 5, 70):
        end = NOON.timestamp() + second
        log.append(count(reference.features, *traffic(10)), end - 5, end)
    window = read(home, reference, NOON - timedelta(hours=1), NOON + timedelta(hours=1))
    assert (window.rows, window.torn) == (30, 0)
    day = storage.join(home, "predictions/flights/3/counts/2013-11-30")
    assert storage.names(day) == ["a-1200.jsonl", "a-1201.jsonl"]


def test_names_with_slashes_stay_inside_the_home(
    tmp_path: Path, reference: Reference, traffic: Callable[..., Any]
) -> None:
    log = windows.Log(str(tmp_path / "home"), "../../m", "1", "a/../b", reference.features)
    log.append(count(reference.features, *traffic(10)), 0.0, 5.0)
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full (Linux)")
def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    target = tmp_path / "a.jsonl"
    target.symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"(?s)cannot append counts.*Do: free space"):
        windows._append(target, b"{}\n")


def test_times_without_a_zone_are_refused(tmp_path: Path, reference: Reference) -> None:
    naive = NOON.replace(tzinfo=None)
    with pytest.raises(InputError, match="time zone"):
        read(tmp_path, reference, naive, naive)
