"""PSI and KS of a real Prometheus, held against stats/drift.py on the same counts."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlray.monitoring import promql
from mlray.monitoring.series import exported
from mlray.stats.bins import Reference, shares
from mlray.stats.drift import compare, expected_psi

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "cluster" / "prometheus"
NO_SCRAPES = "global: {scrape_interval: 1h}\n"
STEP_S, WINDOW_S = 15, 300


def expanded(name: str, window: str = "5m") -> str:
    """The expression of a record with the records it uses written out in place."""
    text = promql.records(window)[name]
    return re.sub(r'mlray:(\w+)\{window="\w+"\}', lambda m: f"({expanded(m[1], window)})", text)


class Replica:
    """One process's cumulated counts over time, as a scrape would see them."""

    def __init__(self, name: str, first: int, last: int, seed: int) -> None:
        self.name, self.first, self.last = name, first, last
        self.random = np.random.default_rng(seed)
        self.seen: dict[int, list[np.ndarray]] = {}

    def run(self, reference: Reference, steps: int, drift: float) -> None:
        total = [np.zeros(len(c), np.int64) for c in reference.counts]
        for step in range(self.first, min(self.last, steps)):
            for counts, sums in zip(reference.counts, total, strict=True):
                p = shares(counts) * np.exp(drift * np.linspace(-1, 1, len(counts)))
                sums += self.random.multinomial(self.random.integers(1, 9), p / p.sum())
            self.seen[step] = [sums.copy() for sums in total]

    def within(self, after: int, until: int) -> list[np.ndarray]:
        """Rows between two scrapes: what the last one up to `until` adds to that up to `after`."""
        last = max(step for step in self.seen if step <= until)
        earlier = [step for step in self.seen if step <= after]
        before = self.seen[max(earlier)] if earlier else [np.zeros_like(c) for c in self.seen[last]]
        if last <= after:
            return [np.zeros_like(c) for c in self.seen[last]]
        return [now - then for now, then in zip(self.seen[last], before, strict=True)]


def openmetrics(reference: Reference, replicas: list[Replica], start: int, steps: int) -> str:
    """Everything that was scraped, as text that `promtool tsdb create-blocks-from` reads."""
    lines: dict[str, list[str]] = {}

    def sample(family: str, labels: dict[str, str], value: float, step: int) -> None:
        shown = ",".join(f'{k}="{v}"' for k, v in {"model": "m", "version": "1", **labels}.items())
        at = f"{{{shown}}} {float(value)!r} {start + step * STEP_S}"
        lines.setdefault(family, []).append(f"{family}{at}")

    for one in exported(reference.features):
        counts = one.rows(reference.counts[one.place])
        le = counts[: one.ordered].cumsum()
        for step in range(steps):
            sample("ray_mlray_reference_rows", {"feature": one.feature}, counts.sum(), step)
            for name, share in zip(one.bins, shares(counts).tolist(), strict=True):
                sample(
                    "ray_mlray_reference_share", {"feature": one.feature, "bin": name}, share, step
                )
            for name, rows in zip(one.bins, le.tolist(), strict=False):
                tags = {"feature": one.feature, "bin": name}
                sample("ray_mlray_reference_share_le", tags, rows / int(le[-1]), step)
        for replica in replicas:
            for step, seen in replica.seen.items():
                rows = one.rows(seen[one.place])
                tags = {"feature": one.feature, "WorkerId": replica.name}
                for name, number in zip(one.bins, rows.tolist(), strict=True):
                    if number:
                        sample("ray_mlray_feature_rows_total", {**tags, "bin": name}, number, step)
                for name, number in zip(
                    one.bins, rows[: one.ordered].cumsum().tolist(), strict=False
                ):
                    if number:
                        tags_le = {**tags, "bin": name}
                        sample("ray_mlray_feature_rows_le_total", tags_le, number, step)
    text = []
    for family, samples in lines.items():
        kind = "counter" if family.endswith("_total") else "gauge"
        text += [f"# TYPE {family.removesuffix('_total')} {kind}", *samples]
    return "\n".join([*text, "# EOF", ""])


@pytest.fixture(params=[1, 5], ids=["one replica", "five replicas come and go"])
def history(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    promtool: str,
    reference: Reference,
    start_prometheus: Callable[..., Any],
) -> Iterator[tuple[Any, int, list[np.ndarray]]]:
    """A Prometheus with 15 minutes of scrapes, a moment in it, and the rows of its window."""
    lives = [(0, 60), (0, 45), (30, 60), (42, 60), (0, 20)][: request.param]
    replicas = [Replica(f"w{i}", *life, seed=i) for i, life in enumerate(lives)]
    for number, replica in enumerate(replicas):
        replica.run(reference, 60, drift=0.4 * number)
    start, at_step = int(time.time()) // STEP_S * STEP_S - 7200, 55
    (tmp_path / "history.txt").write_text(openmetrics(reference, replicas, start, 60))
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", "history.txt", "blocks"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    parts = [r.within(at_step - WINDOW_S // STEP_S, at_step) for r in replicas]
    rows = [sum(one) for one in zip(*parts, strict=True)]
    prometheus = start_prometheus(tmp_path, NO_SCRAPES, tmp_path / "blocks")
    yield prometheus, start + at_step * STEP_S, rows
    prometheus.stop()


def test_prometheus_and_python_agree_on_rows_psi_and_ks(
    history: tuple[Any, int, list[np.ndarray]], reference: Reference
) -> None:
    prometheus, at, rows = history
    counted = prometheus.by(expanded("feature_rows"), "feature", "bin", at=at)
    for one in exported(reference.features):
        assert [counted[one.feature, name] for name in one.bins] == one.rows(
            rows[one.place]
        ).tolist()
    psi = prometheus.by(expanded("psi"), "feature", at=at)
    ks = prometheus.by(expanded("ks"), "feature", at=at)
    expected = prometheus.by(expanded("expected_psi"), "feature", at=at)
    for drift, place in zip(
        sorted(compare(reference, rows), key=lambda d: d.feature), (2, 0, 1, 3), strict=True
    ):
        assert psi[drift.feature] == pytest.approx(drift.psi, abs=1e-9)
        assert ks.get(drift.feature) == pytest.approx(drift.ks, abs=1e-9)
        noise = expected_psi(reference.counts[place], rows[place])
        assert expected[drift.feature] == pytest.approx(noise, rel=1e-9)


def test_the_rules_in_cluster_are_what_the_module_writes(promtool: str) -> None:
    assert (RULES / "rules.yml").read_text() == promql.rules()
    done = subprocess.run(
        [promtool, "check", "rules", "rules.yml"], cwd=RULES, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("windows", [["30s"], ["15m", "6h"], ["1h", "1d", "7d", "4w"]])
def test_rules_for_any_windows_are_accepted(
    windows: list[str], tmp_path: Path, promtool: str
) -> None:
    (tmp_path / "rules.yml").write_text(promql.rules(windows))
    done = subprocess.run(
        [promtool, "check", "rules", "rules.yml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_does_what_its_unit_test_says(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "test", "rules", "rules_test.yml"], cwd=RULES, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_unit_test() -> None:
    tested = set(re.findall(r"alertname: (\w+)", (RULES / "rules_test.yml").read_text()))
    assert tested == {name for name, *_ in promql.ALERTS}


def test_the_prometheus_configuration_is_accepted(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "check", "config", "prometheus.yml"], cwd=RULES, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
