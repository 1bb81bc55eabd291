"""One pass over tables keeps what judging needs: truth, score and slice values of each row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlray.errors import InputError, TrainingError
from mlray.models.columns import as_codes, as_floats, category_key, column_of
from mlray.models.inputs import FIRST_VALUE, MISSING, UNSEEN
from mlray.models.target import Target

BATCH_ROWS = 65_536
"""The predictor is given at most so many rows at once, which bounds the memory it needs."""
MISSING_VALUE = "(missing)"
NO_TARGET, NO_CLASS = "the target is missing", "the target is no class of the model"


class Scored(Protocol):
    """Predictions of N rows: probabilities (N,) or (N, K), or values (N,)."""

    @property
    def scores(self) -> npt.NDArray[np.float32]: ...


class Scorer(Protocol):
    """What can be judged: a `Predictor`, or anything that scores the rows of a table."""

    def predict(self, table: pa.Table) -> Scored: ...


@dataclass(frozen=True)
class Slice:
    """One slice column: per row a code, and the value that each code stands for."""

    column: str
    codes: npt.NDArray[np.int32]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """N rows that have a target.

    `y_true`: 0/1, class numbers, or values in the target's units, (N,).
    `y_score`: probabilities (N,) or (N, K), or values in the target's units (N,).
    `left_out`: rows that cannot be judged, by reason.
    """

    y_true: npt.NDArray[Any]
    y_score: npt.NDArray[np.float32]
    slices: tuple[Slice, ...]
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.y_true)


View = Callable[[pa.Table], pa.Table]
"""Makes one table of another, row for row."""


def as_it_is(table: pa.Table) -> pa.Table:
    return table


def collect(
    predictor: Scorer,
    tables: Iterable[pa.Table],
    target: Target,
    slices: Sequence[str],
    part: str,
    told: View = as_it_is,
) -> Rows:
    """Score every row that has a target, a batch at a time.

    Raises:
        InputError: no row has a target, or a slice column is missing.
        TrainingError: the model gave scores that are no numbers, or of another shape.
    """
    truths: list[npt.NDArray[Any]] = []
    scores: list[npt.NDArray[np.float32]] = []
    coders = [_Coder(column) for column in slices]
    left_out: Counter[str] = Counter()
    for batch in _batches(tables):
        known = told(batch)
        labels, judged = _labels(known, target, left_out)
        if not judged.any():
            continue
        kept = batch if judged.all() else batch.filter(pa.array(judged))
        truths.append(labels[judged])
        scores.append(_scores(predictor, kept, target, part))
        for coder in coders:
            coder.add(known if judged.all() else known.filter(pa.array(judged)))
    if not truths:
        raise InputError(
            f"the {part} part has no rows to judge the model by",
            value=", ".join(f"{n} rows: {reason}" for reason, n in left_out.items()) or "0 rows",
            do="give that part more rows under `split`, or mend the target",
        )
    found = tuple(coder.slice() for coder in coders)
    return Rows(np.concatenate(truths), np.concatenate(scores), found, dict(left_out))


def _batches(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    for table in tables:
        for start in range(0, table.num_rows, BATCH_ROWS):
            yield table.slice(start, BATCH_ROWS)


def _labels(
    table: pa.Table, target: Target, left_out: Counter[str]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """The truth of each row, and which rows have one; the others are counted."""
    column = column_of(table, target.column)
    if target.task == "regression":
        values = as_floats(column)
        judged = np.isfinite(values)
        left_out[NO_TARGET] += int((~judged).sum())
        return values, judged
    codes = {category_key(c): FIRST_VALUE + i for i, c in enumerate(target.classes)}
    found = as_codes(column, codes)
    left_out[NO_TARGET] += int((found == MISSING).sum())
    left_out[NO_CLASS] += int((found == UNSEEN).sum())
    return found.astype(np.int64) - FIRST_VALUE, found >= FIRST_VALUE


def _scores(
    predictor: Scorer, table: pa.Table, target: Target, part: str
) -> npt.NDArray[np.float32]:
    scores = np.asarray(predictor.predict(table).scores, dtype=np.float32)
    rows = (table.num_rows,)
    shape = (*rows, len(target.classes)) if target.task == "multiclass" else rows
    if scores.shape != shape:
        raise TrainingError(
            f"the model gave scores of another shape on the {part} part",
            value=scores.shape,
            allowed=str(shape),
            do="check the network's outputs",
        )
    allowed = "finite numbers" if target.task == "regression" else "numbers from 0 to 1"
    sound = np.isfinite(scores)
    if target.task != "regression":
        sound &= (scores >= 0) & (scores <= 1)
    if not sound.all():
        bad = int((~sound.reshape(len(scores), -1).all(axis=1)).sum())
        raise TrainingError(
            f"the model gave scores that are no usable numbers on the {part} part",
            value=f"{bad:,} of {len(scores):,} rows",
            allowed=allowed,
            do="lower training.learning_rate, and look for extreme values in the report's columns",
        )
    return scores


class _Coder:
    """Values of one slice column as numbers; the text of each is kept once."""

    def __init__(self, column: str):
        self._column = column
        self._numbers: dict[str, int] = {}
        self._codes: list[npt.NDArray[np.int32]] = []

    def add(self, table: pa.Table) -> None:
        column = column_of(table, self._column)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        for chunk in column.chunks:
            texts = [_text(v) for v in chunk.dictionary.to_pylist()]
            texts.append(MISSING_VALUE)
            numbers = [self._numbers.setdefault(t, len(self._numbers)) for t in texts]
            indices = pc.fill_null(chunk.indices.cast(pa.int64()), len(texts) - 1)
            self._codes.append(np.array(numbers, np.int32)[indices.to_numpy(zero_copy_only=False)])

    def slice(self) -> Slice:
        codes = np.concatenate(self._codes) if self._codes else np.zeros(0, np.int32)
        return Slice(self._column, codes, tuple(self._numbers))


def _text(value: Any) -> str:
    return MISSING_VALUE if value is None or value != value else category_key(value)
