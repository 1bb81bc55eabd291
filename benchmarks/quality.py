"""How good the models are, beside a logistic regression and boosted trees on the same columns.

Run: python benchmarks/quality.py [flights] [cancer] [adult]
Writes benchmarks/results/quality.json. `adult` needs MLRAY_TEST_DATA. All three models learn from
the same training rows and the same encoded columns, and are judged on the same test rows. The trees
come twice: with scikit-learn's defaults, and tuned: told which columns are categories, and stopped
on the validation rows as mlray is.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _claims import Claim, save
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import mlray
from mlray.models.bundle import load_bundle
from mlray.models.predictor import Predictor
from mlray.pipeline.outputs import bundle_folder

CONFIGS = Path(__file__).parent.parent / "configs"
MODELS = ("mlray", "logistic regression", "boosted trees", "boosted trees tuned")
Row = tuple[str, str, dict[str, float]]
GOALS = {"cancer 10-fold AUC": 0.99, "adult accuracy": 0.86, "adult AUC": 0.92}


def main() -> None:
    wanted = sys.argv[1:] or ["flights", "cancer", "adult"]
    themes: dict[str, Callable[[], Iterator[Row]]] = {
        "flights": flights,
        "cancer": cancer,
        "adult": adult,
    }
    os.environ["MLRAY_HOME"] = tempfile.mkdtemp()
    with mlray.connected(mlray.load(CONFIGS / "diagnosis.yaml")):
        rows = [row for name in wanted for row in themes[name]()]
    show(rows)
    save("quality", claims_of(rows), ("torch", "scikit-learn", "ray"))


def flights() -> Iterator[Row]:
    """Late arrivals: October is the test part; November and December are later still."""
    run = mlray.run(mlray.load(CONFIGS / "flights.yaml"))
    models = trained(run)
    for part, name in (("test", "October"), ("later", "November and December")):
        rows = pa.concat_tables(run.rows(part))
        yield f"flights {name} AUC", "higher", scores(models, run, rows, roc_auc_score)


def cancer() -> Iterator[Row]:
    """Ten folds of the breast cancer set; the mean of the folds' AUC."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True)
    frame = data.data.assign(benign=data.target == 1)
    frame.columns = [c.replace(" ", "_") for c in frame.columns]
    folds = StratifiedKFold(10, shuffle=True, random_state=0).split(frame, data.target)
    found: dict[str, list[float]] = {name: [] for name in MODELS}
    for number, (train, test) in enumerate(folds):
        parts = np.full(len(frame), "train", dtype=object)
        parts[test] = "test"
        parts[np.random.default_rng(number).choice(train, len(train) // 8, replace=False)] = (
            "validation"
        )
        run = run_parts(pa.Table.from_pandas(frame), parts, f"cancer{number}", "benign")
        rows = pa.concat_tables(run.rows("test"))
        for name, value in scores(trained(run), run, rows, roc_auc_score).items():
            found[name].append(value)
    yield "cancer 10-fold AUC", "higher", {n: float(np.mean(v)) for n, v in found.items()}


def adult() -> Iterator[Row]:
    """Census income, official split; a tenth of the training rows validates."""
    if "MLRAY_TEST_DATA" not in os.environ:
        print("adult is left out: MLRAY_TEST_DATA names no folder of data sets")
        return
    folder = Path(os.environ["MLRAY_TEST_DATA"]) / "bias_adult_census"
    train, test = (pq.read_table(folder / f"adult_{part}.parquet") for part in ("train", "test"))
    parts = np.array(["train"] * len(train) + ["test"] * len(test), dtype=object)
    held = np.random.default_rng(0).choice(len(train), len(train) // 10, replace=False)
    parts[held] = "validation"
    run = run_parts(pa.concat_tables([train, test]), parts, "adult", "income")
    models, rows = trained(run), pa.concat_tables(run.rows("test"))
    yield "adult AUC", "higher", scores(models, run, rows, roc_auc_score)
    yield "adult accuracy", "higher", scores(models, run, rows, accuracy)


def accuracy(truth: np.ndarray, probability: np.ndarray) -> float:
    return float(accuracy_score(truth, probability >= 0.5))


def run_parts(table: pa.Table, parts: np.ndarray, name: str, target: str) -> mlray.Run:
    """A project over a table whose rows say which part they belong to."""
    folder = Path(tempfile.mkdtemp())
    pq.write_table(table.append_column("part", pa.array(parts)), folder / "rows.parquet")
    (folder / "p.yaml").write_text(
        f"name: {name}\nsources: {{rows: {{path: rows.parquet}}}}\n"
        f"model: {{target: {target}}}\nsplit: {{by: column, column: part}}\n"
    )
    return mlray.run(folder / "p.yaml")


def trained(run: mlray.Run) -> dict[str, Callable[[pa.Table], np.ndarray]]:
    """Each model as a function from raw rows to probabilities."""
    predictor = Predictor(load_bundle(bundle_folder(run.stage("evaluate"))), run.project.folder)
    train, y = matrices(run, predictor, "train")
    held, y_held = matrices(run, predictor, "validation")
    codes = list(range(predictor.predict(next(run.rows("test")).slice(0, 1)).numeric.shape[1]))
    numeric = len(codes)
    few = [i for i in range(numeric, train.shape[1]) if train[:, i].max() < 250]
    trees = HistGradientBoostingClassifier(
        categorical_features=few, early_stopping=True, random_state=0, max_iter=500
    ).fit(train, y, X_val=held, y_val=y_held)
    defaults = HistGradientBoostingClassifier(random_state=0).fit(train, y)
    linear = make_pipeline(
        Columns(numeric, StandardScaler(), OneHotEncoder(handle_unknown="ignore")),
        LogisticRegression(max_iter=500),
    ).fit(train, y)

    def of(model: Any) -> Callable[[pa.Table], np.ndarray]:
        return lambda rows: model.predict_proba(matrix(predictor, rows))[:, 1]

    return {
        "mlray": lambda rows: predictor.predict(rows).scores,
        "logistic regression": of(linear),
        "boosted trees": of(defaults),
        "boosted trees tuned": of(trees),
    }


class Columns:
    """Numbers are standardised (missing = median), codes become indicators: for linear models."""

    def __init__(self, numeric: int, scale: Any, indicate: Any) -> None:
        self.numeric, self.scale, self.indicate = numeric, scale, indicate

    def fit(self, rows: np.ndarray, y: Any = None) -> Columns:
        self.scale.fit(self._numbers(rows))
        if rows.shape[1] > self.numeric:
            self.indicate.fit(rows[:, self.numeric :])
        return self

    def transform(self, rows: np.ndarray) -> Any:
        from scipy.sparse import csr_matrix, hstack

        parts = [csr_matrix(self.scale.transform(self._numbers(rows)))]
        if rows.shape[1] > self.numeric:
            parts.append(self.indicate.transform(rows[:, self.numeric :]))
        return hstack(parts).tocsr()

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        return np.clip(np.nan_to_num(rows[:, : self.numeric], nan=0.0), -10, 10)


def matrix(predictor: Predictor, rows: pa.Table) -> np.ndarray:
    """What mlray's own network sees: encoded numbers, then codes."""
    seen = predictor.predict(rows)
    return np.hstack([seen.numeric, seen.category.astype(np.float32)])


def matrices(run: mlray.Run, predictor: Predictor, part: str) -> tuple[np.ndarray, np.ndarray]:
    rows = pa.concat_tables(run.rows(part))
    return matrix(predictor, rows), labels(predictor, rows)


def labels(predictor: Predictor, rows: pa.Table) -> np.ndarray:
    return predictor.encoder.encode_target(rows[predictor.encoder.target.column])


def scores(
    models: dict[str, Any], run: mlray.Run, rows: pa.Table, metric: Callable[..., float]
) -> dict[str, float]:
    predictor = Predictor(load_bundle(bundle_folder(run.stage("evaluate"))), run.project.folder)
    truth = labels(predictor, rows)
    return {name: float(metric(truth, model(rows))) for name, model in models.items()}


def show(rows: list[Row]) -> None:
    table = Table("", *MODELS, "goal")
    for name, _, found in rows:
        goal = GOALS.get(name)
        wanted = goal if goal else max(found["logistic regression"], found["boosted trees"])
        table.add_row(name, *(f"{found[m]:.4f}" for m in MODELS), f"{wanted:.4f}")
    Console().print(table)


def claims_of(rows: list[Row]) -> list[Claim]:
    claims = []
    for name, better, found in rows:
        goal = GOALS.get(name, max(found["logistic regression"], found["boosted trees"]))
        for model in MODELS:
            called = f"{name}, {model}".replace(" ", "_")
            aim = goal if model == "mlray" else None
            claims.append(Claim(called, round(found[model], 5), aim, "", better))
    return claims


if __name__ == "__main__":
    main()
