"""Replicas as real Ray actors, scraped by a real Prometheus, next to what they wrote down."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlray.monitoring import promql, windows
from mlray.monitoring.counters import Counts, count
from mlray.monitoring.exporter import Exporter
from mlray.monitoring.table import table
from mlray.stats.bins import Reference

DASHBOARD = Path(__file__).parent.parent.parent / "cluster" / "grafana" / "mlray.json"
WINDOW = "10m"
MODEL = "watched"
"""Other tests of this process export series of other models to the same Ray."""
CONFIG = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
- job_name: ray
  static_configs: [{{targets: ["{target}"]}}]
"""


def replica_class() -> Any:
    """What a serving replica does; made in a function, so that Ray sends its code along."""

    class Replica:
        def __init__(self, reference: str, home: str, name: str) -> None:
            parsed = Reference.from_json(reference)
            self.counts = Counts(parsed)
            self.exporter = Exporter(
                self.counts,
                parsed,
                model=MODEL,
                version="3",
                replica=name,
                home=home,
                flush_s=0.2,
            )
            self.exporter.start()

        def serve(self, rows: tuple[np.ndarray, ...]) -> None:
            for i in range(len(rows[2])):
                self.counts.add(*(part[i : i + 1] for part in rows))

        def flush(self) -> None:
            self.exporter.flush()

        def stop(self) -> None:
            self.exporter.stop()

    return Replica


@dataclass
class Watched:
    """A service that was watched: its Prometheus, its files, and what it truly served."""

    prometheus: Any
    home: str
    rows: tuple[np.ndarray, ...]

    def window(self, reference: Reference) -> windows.Window:
        now = datetime.now(UTC)
        ends = (now - timedelta(hours=1), now + timedelta(hours=1))
        return windows.read(self.home, MODEL, "3", *ends, reference.features)


@pytest.fixture(scope="module")
def watched(
    ray_cluster: None,
    start_prometheus: Callable[..., Any],
    reference: Reference,
    traffic: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    """Three replicas served rows; one was killed, one stopped, one is still there."""
    import ray

    folder = tmp_path_factory.mktemp("watched")
    home, actor = str(folder / "home"), ray.remote(num_cpus=0)(replica_class())
    make = [actor.remote(reference.to_json(), home, name) for name in ("a", "b", "c")]
    parts = [traffic(500 + 100 * i, seed=10 + i, shift=0.4 * i) for i in range(3)]
    ray.get([r.serve.remote(tuple(p)) for r, p in zip(make, parts, strict=True)])
    ray.get([r.flush.remote() for r in make])
    (folder / "rules.yml").write_text(promql.rules([WINDOW]).replace("30s", "1s"))
    node = ray.nodes()[0]
    target = f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
    prometheus = start_prometheus(folder, CONFIG.format(rules=folder / "rules.yml", target=target))

    def arrived() -> bool:
        seen = prometheus.by(f'mlray:rows{{model="{MODEL}",window="{WINDOW}"}}', "feature")
        return bool(seen.get("score") == 1800 and seen.get("carrier") == 1800)

    try:
        prometheus.wait_until(
            arrived, "Prometheus did not see the rows of all replicas", timeout_s=45
        )
        ray.get(make[1].stop.remote())
        ray.kill(make[0])
        time.sleep(2)
        whole = tuple(np.concatenate(side) for side in zip(*parts, strict=True))
        yield Watched(prometheus, home, whole)
    finally:
        prometheus.stop()
        for one in make:
            ray.kill(one)


def test_the_files_hold_every_row_of_killed_and_stopped_replicas(
    watched: Watched, reference: Reference
) -> None:
    window = watched.window(reference)
    want = count(reference.features, *watched.rows)
    assert [c.tolist() for c in window.counts] == [c.tolist() for c in want]
    assert (window.replicas, window.torn, window.other_rows) == (3, 0, 0)


def test_prometheus_counts_what_the_files_count(watched: Watched, reference: Reference) -> None:
    rows = watched.prometheus.by(
        f'mlray:feature_rows{{model="{MODEL}",window="{WINDOW}"}}', "feature", "bin"
    )
    for feature, counts in zip(reference.features, watched.window(reference).counts, strict=True):
        seen = sorted(n for (name, _), n in rows.items() if name == feature.name)
        assert seen == sorted(counts.tolist())


def test_psi_and_ks_of_prometheus_and_of_the_files_are_the_same(
    watched: Watched, reference: Reference
) -> None:
    psi = watched.prometheus.by(f'mlray:psi{{model="{MODEL}",window="{WINDOW}"}}', "feature")
    ks = watched.prometheus.by(f'mlray:ks{{model="{MODEL}",window="{WINDOW}"}}', "feature")
    missing = watched.prometheus.by(
        f'mlray:missing_share{{model="{MODEL}",window="{WINDOW}"}}', "feature"
    )
    drifts = table(reference, watched.window(reference))
    assert len(drifts) == 4
    for drift in drifts:
        assert psi[drift.feature] == pytest.approx(drift.psi, abs=1e-6)
        assert ks.get(drift.feature) == pytest.approx(drift.ks, abs=1e-6)
        assert missing[drift.feature] == pytest.approx(drift.missing_frac, abs=1e-6)


def test_labels_say_in_human_units_what_a_bin_holds(watched: Watched) -> None:
    shown = watched.prometheus.by(
        f'ray_mlray_reference_share{{model="{MODEL}"}}', "feature", "bin", "values"
    )
    assert ("delay", "00", "delay 0") in shown
    assert ("carrier", "00", "UA") in shown
    assert ("carrier", "02", "Z\\xfcrich") in shown  # Ray takes ASCII only
    assert ("carrier", "unseen", "unseen") in shown


def panel_queries() -> list[tuple[str, str]]:
    found = []
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for panel in [p for one in panels for p in (one, *one.get("panels", []))]:
        for target in panel.get("targets", []):
            found.append((panel["title"], target["expr"]))
    return found


@pytest.mark.parametrize(("title", "query"), panel_queries())
def test_every_panel_of_the_dashboard_is_answered(title: str, query: str, watched: Watched) -> None:
    values = {"model": MODEL, "version": ".*", "window": WINDOW, "feature": "delay"}
    for name, value in values.items():
        query = query.replace(f"${name}", value)
    query = query.replace("$__rate_interval", "1m")
    assert "$" not in query
    answer = watched.prometheus.query(query)
    if not re.search("ray_serve|mlray_request", query):  # a real service exports those
        assert answer, f"{title}: no data for {query}"


def test_a_flush_that_cannot_write_keeps_its_counts_for_the_next_and_says_so(
    tmp_path: Path,
    reference: Reference,
    traffic: Callable[..., Any],
    ray_cluster: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    home, rows = tmp_path / "home", traffic(300)
    home.write_text("a file where the folder should be")
    counts = Counts(reference)
    exporter = Exporter(counts, reference, model="m", version="1", replica="a", home=str(home))
    began = datetime.now(UTC)
    for at in range(0, 300, 100):
        counts.add(*rows[at : at + 100])
        exporter.flush()
    os.remove(home)
    assert caplog.messages[0].startswith("m 1: cannot write counts: cannot append counts (")
    exporter.stop()
    window = windows.read(
        str(home), "m", "1", began, datetime.now(UTC) + timedelta(seconds=1), reference.features
    )
    want = count(reference.features, *rows)
    assert [c.tolist() for c in window.counts] == [c.tolist() for c in want]


def test_stopping_twice_and_flushing_nothing_writes_nothing(
    tmp_path: Path, reference: Reference, ray_cluster: None
) -> None:
    exporter = Exporter(
        Counts(reference), reference, model="m", version="1", replica="a", home=str(tmp_path)
    )
    exporter.start()
    exporter.stop()
    exporter.stop()
    assert not list(tmp_path.rglob("*.jsonl"))
