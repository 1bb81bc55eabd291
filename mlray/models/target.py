"""The target column: its classes or its scale, and the way to labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlray.errors import InputError
from mlray.models.columns import as_codes, as_floats, category_key
from mlray.models.inputs import FIRST_VALUE, MISSING, UNSEEN
from mlray.stats.profile import ColumnProfile

MAX_CLASSES = 1000
"""A target of more values is no classification; the profile keeps as many."""
FEW_WHOLE_NUMBERS = 20
"""A target of at most so many whole numbers is taken for classes."""


@dataclass(frozen=True)
class Target:
    """What is predicted.

    For binary targets `classes` is (negative, positive); for multiclass ones the K classes in the
    order of their labels; for regression it is empty and `(value - center) / scale` is learnt.
    """

    column: str
    task: str
    classes: tuple[Any, ...] = ()
    center: float = 0.0
    scale: float = 1.0

    @classmethod
    def fit(
        cls, column: ColumnProfile, task: str = "auto", positive: object = None
    ) -> tuple[Target, str]:
        """The target as its profile shows it, and why this task.

        Args:
            column: profile of the target over the training rows.
            task: declared kind of problem, or auto.
            positive: value of a binary target that counts as 1.

        Raises:
            InputError: the target has one value only, or does not suit the task.
        """
        if column.present == 0 or column.distinct < 2:
            raise InputError(
                f"target {column.name!r} has {min(column.distinct, 1)} different values",
                allowed="at least two",
                do="check sources.transform and the split: there is nothing to tell apart",
            )
        chosen, reason = (task, "declared") if task != "auto" else derived_task(column)
        if chosen == "regression":
            return cls._of_numbers(column), reason
        values = cls._values(column, chosen)
        if chosen == "multiclass":
            return cls(column.name, chosen, tuple(sorted(values, key=_order))), reason
        high = _positive(column, values, positive)
        (low,) = (v for v in values if v != high)
        return cls(column.name, chosen, (low, high)), f"{reason}; {high!r} counts as 1"

    @classmethod
    def _of_numbers(cls, column: ColumnProfile) -> Target:
        if column.kind not in ("numeric", "boolean"):
            raise InputError(
                f"target {column.name!r} is no number", value=column.type, allowed="numbers"
            )
        scale = column.std if column.std > 0 else 1.0
        return cls(column.name, "regression", (), float(column.mean), float(scale))

    @classmethod
    def _values(cls, column: ColumnProfile, task: str) -> list[Any]:
        most = 2 if task == "binary" else MAX_CLASSES
        if column.distinct > most or (task == "binary" and column.distinct != 2):
            raise InputError(
                f"target {column.name!r} has {column.distinct:,} different values",
                allowed=f"{'2' if task == 'binary' else f'at most {MAX_CLASSES}'} for {task}",
                do="declare another model.task, or make the label in sources.rows.transform",
            )
        return [value for value, _ in column.top]

    @property
    def outputs(self) -> int:
        """Logits per row."""
        return len(self.classes) if self.task == "multiclass" else 1

    def encode(self, column: pa.ChunkedArray) -> npt.NDArray[Any]:
        """Labels (N,): float32 0/1 or standardised, int64 for multiclass.

        Raises:
            InputError: values are missing or are no known class; the message counts them.
        """
        if self.task == "regression":
            return self._numbers(column)
        codes = {category_key(c): FIRST_VALUE + i for i, c in enumerate(self.classes)}
        found = as_codes(column, codes)
        self._refuse(int((found == MISSING).sum()), "rows have no target value")
        self._refuse(int((found == UNSEEN).sum()), "rows have a target value that is no class")
        labels = found - FIRST_VALUE
        return labels.astype(np.float32 if self.task == "binary" else np.int64)

    def _numbers(self, column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
        values = as_floats(column)
        self._refuse(int((~np.isfinite(values)).sum()), "rows have no finite target value")
        return np.asarray((values - self.center) / self.scale, dtype=np.float32)

    def _refuse(self, rows: int, what: str) -> None:
        if rows:
            raise InputError(
                f"{rows} {what}",
                value=self.column,
                allowed=", ".join(map(str, self.classes)) or "finite numbers",
                do=f"add a quality rule {{column: {self.column}, required: true}} or a transform "
                "that drops these rows",
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Target:
        return cls(**{**values, "classes": tuple(values["classes"])})


def derived_task(column: ColumnProfile) -> tuple[str, str]:
    """The kind of problem that a target's values suggest, and why."""
    if column.distinct == 2:
        return "binary", "two values"
    if column.kind in ("string", "boolean"):
        return "multiclass", f"text of {column.distinct:,} values"
    whole = column.type.startswith(("int", "uint"))
    if whole and column.distinct <= FEW_WHOLE_NUMBERS:
        return "multiclass", f"{column.distinct} whole numbers; declare regression if they measure"
    return "regression", f"numbers, {column.distinct:,} values"


def _positive(column: ColumnProfile, values: list[Any], declared: object) -> Any:
    """The value that counts as 1: declared, true, 1, or the rarer."""
    if declared is not None:
        named = [v for v in values if category_key(v) == category_key(declared)]
        if not named:
            raise InputError(
                f"model.positive is no value of target {column.name!r}",
                value=declared,
                allowed=", ".join(map(str, values)),
            )
        return named[0]
    for value in values:
        if value is True or value == 1:
            return value
    return min(column.top, key=lambda pair: (pair[1], category_key(pair[0])))[0]


def _order(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value
