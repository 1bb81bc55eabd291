"""Judging a model: numbers made by hand, a scorer that is a column of the table."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from mlray.errors import ConfigError, InputError, TrainingError
from mlray.evaluation import Evaluation, evaluate, headline
from mlray.evaluation.rows import MISSING_VALUE
from mlray.models.target import Target

LATE = Target("late", "binary", (False, True))
COLOUR = Target("colour", "multiclass", ("blue", "green", "red"))
DELAY = Target("delay", "regression", center=5.0, scale=2.0)


@dataclass
class Predictions:
    scores: npt.NDArray[np.float32]


class Reads:
    """A model that reads its scores from columns of the table, and notes how many rows it got."""

    def __init__(self, *columns: str):
        self.columns, self.batches = columns, []  # type: ignore[var-annotated]

    def predict(self, table: pa.Table) -> Predictions:
        self.batches.append(table.num_rows)
        found = [np.array(table.column(c).to_pylist(), np.float32) for c in self.columns]
        return Predictions(found[0] if len(found) == 1 else np.stack(found, axis=1))


def late(truth: list[Any], scores: list[float], **columns: Any) -> pa.Table:
    return pa.table({"late": truth, "p": scores, **columns})


def many(n: int = 1000, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.3
    scores = np.clip(0.25 + 0.3 * truth + rng.normal(0, 0.2, n), 0, 1)
    carrier = np.where(rng.random(n) < 0.5, "UA", "AA")
    return late(truth.tolist(), scores.tolist(), carrier=carrier)


def test_numbers_made_by_hand_come_out() -> None:
    table = late([False, False, True, True], [0.1, 0.4, 0.35, 0.8])
    found = evaluate(Reads("p"), [table], LATE)
    values = headline(found)
    assert found.rows == 4
    assert values["roc_auc"] == 0.75
    assert values["accuracy"] == 0.75
    assert found.confusion == [[2, 0], [1, 1]]
    assert found.base_rate == 0.5
    assert found.class_rows == [2, 2]
    assert found.classes == ["False", "True"]
    assert found.baseline["roc_auc"] == 0.5
    assert found.baseline["log_loss"] == pytest.approx(math.log(2))
    assert found.curves["roc"] == {"x": [0, 0, 0.5, 0.5, 1], "y": [0, 0.5, 0.5, 1, 1]}


def test_every_metric_lies_in_its_interval() -> None:
    found = evaluate(Reads("p"), [many()], LATE, ["carrier"])
    for name, estimate in found.metrics.items():
        low, value, high = estimate["low"], estimate["value"], estimate["high"]
        assert None not in (low, value, high), name
        assert low <= value <= high, name  # type: ignore[operator]
    assert 0.7 < headline(found)["roc_auc"] < 0.95
    assert found.baseline["average_precision"] == pytest.approx(found.base_rate)


def test_streamed_tables_give_the_same_as_one() -> None:
    table = many(2000)

    def stream() -> Iterator[pa.Table]:
        for start in range(0, 2000, 130):
            yield table.slice(start, 130)

    whole = evaluate(Reads("p"), [table], LATE, ["carrier"])
    assert evaluate(Reads("p"), stream(), LATE, ["carrier"]) == whole


def test_the_model_is_given_bounded_batches() -> None:
    model = Reads("p")
    evaluate(model, [many(150_000)], LATE)
    assert model.batches == [65_536, 65_536, 18_928]


def test_rows_without_a_target_are_left_out_and_counted() -> None:
    table = late([None, False, True, None, True], [0.9, 0.1, 0.8, 0.9, 0.7])
    found = evaluate(Reads("p"), [table], LATE)
    assert found.rows == 3
    assert found.left_out == {"the target is missing": 2}
    assert headline(found)["roc_auc"] == 1.0


def test_a_class_that_the_model_does_not_know_is_left_out_and_counted() -> None:
    table = pa.table(
        {
            "colour": ["blue", "green", "violet", None, "red"],
            "a": [0.8, 0.1, 0.3, 0.3, 0.1],
            "b": [0.1, 0.8, 0.3, 0.3, 0.2],
            "c": [0.1, 0.1, 0.4, 0.4, 0.7],
        }
    )
    found = evaluate(Reads("a", "b", "c"), [table], COLOUR)
    assert found.left_out == {"the target is missing": 1, "the target is no class of the model": 1}
    assert found.confusion == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert headline(found)["accuracy"] == 1.0
    assert found.histogram["counts"]["wrong"] == [0] * 20
    assert found.baseline["log_loss"] == pytest.approx(math.log(3))


def test_regression_is_judged_in_the_units_of_the_target() -> None:
    table = pa.table({"delay": [10.0, 20.0, 30.0, None, math.inf], "p": [12.0, 20.0, 28.0, 0, 0]})
    found = evaluate(Reads("p"), [table], DELAY)
    values = headline(found)
    assert found.left_out == {"the target is missing": 2}
    assert values["mae"] == pytest.approx(4 / 3)
    assert values["rmse"] == pytest.approx(math.sqrt(8 / 3))
    assert values["r2"] == pytest.approx(1 - 8 / 200)
    assert found.baseline["r2"] == pytest.approx(0)
    assert found.baseline["mae"] == pytest.approx(20 / 3)
    assert sum(found.residuals["counts"]) == 3
    assert np.sum(found.predicted_true["counts"]) == 3
    assert found.threshold is None
    assert found.confusion == []


def test_a_regression_that_always_says_the_same_is_drawn_too() -> None:
    table = pa.table({"delay": [1.0, 2.0, 3.0], "p": [2.0, 2.0, 2.0]})
    found = evaluate(Reads("p"), [table], DELAY)
    assert sum(found.histogram["counts"]) == 3


def test_the_worst_slice_comes_first_and_small_ones_are_left_out() -> None:
    rng = np.random.default_rng(1)
    n = 400
    truth = rng.random(n) < 0.5
    good, bad = truth * 0.6 + 0.2, rng.random(n)
    origin = np.where(np.arange(n) % 2 == 0, "EWR", "JFK").astype(object)
    origin[:49] = "tiny"
    scores = np.where(origin == "JFK", bad, good)
    table = late(truth.tolist(), scores.tolist(), origin=pa.array(origin), month=[1] * n)
    found = evaluate(Reads("p"), [table], LATE, ["origin", "month"])
    assert [(s["column"], s["value"]) for s in found.slices] == [
        ("origin", "JFK"),
        ("month", "1"),
        ("origin", "EWR"),
    ]
    assert found.slices[2]["metrics"]["roc_auc"]["value"] == 1.0
    worst = found.slices[0]
    estimate = worst["metrics"]["roc_auc"]
    assert estimate["low"] < estimate["value"] < estimate["high"]
    assert worst["rows"] == 176
    assert "accuracy" in worst["metrics"]


def test_smaller_is_worse_only_where_greater_is_better() -> None:
    n = 200
    delay = np.linspace(0, 10, n)
    off = np.where(np.arange(n) < 100, 0.1, 3.0)
    half = ["near"] * 100 + ["far"] * 100
    table = pa.table({"delay": delay, "p": delay + off, "half": half})
    found = evaluate(Reads("p"), [table], DELAY, ["half"])
    assert [s["value"] for s in found.slices] == ["far", "near"]


def test_missing_slice_values_are_a_slice_and_values_are_capped_at_the_most_frequent() -> None:
    n = 50 * 32
    value = [None if i % 32 in (0, 31) else i % 32 for i in range(n)]
    table = late([i % 2 == 0 for i in range(n)], [0.5] * n, value=pa.array(value, pa.int64()))
    found = evaluate(Reads("p"), [table], LATE, ["value"])
    assert len(found.slices) == 20
    rows = {s["value"]: s["rows"] for s in found.slices}
    assert rows.pop(MISSING_VALUE) == 100
    assert set(rows.values()) == {50}


def test_a_slice_of_one_class_has_no_ranking_but_is_told() -> None:
    n = 200
    truth = [i % 2 == 0 for i in range(n)]
    side = ["left" if t else "right" for t in truth]
    table = late(truth, [0.5] * n, side=side)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate(Reads("p"), [table], LATE, ["side"])
    assert [s["metrics"]["roc_auc"]["value"] for s in found.slices] == [None, None]
    assert found.slices[0]["metrics"]["log_loss"]["value"] == pytest.approx(math.log(2))


def test_multiclass_slices_of_one_class_are_told_without_a_warning() -> None:
    n = 300
    colours = [COLOUR.classes[i % 3] for i in range(n)]
    third = [1 / 3] * n
    table = pa.table({"colour": colours, "a": third, "b": third, "c": third, "same": colours})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate(Reads("a", "b", "c"), [table], COLOUR, ["same"], metric="roc_auc")
    assert len(found.slices) == 3
    assert found.slices[0]["metrics"]["roc_auc"]["value"] is None


def test_one_class_only_is_named() -> None:
    table = late([True] * 5, [0.5] * 5)
    with pytest.raises(InputError, match=r"test part have the same class.*late = True in 5 rows"):
        evaluate(Reads("p"), [table], LATE)


@pytest.mark.parametrize("tables", [[], [late([], []).cast(late([True], [0.1]).schema)]])
def test_no_rows_are_named(tables: list[pa.Table]) -> None:
    with pytest.raises(InputError, match=r"validation part has no rows .*: 0 rows"):
        evaluate(Reads("p"), tables, LATE, part="validation")


def test_rows_that_all_lack_the_target_are_named() -> None:
    table = late(pa.array([None, None], pa.bool_()), [0.1, 0.2])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="2 rows: the target is missing"):
        evaluate(Reads("p"), [table], LATE)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1.5, -0.1])
def test_scores_that_are_no_probabilities_are_named(bad: float) -> None:
    table = late([False, True, True], [0.1, bad, 0.8])
    with pytest.raises(TrainingError, match=r"no usable numbers on the test part: 1 of 3 rows"):
        evaluate(Reads("p"), [table], LATE)


def test_nan_in_regression_and_wrong_shapes_are_named() -> None:
    table = pa.table({"delay": [1.0, 2.0], "p": [1.0, math.nan], "q": [1.0, 2.0]})
    with pytest.raises(TrainingError, match="1 of 2 rows"):
        evaluate(Reads("p"), [table], DELAY)
    with pytest.raises(TrainingError, match="another shape"):
        evaluate(Reads("q", "q"), [table], DELAY)


def test_missing_columns_and_unknown_metrics_are_named() -> None:
    table = late([False, True], [0.1, 0.8])
    with pytest.raises(InputError, match="origin"):
        evaluate(Reads("p"), [table], LATE, ["origin"])
    with pytest.raises(InputError, match="late"):
        evaluate(Reads("p"), [table.drop_columns(["late"])], LATE)
    model = Reads("p")
    with pytest.raises(ConfigError, match="rmse"):
        evaluate(model, [table], LATE, metric="rmse")
    assert model.batches == []


def test_the_threshold_moves_decisions_and_not_rankings() -> None:
    low = evaluate(Reads("p"), [many()], LATE, threshold=0.2)
    high = evaluate(Reads("p"), [many()], LATE, threshold=0.8)
    assert headline(low)["recall"] > headline(high)["recall"]
    assert headline(low)["roc_auc"] == headline(high)["roc_auc"]
    assert low.threshold == 0.2


def test_an_evaluation_goes_through_json_unchanged() -> None:
    for found in (
        evaluate(Reads("p"), [many()], LATE, ["carrier"]),
        evaluate(Reads("p"), [pa.table({"delay": [1.0, 2.0], "p": [1.0, 2.5]})], DELAY),
    ):
        text = found.to_json()
        assert Evaluation.from_json(text) == found
        assert Evaluation.from_json(text).to_json() == text
        json.loads(text, parse_constant=lambda constant: pytest.fail(constant))


def test_what_is_not_defined_is_null_in_json_and_nan_for_the_gate() -> None:
    table = pa.table({"delay": [3.0, 3.0], "p": [1.0, 2.0]})
    found = evaluate(Reads("p"), [table], DELAY)
    assert found.metrics["r2"]["value"] is None
    assert math.isnan(headline(found)["r2"])


def test_curves_and_bins_stay_small_for_many_rows() -> None:
    found = evaluate(Reads("p"), [many(20_000)], LATE)
    assert all(len(curve["x"]) <= 200 for curve in found.curves.values())
    assert len(found.to_json()) < 60_000
    assert sum(found.calibration["rows"]) == 20_000
    assert sum(sum(c) for c in found.histogram["counts"].values()) == 20_000


def test_two_hundred_thousand_rows_take_seconds() -> None:
    table = many(200_000)
    began = time.perf_counter()
    evaluate(Reads("p"), [table], LATE, ["carrier"])
    assert time.perf_counter() - began < 20
