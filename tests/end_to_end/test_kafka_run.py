"""kill -9 in the middle of reading a topic: no message is lost, none is taken twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import mlray
from mlray.pipeline.outputs import clean_files
from tests.services.kafka import Kafka, broker

FIRST, SINCE = 4_000, 1_000
WAIT_S = 180
PREPARE = """
import os
import time
import pyarrow as pa
import pyarrow.compute as pc

def slowly(table: pa.Table) -> pa.Table:
    # The second partition takes long, so that the first one's rows are on the disk before.
    if pc.max(table["id"]).as_py() >= 2_000 and os.path.exists("{slow}"):
        time.sleep(60)
    return table
"""


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    with broker() as running:
        yield running


@pytest.fixture
def project_file(tmp_path: Path, kafka: Kafka) -> Path:
    kafka.topic("calls", 2)
    send(kafka, range(FIRST))
    kafka.send("calls", [(0, b"no json")])
    file = tmp_path / "calls.yaml"
    file.write_text(
        f"""
name: calls
sources:
  rows:
    kind: kafka
    servers: {kafka.servers}
    topic: calls
    columns: [id, x, y]
    transform: slow_calls:slowly
model: {{target: y, ignore: [id]}}
training: {{budget: 1 epochs}}
registry: {{promote: {{roc_auc: at least 0.2}}}}
"""
    )
    return file


def send(kafka: Kafka, numbers: range) -> None:
    """The first half of the numbers to partition 0, the others to 1; padded, to be read in several
    tasks."""
    middle = (numbers.start + numbers.stop) // 2
    kafka.send(
        "calls",
        (
            (int(i >= middle), {"id": i, "x": i % 17, "y": int(i % 17 > 8), "pad": "." * 5_000})
            for i in numbers
        ),
    )


def killed_while_reading(file: Path, home: Path) -> None:
    """Start a run, and kill its driver when some of the rows have been written and some not."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "mlray", "run", str(file)],
        env={**os.environ, "MLRAY_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + WAIT_S
    while not list(home.glob("stages/quality/.*.tmp/clean/*.parquet")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT_S)
    assert not list(home.glob("stages/quality/*/stage.json")), "it was not in the middle"


def ids(run: mlray.Run) -> list[int]:
    """Of all rows of the run's data set, sorted."""
    files = clean_files(run.stage("quality"))
    return sorted(i for file in files for i in pq.read_table(file)["id"].to_pylist())


def recorded(version: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(version.tags["mlray.offsets"])["rows"]
    return told


def test_a_run_killed_while_it_reads_loses_and_repeats_no_message(
    project_file: Path, kafka: Kafka, own_home: Path, ray_cluster: None
) -> None:
    slow = project_file.with_name("slow")
    slow.touch()
    project_file.with_name("slow_calls.py").write_text(PREPARE.format(slow=slow))
    killed_while_reading(project_file, own_home)
    slow.unlink()
    send(kafka, range(FIRST, FIRST + SINCE))

    run = mlray.run(project_file)
    assert run.promoted
    assert run.skipped == ("sources",), "the same run, taken up again"
    assert ids(run) == list(range(FIRST))
    aside = pq.read_table(run.stage("quality").result["quarantine"]).to_pylist()
    (first,) = mlray.versions(project_file)
    middle = FIRST // 2
    assert [(r["_raw"], r["_position"]) for r in aside] == [(b"no json", middle)]
    assert recorded(first)["stop"] == {"0": middle + 1, "1": middle}

    refused = mlray.run(project_file, ["registry.promote={roc_auc: at least 1.1}"])
    assert not refused.promoted
    assert ids(refused) == list(range(FIRST, FIRST + SINCE))

    since = mlray.run(project_file)
    assert since.promoted
    assert ids(since) == list(range(FIRST, FIRST + SINCE)), "exactly what came since"
    told = recorded(mlray.versions(project_file)[0])
    assert told["start"] == {"0": middle + 1, "1": middle}

    mlray.rollback("calls")
    planned = mlray.run(project_file, dry_run=True)
    assert "quality" not in planned.planned, "the same messages again: what was read is there"
