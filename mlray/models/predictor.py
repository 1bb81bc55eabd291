"""A loaded bundle: rows in, predictions out. Evaluation, batches and serving all come here.

Legend: N rows, F numeric and C categorical features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlray import usercode
from mlray.errors import BundleError, ConfigError, InputError
from mlray.models.bundle import Bundle
from mlray.models.columns import column_of
from mlray.models.encoder import Encoded, Encoder
from mlray.models.requests import Columns, RequestSchema
from mlray.models.scoring import Scorer, processor

Transform = Callable[[pa.Table], pa.Table]

ELSEWHERE_TOLERANCE = 1e-5
"""On another kind of CPU golden scores may differ by so much of their size: other kernels run."""


@dataclass(frozen=True)
class Predictions:
    """What the model says about N rows, and the encoded rows that it saw.

    `scores`: float32, probability of the positive class (N,), of each class (N, K), or the value
    in the target's units (N,). `labels`: the class of each row, or the value itself.
    `numeric` (N, F) and `category` (N, C): the encoded rows, for the drift counters.
    """

    scores: npt.NDArray[np.float32]
    labels: list[Any]
    numeric: npt.NDArray[np.float32]
    category: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.scores)


class Predictor:
    """A bundle that answers. Safe to call from several threads.

    Args:
        bundle: verified by `load_bundle`.
        folder: of the project file, where the transform's module is found.
        threads: CPU threads of one call.

    Raises:
        BundleError: the graph is refused, or the transform's code is missing or another one.
    """

    def __init__(self, bundle: Bundle, folder: str | None = None, threads: int = 1):
        self.bundle = bundle
        self.encoder: Encoder = bundle.encoder
        manifest = bundle.manifest
        self.task, self.classes = manifest.task, manifest.classes
        self.threshold = manifest.threshold
        self.schema: pa.Schema = manifest.request_schema
        self._requests = RequestSchema(self.schema)
        self._transform = _transform(bundle, folder)
        self._scorer = Scorer(bundle.graph, multiple=manifest.multiple, threads=threads)

    def predict(self, table: pa.Table) -> Predictions:
        """Predictions of a table's rows; columns that the model does not need are ignored.

        Raises:
            InputError: a column is missing or of a type that does not convert.
        """
        table = _as_schema(table, self.schema)
        if self._transform is not None:
            table = transformed(self._transform, table)
        return self._score(self.encoder.encode(table))

    def predict_records(self, records: Sequence[Mapping[str, Any]]) -> Predictions:
        """Predictions of request rows, one dict each; `InputError` as `from_records`."""
        return self._predict_checked(self._requests.columns(records), len(records))

    def predict_columns(self, columns: Mapping[str, Sequence[Any]]) -> Predictions:
        """Predictions of request rows, one list per column; `InputError` as `from_columns`."""
        checked = self._requests.from_columns(columns)
        return self._predict_checked(checked, len(next(iter(checked.values()))))

    def from_records(self, records: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Request rows as a table.

        Raises:
            InputError: a column is missing, not known or of the wrong type. The message names
                columns and what they need, never a value.
        """
        return self._requests.table(self._requests.columns(records))

    def from_columns(self, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
        """Request columns as a table; `InputError` as `from_records`."""
        return self._requests.table(self._requests.from_columns(columns))

    def verify_golden(self) -> None:
        """Replay the golden rows; they must give the stored scores to the bit.

        Raises:
            BundleError: they do not. On another kind of CPU than the one that wrote the bundle a
                difference of `ELSEWHERE_TOLERANCE` is allowed.
        """
        rows, stored = self.bundle.golden
        wanted = scores_of(stored)
        found = self.predict(rows).scores
        if found.shape == wanted.shape and found.tobytes() == wanted.tobytes():
            return
        here = processor()
        if here != self.bundle.manifest.processor and _close(found, wanted):
            return
        raise BundleError(
            "golden rows do not give the stored scores",
            value=self.bundle.folder,
            do="check that mlray, onnxruntime and the project's transform are those of training",
        )

    @cached_property
    def _direct(self) -> bool:
        return self._transform is None and self.encoder.takes_lists

    def _predict_checked(self, columns: Columns, rows: int) -> Predictions:
        if self._direct:
            return self._score(self.encoder.encode_lists(columns, rows))
        return self.predict(self._requests.table(columns))

    def _score(self, encoded: Encoded) -> Predictions:
        scores = self._scorer(encoded.numeric, encoded.category)
        return Predictions(scores, self.labels(scores), encoded.numeric, encoded.category)

    def labels(self, scores: npt.NDArray[np.float32]) -> list[Any]:
        """What scores (N,) or (N, K) mean: classes, or the values themselves for regression."""
        if self.task == "regression":
            return [float(score) for score in scores]
        if self.task == "multiclass":
            return [self.classes[i] for i in scores.argmax(axis=1).tolist()]
        negative, positive = self.classes
        threshold = self.threshold
        return [positive if score >= threshold else negative for score in scores.tolist()]


def transformed(transform: Transform, table: pa.Table) -> pa.Table:
    """The user's transform of a table, held to its promise of one row out for each row in.

    Raises:
        InputError: it raised, gave no table, or changed the number of rows.
    """
    try:
        result = transform(table)
    except InputError:
        raise
    except Exception as error:  # the user's code may raise anything; its text may hold values
        raise InputError(
            f"sources.transform failed on the rows ({type(error).__name__})",
            do="`mlray check` runs it on a few rows and shows where",
        ) from error
    if not isinstance(result, pa.Table) or result.num_rows != table.num_rows:
        given = f"{result.num_rows} rows" if isinstance(result, pa.Table) else type(result).__name__
        raise InputError(
            "sources.transform must give an Arrow table with one row for each row",
            value=f"{given} for {table.num_rows} rows",
        )
    return result


def required_inputs(table: pa.Table, transform: Transform | None, encoder: Encoder) -> list[str]:
    """Raw columns that transform and encoder really need, in the table's order.

    Found by trial: a column is dropped for good if the encoded rows stay the same without it.
    `table` holds a few raw rows with all columns; up to 64 of them are tried.
    """
    if transform is None:
        return [name for name in table.column_names if name in set(encoder.schema.names)]
    sample = table.slice(0, 64)
    whole = encoder.encode(transformed(transform, sample))
    for name in table.column_names:
        fewer = sample.drop_columns([name])
        if _encodes_as(fewer, transform, encoder, whole):
            sample = fewer
    return list(sample.column_names)


def _encodes_as(table: pa.Table, transform: Transform, encoder: Encoder, whole: Encoded) -> bool:
    try:
        encoded = encoder.encode(transformed(transform, table))
    except InputError:
        return False
    same = np.array_equal(encoded.numeric, whole.numeric, equal_nan=True)
    return bool(same and np.array_equal(encoded.category, whole.category))


def scores_of(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Stored scores as (N,) or (N, K)."""
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy(), dtype=np.float32)
    flat = np.asarray(column.combine_chunks().flatten().to_numpy(), dtype=np.float32)
    return flat.reshape(-1, column.type.list_size)


def _transform(bundle: Bundle, folder: str | None) -> Transform | None:
    path, wanted = bundle.manifest.transform, bundle.manifest.transform_sha256
    if path is None:
        return None
    try:
        found = usercode.version(path, folder)
        transform: Transform = usercode.resolve(path, folder)
    except (ConfigError, OSError) as error:
        raise BundleError(
            "the bundle needs the project's transform, which is not here", value=path, do=str(error)
        ) from error
    if found != wanted:
        raise BundleError(
            "the project's transform is not the code that the model was trained with",
            value=path,
            do="check out the code of that version, or train again",
        )
    return transform


def _as_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if missing := [name for name in schema.names if name not in table.column_names]:
        raise InputError(
            "columns are missing", value=missing, allowed=", ".join(table.column_names[:20])
        )
    table = table.select(schema.names)
    if table.schema.equals(schema):
        return table
    columns = [_cast(column_of(table, field.name), field) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"column {field.name!r} is of type {column.type}", allowed=str(field.type)
        ) from error


def _close(found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> bool:
    if found.shape != wanted.shape:
        return False
    size = float(np.abs(wanted).max(initial=1e-30))
    return bool((np.abs(found - wanted) <= ELSEWHERE_TOLERANCE * size).all())
