"""How well wrong labels and poisoned rows are found, beside cleanlab and a logistic regression.

Run: MLRAY_TEST_DATA=... python benchmarks/labels.py [spambase] [adult] [--seeds 20] [--only clean]
Writes benchmarks/results/labels.json

Real data sets are poisoned with a seed: labels flipped at random, half of the labels of one class
in one place, a trigger in 1 % of the rows. Clean rows are searched with many seeds (folds, network,
order), and must give nothing above the limits. All methods see the same rows; cleanlab sees the
same out-of-fold probabilities.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _claims import Claim, save, show
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import mlray
from mlray.models import defaults
from mlray.models.encoder import Encoder
from mlray.models.roles import choose_roles
from mlray.models.target import Target
from mlray.stats import labels as confident
from mlray.stats.examination import Examined, Features, examine, judge, searched
from mlray.stats.profile import Profile
from mlray.training import loop
from mlray.training.folds import out_of_fold
from mlray.training.job import TrainingJob
from mlray.training.shards import Shards, write_shards
from mlray.training.team import Team

FOLDS, FLIPPED_IN_PLACE = 5, 0.5
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Data:
    """A real data set, and what is done to it."""

    name: str
    file: str
    target: str
    place: str
    """Number whose high values of class 1 are the place of the targeted flips."""
    numeric_trigger: tuple[str, float]
    category_trigger: tuple[str, str] | None
    pair_trigger: tuple[tuple[str, str], ...] = ()


DATA = {
    "spambase": Data(
        "spambase", "poison_spambase/spambase.parquet", "Spam", "CAP_long", ("W_857", 3.33), None
    ),
    "adult": Data(
        "adult",
        "bias_adult_census/adult_train.parquet",
        "income",
        "hours-per-week",
        ("hours-per-week", 77),
        ("native-country", "Laos"),
        (("workclass", "Local-gov"), ("race", "Other")),
    ),
}


@dataclass(frozen=True)
class Searched:
    """One search of one table."""

    examined: Examined
    probability: np.ndarray
    label: np.ndarray
    rows: Shards
    seconds: float
    job: TrainingJob

    @property
    def suspicion(self) -> np.ndarray:
        return self.examined.suspicion


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("data", nargs="*", default=list(DATA))
    options.add_argument("--seeds", type=int, default=20)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--only", choices=["clean", "random", "targeted", "triggers", "cost"])
    chosen = options.parse_args()
    config = Path(__file__).parent.parent / "configs" / "diagnosis.yaml"
    claims: list[Claim] = []
    with mlray.connected(mlray.load(config)):
        for name in chosen.data or list(DATA):
            data = DATA[name]
            parts: dict[str, Callable[[], list[Claim]]] = {
                "random": lambda data=data: random_flips(data),
                "targeted": lambda data=data: targeted(data),
                "triggers": lambda data=data: triggers(data),
                "cost": lambda data=data: cost(data),
                "clean": lambda data=data: clean(data, range(chosen.first, chosen.seeds)),
            }
            for part, run in parts.items():
                if chosen.only in (None, part):
                    claims += run()
    if chosen.only is None:
        save("labels", claims, ("torch", "cleanlab", "scikit-learn", "ray"))
    else:
        show("labels", claims)


# --- poisoning ----------------------------------------------------------------------------------


def read(data: Data) -> pa.Table:
    return pq.read_table(Path(os.environ["MLRAY_TEST_DATA"]) / data.file)


def flipped(data: Data, table: pa.Table, rows: np.ndarray) -> pa.Table:
    """The table with the other of two labels in these rows."""
    given = np.array(table[data.target].to_pylist(), dtype=object)
    low, high = sorted(set(given))
    given[rows] = [high if value == low else low for value in given[rows]]
    return with_column(table, data.target, given.tolist())


def with_column(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def of_class(data: Data, table: pa.Table, positive: bool) -> np.ndarray:
    given = np.array(table[data.target].to_pylist(), dtype=object)
    return np.flatnonzero((given == max(given)) == positive)


def targeted_rows(data: Data, table: pa.Table, share: float = 0.05, seed: int = 0) -> np.ndarray:
    """Half of the rows of class 1 with the highest values of `place`: `share` of all rows."""
    ones, many = of_class(data, table, True), int(share * len(table))
    values = table[data.place].to_numpy()[ones] + np.random.default_rng(seed).random(len(ones)) / 9
    place = ones[np.argsort(-values)][: int(many / FLIPPED_IN_PLACE)]
    return np.random.default_rng(seed).choice(place, many, replace=False)


def planted(data: Data, table: pa.Table, values: dict[str, object], seed: int) -> pa.Table:
    """1 % of the rows, of class 0, get these values and the label of class 1."""
    zeros = of_class(data, table, False)
    rows = np.random.default_rng(seed).choice(zeros, len(table) // 100, replace=False)
    for name, value in values.items():
        column = table[name].to_pylist()
        for row in rows.tolist():
            column[row] = value
        table = with_column(table, name, column)
    return flipped(data, table, rows)


# --- searching ----------------------------------------------------------------------------------


def search(data: Data, table: pa.Table, seed: int = 0) -> Searched:
    """What the labels stage does, on all rows of the table."""
    folder = tempfile.mkdtemp()
    try:
        job, encoder = shards_of(data, table, folder, seed)
        began = time.perf_counter()
        scores = out_of_fold(job, FOLDS)
        rows = Shards.open(job.shards, "train")
        everything = rows.take(np.arange(len(rows)))
        judged = judge(everything.label, [str(c) for c in encoder.classes], scores)
        features = Features(
            everything.numeric,
            everything.category,
            tuple(f.name for f in encoder.numeric),
            tuple((f.name, encoder.labels(f.name)) for f in encoder.category),
            encoder.to_human,
        )
        numbers = searched(len(rows))
        examined = examine(features, numbers, judged, max_suspects=0.02, seed=seed)
        seconds = time.perf_counter() - began
        rows = Shards.of(everything)
        return Searched(examined, scores, everything.label, rows, seconds, job)
    finally:
        shutil.rmtree(folder)


def shards_of(data: Data, table: pa.Table, folder: str, seed: int) -> tuple[TrainingJob, Encoder]:
    """All rows as training shards; the validation part, which nobody looks at, is a few copies."""
    profile = Profile.of(table)
    roles, _ = choose_roles(profile, data.target)
    target, _ = Target.fit(profile.columns[data.target])
    encoder = Encoder.fit(profile, roles, target)
    shards = os.path.join(folder, "shards")
    some = table.take(np.linspace(0, len(table) - 1, 100).astype(int))  # of all classes
    tables = [table, some]
    parts = iter([np.zeros(len(table), np.int8), np.ones(100, np.int8)])
    write_shards(tables, encoder, shards, lambda _: next(parts))
    batch = defaults.batch_size(len(table))
    job = TrainingJob(
        name=data.name,
        shards=shards,
        storage_path=os.path.join(folder, "runs"),
        inputs=encoder.inputs(),
        metric="roc_auc",
        batch_size=batch,
        learning_rate=defaults.learning_rate(batch),
        budget=defaults.budget(len(table)),
        seed=seed,
        device="cpu",
        threads=1,
    )
    return job, encoder


def logistic(found: Searched) -> np.ndarray:
    """Suspicion by a logistic regression out of fold: the cheap baseline."""
    rows = found.rows.files[0]
    numbers = np.clip(np.nan_to_num(rows.numeric), -10, 10)
    linear = LogisticRegression(max_iter=300)
    x: object = StandardScaler().fit_transform(numbers)
    if rows.category.shape[1]:
        from scipy.sparse import csr_matrix, hstack

        x = hstack([csr_matrix(x), OneHotEncoder().fit_transform(rows.category)]).tocsr()
    p = cross_val_predict(make_pipeline(linear), x, rows.label, cv=FOLDS, method="predict_proba")
    return confident.suspicion(rows.label.astype(int), p)


# --- claims -------------------------------------------------------------------------------------


def random_flips(data: Data) -> list[Claim]:
    claims = []
    for percent in (5, 10):
        table = read(data)
        rows = np.random.default_rng(0).choice(
            len(table), len(table) * percent // 100, replace=False
        )
        found = search(data, flipped(data, table, rows))
        wrong = np.isin(np.arange(len(table)), rows)
        what = f"{data.name} {percent} % flipped at random"
        goal = 0.85 if data.name == "spambase" else None
        claims += [
            claim(f"{what}: AUC of suspicion", roc_auc_score(wrong, found.suspicion), goal),
            claim(f"{what}: AUC, logistic regression", roc_auc_score(wrong, logistic(found))),
            *beside_cleanlab(what, found, wrong),
        ]
    return claims


def beside_cleanlab(what: str, found: Searched, wrong: np.ndarray) -> list[Claim]:
    from cleanlab.filter import find_label_issues

    given = found.label.astype(int)
    p = confident.probabilities(found.probability)
    theirs = find_label_issues(given, p)
    ours, kept = confident.label_issues(given, p), found.examined.suspected
    claims = [claim(f"{what}: rows listed as cleanlab does", float(np.mean(ours == theirs)), 0.999)]
    for name, listed in (("cleanlab", theirs), ("set aside", kept)):
        claims.append(claim(f"{what}: precision, {name}", wrong[listed].mean()))
        claims.append(claim(f"{what}: recall, {name}", listed[wrong].mean()))
    return claims


def targeted(data: Data) -> list[Claim]:
    table = read(data)
    rows = targeted_rows(data, table)
    found = search(data, flipped(data, table, rows))
    wrong = np.isin(np.arange(len(table)), rows)
    places = [f for f in found.examined.findings if f.kind == "region" and f.grave]
    for finding in places:
        print(f"{data.name}, targeted: {finding.reason}")
    best = max((wrong[f.members].mean() for f in places), default=0.0)
    return [
        claim(f"{data.name} 5 % targeted: AUC of suspicion", roc_auc_score(wrong, found.suspicion)),
        claim(f"{data.name} 5 % targeted: the place is named", float(best > 0.5), 1.0),
        claim(f"{data.name} 5 % targeted: precision of the place", best),
    ]


def triggers(data: Data) -> list[Claim]:
    column, number = data.numeric_trigger
    kinds: dict[str, dict[str, object]] = {"numeric trigger": {column: number}}
    if data.category_trigger:
        kinds["category trigger"] = dict([data.category_trigger])
        kinds["pair trigger"] = dict(data.pair_trigger)
    claims = []
    for kind, values in kinds.items():
        found = search(data, planted(data, read(data), values, seed=1))
        named = [f for f in found.examined.findings if f.kind == "trigger" and f.grave]
        for finding in named:
            print(f"{data.name}, {kind}: {finding.reason}")
        hit = any(all(name in f.where for name in values) for f in named)
        claims.append(claim(f"{data.name} {kind} in 1 % of rows is named", float(hit), 1.0))
    return claims


def clean(data: Data, seeds: range) -> list[Claim]:
    table, stops, noise = read(data), 0, []
    for seed in seeds:
        found = search(data, table, seed)
        grave = [f.reason for f in found.examined.findings if f.grave]
        stops += bool(grave)
        assert found.examined.noise is not None
        noise.append(found.examined.noise.low)
        print(f"{data.name}, clean, seed {seed}: noise at least {noise[-1]:.4f} {grave}")
    what = f"{data.name} clean, {len(seeds)} seeds"
    return [
        claim(f"{what}: searches that stop", stops, 0.0, "lower"),
        claim(f"{what}: largest lower end of noise", max(noise), 0.02, "lower"),
    ]


def cost(data: Data) -> list[Claim]:
    """The whole search beside one training run of the same rows, on as many cores."""
    table, folder = read(data), tempfile.mkdtemp()
    try:
        job, _ = shards_of(data, table, folder, 0)
        began = time.perf_counter()
        loop.train(replace(job, patience=1000), Team.alone("cpu"))
        seconds = time.perf_counter() - began
    finally:
        shutil.rmtree(folder)
    found = search(data, table)
    return [
        claim(f"{data.name}: search, seconds", found.seconds, None, "lower", "s"),
        claim(f"{data.name}: search, training runs", found.seconds / seconds, 3.0, "lower", "x"),
    ]


def claim(
    name: str,
    value: float,
    goal: float | None = None,
    better: Literal["higher", "lower"] = "higher",
    unit: str = "",
) -> Claim:
    return Claim(re.sub(r"\W+", "_", name), round(float(value), 4), goal, unit, better)


if __name__ == "__main__":
    main()
