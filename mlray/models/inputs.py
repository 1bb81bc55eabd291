"""What a network is told about its inputs: names, cardinalities, cut points. No rows, no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MISSING, UNSEEN, FIRST_VALUE = 0, 1, 2
"""Category codes: 0 no value, 1 a value that training did not know, 2.. values by frequency."""


@dataclass(frozen=True)
class Inputs:
    """Shapes and statistics that a network is built from: F numeric and C categorical features.

    Everything here is plain data; it travels in the bundle as JSON and in training jobs as is.
    """

    task: str
    """binary, multiclass or regression."""
    numeric: tuple[str, ...]
    """Names of the F numeric features, in column order of the encoded matrix."""
    category: tuple[str, ...]
    """Names of the C categorical features."""
    cardinalities: tuple[int, ...]
    """Per categorical feature: number of codes, `MISSING` and `UNSEEN` included."""
    quantiles: tuple[tuple[float, ...], ...]
    """Per numeric feature: ascending distinct cut points in encoded units."""
    has_missing: tuple[bool, ...]
    """Per numeric feature: whether training rows lacked values."""
    outputs: int
    """Logits per row: 1 for binary and regression, K classes for multiclass."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Inputs:
        """Inverse of `to_dict`, also after a way through JSON.

        >>> inputs = Inputs("binary", ("x",), (), (), ((0.0, 1.0),), (False,), 1)
        >>> Inputs.from_dict(inputs.to_dict()) == inputs
        True
        """
        return cls(
            task=str(values["task"]),
            numeric=tuple(values["numeric"]),
            category=tuple(values["category"]),
            cardinalities=tuple(int(n) for n in values["cardinalities"]),
            quantiles=tuple(tuple(float(q) for q in cuts) for cuts in values["quantiles"]),
            has_missing=tuple(bool(m) for m in values["has_missing"]),
            outputs=int(values["outputs"]),
        )
