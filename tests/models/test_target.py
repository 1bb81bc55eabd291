from __future__ import annotations

import pyarrow as pa
import pytest

from mlray.errors import InputError
from mlray.models.target import Target
from mlray.stats.profile import ColumnProfile, Profile


def column(values: list[object]) -> ColumnProfile:
    return Profile.of(pa.table({"y": values})).columns["y"]


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([True, False] * 9, "binary", (False, True)),
        ([0, 1] * 9, "binary", (0, 1)),
        ([0.0, 1.0] * 9, "binary", (0.0, 1.0)),
        (["no"] * 9 + ["yes"] * 3, "binary", ("no", "yes")),
        (["yes"] * 9 + ["no"] * 3, "binary", ("yes", "no")),
        (["b", "a", "c"] * 9, "multiclass", ("a", "b", "c")),
        ([10, 2, 3] * 9, "multiclass", (2, 3, 10)),
        ([0.5 * i for i in range(40)], "regression", ()),
        (list(range(40)), "regression", ()),
    ],
)
def test_the_task_is_derived_from_the_values(
    values: list[object], task: str, classes: tuple[object, ...]
) -> None:
    target, reason = Target.fit(column(values))
    assert (target.task, target.classes) == (task, classes)
    assert reason


def test_the_positive_value_can_be_declared() -> None:
    target, _ = Target.fit(column(["no"] * 9 + ["yes"] * 3), positive="no")
    assert target.classes == ("yes", "no")
    target, _ = Target.fit(column([1, 2] * 9), positive="2")
    assert target.classes == (1, 2)
    with pytest.raises(InputError, match="maybe"):
        Target.fit(column(["no", "yes"]), positive="maybe")


def test_whole_numbers_can_be_declared_a_regression() -> None:
    target, _ = Target.fit(column([1, 2, 3] * 9), task="regression")
    assert target.task == "regression"
    assert target.center == 2.0


@pytest.mark.parametrize("values", [[1] * 9, [None] * 9, ["x", None, "x"]])
def test_a_constant_target_is_refused(values: list[object]) -> None:
    with pytest.raises(InputError, match="different values"):
        Target.fit(column(values))


def test_a_task_that_does_not_suit_the_values_is_refused() -> None:
    with pytest.raises(InputError, match="3 different"):
        Target.fit(column(["a", "b", "c"]), task="binary")
    with pytest.raises(InputError, match="no number"):
        Target.fit(column(["a", "b", "c"]), task="regression")
    with pytest.raises(InputError, match="1,001"):
        Target.fit(column([f"c{i}" for i in range(1001)]))
