"""Named columns become the network's matrices. Fitted from a profile, kept as JSON, no pickle.

Legend: N rows, F numeric features, C categorical features, K classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlray.models.columns import (
    CALENDAR,
    Floats,
    arrow_type,
    as_codes,
    as_floats,
    calendar,
    category_key,
    code_of,
    column_of,
    seconds,
)
from mlray.models.inputs import FIRST_VALUE, MISSING, UNSEEN, Inputs
from mlray.models.roles import Role
from mlray.models.target import Target
from mlray.stats.profile import ColumnProfile, Profile

CUTS = 64
"""At most so many cut points per numeric feature; a column of fewer values has one at each."""
LARGEST = 1e30
"""Finite encoded values end here, so that float32 arithmetic on them stays finite."""
_RANKS = 4001
"""Quantiles asked of the profile to find values that many rows share."""
MIN_COUNT = 5
"""A category value seen less often is encoded as unseen: its embedding could only be noise."""


@dataclass(frozen=True)
class Encoded:
    """Rows as matrices: numeric float32 (N, F), NaN = missing; category int32 codes (N, C)."""

    numeric: npt.NDArray[np.float32]
    category: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.numeric)


@dataclass(frozen=True)
class NumericFeature:
    """One column of the numeric matrix: `(value - center) / scale`.

    `part` is empty for a number, or which calendar feature of a time column it is.
    """

    name: str
    column: str
    part: str
    center: float
    scale: float
    quantiles: tuple[float, ...]
    has_missing: bool


@dataclass(frozen=True)
class CategoryFeature:
    """One column of the code matrix: code `FIRST_VALUE + i` stands for `values[i]`."""

    name: str
    column: str
    values: tuple[str, ...]

    @cached_property
    def codes(self) -> dict[str, int]:
        return {value: FIRST_VALUE + i for i, value in enumerate(self.values)}


@dataclass(frozen=True)
class Encoder:
    """What turns a table into `Encoded`; equal wherever it is loaded."""

    numeric: tuple[NumericFeature, ...]
    category: tuple[CategoryFeature, ...]
    target: Target
    types: tuple[tuple[str, str], ...]
    """Columns needed and their Arrow types, in the profile's order; the target is not among them.
    """

    @classmethod
    def fit(cls, profile: Profile, roles: Sequence[Role], target: Target) -> Encoder:
        """Learn centres, scales, cut points and codes from the profile of the training rows."""
        numeric: list[NumericFeature] = []
        category: list[CategoryFeature] = []
        for role in roles:
            column = profile.columns[role.column]
            if role.kind == "category":
                category.append(_fit_category(column))
            elif role.kind == "time":
                numeric.extend(_fit_time(column))
            else:
                numeric.append(_fit_number(column))
        used = {f.column for f in numeric} | {f.column for f in category}
        types = tuple((n, c.type) for n, c in profile.columns.items() if n in used)
        return cls(tuple(numeric), tuple(category), target, types)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns that `encode` needs, with their types."""
        return pa.schema([(name, arrow_type(text)) for name, text in self.types])

    @property
    def classes(self) -> tuple[Any, ...]:
        """Target values in the order of their codes; empty for regression."""
        return self.target.classes

    def inputs(self) -> Inputs:
        """What the network is told."""
        return Inputs(
            task=self.target.task,
            numeric=tuple(f.name for f in self.numeric),
            category=tuple(f.name for f in self.category),
            cardinalities=tuple(FIRST_VALUE + len(f.values) for f in self.category),
            quantiles=tuple(f.quantiles for f in self.numeric),
            has_missing=tuple(f.has_missing for f in self.numeric),
            outputs=self.target.outputs,
        )

    def encode(self, table: pa.Table) -> Encoded:
        """Matrices of a table; columns that are not needed are ignored.

        Raises:
            InputError: a needed column is missing.
        """
        numeric = np.empty((table.num_rows, len(self.numeric)), dtype=np.float64)
        for i, feature in enumerate(self.numeric):
            column = column_of(table, feature.column)
            numeric[:, i] = (
                calendar(seconds(column), feature.part) if feature.part else as_floats(column)
            )
        category = np.empty((table.num_rows, len(self.category)), dtype=np.int32)
        for i, named in enumerate(self.category):
            category[:, i] = as_codes(column_of(table, named.column), named.codes)
        return Encoded(self.standardise(numeric), category)

    @cached_property
    def takes_lists(self) -> bool:
        """Whether `encode_lists` knows all column types; else rows go through a table."""
        types = {f.name: f.type for f in self.schema}
        return all(
            _is_instant(types[f.column]) if f.part else _is_number(types[f.column])
            for f in self.numeric
        ) and all(_is_key(types[f.column]) for f in self.category)

    def encode_lists(self, columns: Mapping[str, Sequence[Any]], rows: int) -> Encoded:
        """The same matrices from checked request values, without a table between (see requests).

        It is 20 times as fast for a single row; a test holds its bits against `encode`.
        """
        numeric = np.empty((rows, len(self.numeric)), dtype=np.float64)
        numeric.T[:] = [columns[f.column] for f in self.numeric] or numeric.T
        for i in self._parts:
            numeric[:, i] = calendar(numeric[:, i] / 1e6, self.numeric[i].part)
        category = np.empty((rows, len(self.category)), dtype=np.int32)
        for i, feature in enumerate(self.category):
            codes = feature.codes
            category[:, i] = [code_of(value, codes) for value in columns[feature.column]]
        return Encoded(self.standardise(numeric), category)

    @cached_property
    def _parts(self) -> list[int]:
        return [i for i, feature in enumerate(self.numeric) if feature.part]

    @cached_property
    def _affine(self) -> tuple[Floats, Floats]:
        center = np.array([f.center for f in self.numeric], dtype=np.float64)
        return center, np.array([f.scale for f in self.numeric], dtype=np.float64)

    def standardise(self, values: Floats) -> npt.NDArray[np.float32]:
        """`(values - center) / scale` of raw numbers (N, F), in float64, as C-contiguous float32.

        Finite values stay finite (they end at +-`LARGEST`), infinities stay, NaN is missing.
        """
        center, scale = self._affine
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (values - center) / scale
            np.minimum(np.maximum(scaled, -LARGEST, out=scaled), LARGEST, out=scaled)
        infinite = np.isinf(values)
        if infinite.any():
            scaled[infinite] = values[infinite]
        return np.ascontiguousarray(scaled, dtype=np.float32)

    def encode_target(self, column: pa.ChunkedArray) -> npt.NDArray[Any]:
        """Labels: float32 0/1 (binary), float32 standardised (regression), int64 (multiclass)."""
        return self.target.encode(column)

    def to_human(self, feature: str, value: float) -> str:
        """An encoded number or a category code in the words of the column.

        Raises:
            KeyError: no such feature.
        """
        for number in self.numeric:
            if number.name == feature:
                # a thousandth of the spread tells bins apart, and hides float32's last digits
                decimals = 3 - math.floor(math.log10(number.scale))
                return f"{round(value * number.scale + number.center, decimals) + 0.0:.8g}"
        named = next((f for f in self.category if f.name == feature), None)
        if named is None:
            raise KeyError(feature)
        return self.labels(feature)[int(value)]

    def labels(self, feature: str) -> tuple[str, ...]:
        """Texts of a categorical feature's codes, from code 0 on."""
        named = next(f for f in self.category if f.name == feature)
        first = {MISSING: "missing", UNSEEN: "unseen"}
        return (first[MISSING], first[UNSEEN], *named.values)

    def to_json(self) -> str:
        """The same encoder gives the same text."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Encoder:
        values: Mapping[str, Any] = json.loads(text)
        return cls(
            numeric=tuple(
                NumericFeature(**{**f, "quantiles": tuple(f["quantiles"])})
                for f in values["numeric"]
            ),
            category=tuple(
                CategoryFeature(f["name"], f["column"], tuple(f["values"]))
                for f in values["category"]
            ),
            target=Target.from_dict(values["target"]),
            types=tuple((name, text) for name, text in values["types"]),
        )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_float64(kind) or pa.types.is_boolean(kind))


def _is_key(kind: pa.DataType) -> bool:
    return _is_number(kind) or bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_instant(kind: pa.DataType) -> bool:
    """Whether microseconds since 1970 are the wall clock's, to the last one."""
    return bool(
        pa.types.is_timestamp(kind) and kind.unit in ("us", "ns") and kind.tz in (None, "UTC")
    )


def _fit_number(column: ColumnProfile) -> NumericFeature:
    center, scale = center_and_scale(column)
    with np.errstate(over="ignore", invalid="ignore"):
        cuts = (_cut_points(column) - center) / scale
    cuts = np.unique(np.clip(cuts, -LARGEST, LARGEST).astype(np.float32))
    missing = column.missing + column.nonfinite > 0
    return NumericFeature(
        column.name, column.name, "", center, scale, tuple(map(float, cuts)), missing
    )


def _cut_points(column: ColumnProfile) -> Floats:
    """Where the network may bend: at most `CUTS` points, ascending.

    A column of few values has one at each. Else each value that many rows share (a zero, a cap)
    has its own, and the other rows are cut at even shares: plain quantiles of a column that is
    nearly always 0 would all be 0.
    """
    if column.kind == "boolean":
        return np.array([0.0, 1.0])
    if not column.present:
        return np.zeros(0)
    ranked = column.quantile(np.linspace(0, 1, _RANKS))
    values, counts = np.unique(ranked, return_counts=True)
    if column.distinct_is_exact and column.distinct <= CUTS and not column.top_error:
        return np.unique(np.array([float(v) for v, _ in column.top], dtype=np.float64))
    shared = values[counts >= _RANKS / CUTS]
    others = ranked[~np.isin(ranked, shared)]
    if len(others):
        at = np.linspace(0, len(others) - 1, max(CUTS - len(shared), 2)).round().astype(int)
        others = others[at]
    return np.unique(np.concatenate([shared, others, values[[0, -1]]]))


def center_and_scale(column: ColumnProfile) -> tuple[float, float]:
    """Median and spread of a column, in which no single wild value has a say.

    The scale is the distance of the 5 % and 95 % quantiles over 3.29, which is the standard
    deviation of a normal column; of a column that hardly varies it is the standard deviation,
    and 1 if there is none.
    """
    if column.kind == "boolean":
        return 0.5, 0.5
    if not column.present:
        return 0.0, 1.0
    low, center, high = (float(q) for q in column.quantile(np.array([0.05, 0.5, 0.95])))
    for scale in (high / 3.29 - low / 3.29, column.std):
        if np.isfinite(scale) and scale > 1e-30 * max(1.0, abs(center)):
            return center, float(scale)
    return center, 1.0


def _fit_time(column: ColumnProfile) -> list[NumericFeature]:
    """Calendar features whose whole cycle the training rows have seen at least once.

    Half a year of rows cannot say what December is like: a yearday would only be a date to learn
    by heart.
    """
    features = []
    for part in calendar_parts(column):
        center, scale = CALENDAR[part]
        top = {"hour": 24, "weekday": 6, "yearday": 366}[part]
        steps = np.arange(top + 1) if top <= CUTS else np.linspace(1, top, 25)
        cuts = tuple(map(float, ((steps - center) / scale).astype(np.float32)))
        name = f"{column.name}.{part}"
        missing = column.missing > 0
        features.append(NumericFeature(name, column.name, part, center, scale, cuts, missing))
    return features


def calendar_parts(column: ColumnProfile) -> list[str]:
    """Which of `CALENDAR` a time column is expanded to."""
    low, high = column.minimum, column.maximum
    span_s = high - low if isinstance(low, float) and isinstance(high, float) else 0.0
    parts = [] if column.type.startswith("date") else ["hour"]
    if column.kind != "time" or span_s >= 14 * 86400:
        parts.append("weekday")
    if span_s >= 365 * 86400:
        parts.append("yearday")
    return parts


def _fit_category(column: ColumnProfile) -> CategoryFeature:
    least = MIN_COUNT if column.rows >= 20 * MIN_COUNT else 1
    values = dict.fromkeys(category_key(value) for value, count in column.top if count >= least)
    return CategoryFeature(column.name, column.name, tuple(values))
