"""A reference to count against, and a real Prometheus."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlray.monitoring.counters import count
from mlray.stats.bins import FeatureBins, Reference

BINS = 20


@dataclass(frozen=True)
class Traffic:
    """Encoded rows of two numeric features, one category, and their scores."""

    numeric: np.ndarray
    category: np.ndarray
    scores: np.ndarray

    def __getitem__(self, rows: slice) -> Traffic:
        return Traffic(self.numeric[rows], self.category[rows], self.scores[rows])

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.numeric, self.category, self.scores))


def make_traffic(rows: int, *, seed: int = 0, shift: float = 0.0, missing: float = 0.02) -> Traffic:
    """Rows whose features `delay` and `load` moved by `shift` standard deviations."""
    random = np.random.default_rng(seed)
    numeric = (random.normal(size=(rows, 2)) + shift).astype(np.float32)
    numeric[random.random((rows, 2)) < missing] = np.nan
    numeric[random.random((rows, 2)) < 0.001] = np.inf
    category = random.choice([0, 1, 2, 3, 4], size=(rows, 1), p=[0.02, 0.01, 0.5, 0.3, 0.17])
    scores = 1 / (1 + np.exp(-np.nan_to_num(numeric.sum(axis=1), posinf=0)))
    return Traffic(numeric, category.astype(np.int32), scores.astype(np.float32))


def make_reference(rows: int = 20_000) -> Reference:
    train = make_traffic(rows, seed=1)
    features = [
        FeatureBins(name, "numeric", _edges(train.numeric[:, j]), _labels(name))
        for j, name in enumerate(("delay", "load"))
    ]
    features.append(
        FeatureBins("carrier", "category", (), ("missing", "unseen", "UA", "B6", "Zürich"))
    )
    features.append(FeatureBins("score", "score", _edges(train.scores), _labels("score")))
    return Reference(tuple(features), tuple(count(features, *train)), rows)


def _edges(values: np.ndarray) -> tuple[float, ...]:
    cuts = np.quantile(values[np.isfinite(values)], np.arange(1, BINS) / BINS)
    return tuple(np.unique(cuts.astype(np.float32)).tolist())


def _labels(name: str) -> tuple[str, ...]:
    return (*(f"{name} {i}" for i in range(BINS)), "missing", "nonfinite")


@pytest.fixture(scope="session")
def reference() -> Reference:
    return make_reference()


@pytest.fixture(scope="session")
def traffic() -> Callable[..., Traffic]:
    return make_traffic


class Prometheus:
    """A running Prometheus of a test's own."""

    def __init__(self, folder: Path, config: str, blocks: Path | None = None) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        (folder / "prometheus.yml").write_text(config)
        command = [
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={blocks or folder / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--storage.tsdb.retention.time=100y",
        ]
        self._log = open(folder / "prometheus.log", "wb")  # noqa: SIM115
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        self.wait_until(self._ready, f"prometheus did not start, see {folder}/prometheus.log")

    def _ready(self) -> bool:
        try:
            return bool(urllib.request.urlopen(f"{self.url}/-/ready", timeout=2).status == 200)
        except OSError:
            return False

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The instant vector of an expression: [{"metric": labels, "value": [time, text]}]."""
        form = {"query": expression} | ({} if at is None else {"time": str(at)})
        data = urllib.parse.urlencode(form).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query", data, timeout=30) as answer:
                return list(json.load(answer)["data"]["result"])
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}\n{error.read().decode()}") from None

    def by(self, expression: str, *labels: str, at: float | None = None) -> dict[Any, float]:
        """Values by the named labels (one label: its text, several: a tuple)."""
        found = {}
        for one in self.query(expression, at):
            key = tuple(one["metric"].get(label) for label in labels)
            found[key[0] if len(key) == 1 else key] = float(one["value"][1])
        return found

    @staticmethod
    def wait_until(true: Callable[[], bool], otherwise: str, timeout_s: float = 30) -> None:
        end = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < end, otherwise
            time.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        self._log.close()


@pytest.fixture(scope="session")
def start_prometheus(promtool: str) -> Iterator[Callable[..., Prometheus]]:
    """Starts a Prometheus in a folder, from the text of its configuration and maybe old blocks.

    Who starts one stops it; what a failed test left running is ended with the session.
    """
    started: list[Prometheus] = []

    def start(folder: Path, config: str, blocks: Path | None = None) -> Prometheus:
        started.append(Prometheus(folder, config, blocks))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of promtool; tests that need Prometheus skip without it."""
    if not (shutil.which("prometheus") and (found := shutil.which("promtool"))):
        pytest.skip("Prometheus is not installed: `apt-get install prometheus`, or prometheus.io")
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
