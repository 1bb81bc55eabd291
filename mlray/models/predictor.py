"""A loaded bundle: rows in, predictions out. Evaluation, batches and serving all come here.

Legend: N rows, F numeric and C categorical features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from mlray.models.stepping import ListSteps
from mlray.sources.personal import Keys, Protection
from mlray.sources.steps import Steps

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
        keys: of the project's personal data (`mlray.sources.personal.keys_of`).

    Raises:
        BundleError: the graph is refused, the transform's code is missing or another one, or the
            key of personal data is.
    """

    def __init__(
        self,
        bundle: Bundle,
        folder: str | None = None,
        threads: int = 1,
        keys: Keys | None = None,
    ):
        self.bundle = bundle
        self.encoder: Encoder = bundle.encoder
        manifest = bundle.manifest
        self.task, self.classes = manifest.task, manifest.classes
        self.threshold = manifest.threshold
        self.schema: pa.Schema = manifest.request_schema
        self._requests = RequestSchema(self.schema)
        self._protection = _protection(bundle, keys)
        self._steps = _steps(bundle, folder)
        self._scorer = Scorer(bundle.graph, multiple=manifest.multiple, threads=threads)

    def predict(self, table: pa.Table) -> Predictions:
        """Predictions of a table's rows; columns that the model does not need are ignored.

        Personal data may come raw or as the pipeline wrote it: it is protected here if need be.

        Raises:
            InputError: a column is missing or of a type that does not convert.
        """
        table = _as_schema(self.protected(table), self.schema)
        return self._score(self.encoder.encode(self._prepared(table)))

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

    def protected(self, table: pa.Table) -> pa.Table:
        """Raw rows (N) as they may be written: personal data dropped, hashed or tokenised."""
        return self._protection.apply(table)

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
    def _direct(self) -> ListSteps | None:
        """The steps of the short way, which no table leads through, where it is open."""
        if self._steps.transform is not None or not self.encoder.takes_lists:
            return None
        return ListSteps(self._steps, self.schema, self.encoder.schema.names)

    def _predict_checked(self, columns: Columns, rows: int) -> Predictions:
        for name in self._protection.actions.keys() & columns.keys():
            columns[name] = list(self._protection.values(name, columns[name]))
        if self._direct is None:
            return self.predict(self._requests.table(columns))
        with _without_values():
            columns = self._direct(columns)
        return self._score(self.encoder.encode_lists(columns, rows))

    def _prepared(self, table: pa.Table) -> pa.Table:
        if self._steps.empty:
            return table
        with _without_values():
            return self._steps.rowwise(table)

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


@contextmanager
def _without_values() -> Iterator[None]:
    """A request's values must not stand in a log: only `value` of an error of steps has any."""
    try:
        yield
    except InputError as error:
        raise InputError(error.what, allowed=error.allowed, do=error.do) from error


def required_inputs(table: pa.Table, steps: Steps, encoder: Encoder) -> list[str]:
    """Raw columns that steps and encoder really need, in the table's order.

    Declared steps say so themselves. What a function needs is found by trial: a column is dropped
    for good if the encoded rows stay the same without it. `table` holds a few raw rows with all
    columns; up to 64 of them are tried.
    """
    if steps.transform is None:
        needed = steps.needs(encoder.schema.names)
        return [name for name in table.column_names if name in needed]
    sample = table.slice(0, 64)
    whole = encoder.encode(steps.able(table.column_names).rowwise(sample))
    for name in table.column_names:
        fewer = sample.drop_columns([name])
        if _encodes_as(fewer, steps, encoder, whole):
            sample = fewer
    return list(sample.column_names)


def _encodes_as(table: pa.Table, steps: Steps, encoder: Encoder, whole: Encoded) -> bool:
    try:
        encoded = encoder.encode(steps.able(table.column_names).rowwise(table))
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


def _steps(bundle: Bundle, folder: str | None) -> Steps:
    """The steps that requests take, without those that only the target needs."""
    manifest = bundle.manifest
    try:
        steps = Steps.from_dict(
            {**manifest.steps, "transform": manifest.transform}, "sources", folder
        )
    except (ConfigError, ValueError) as error:
        raise BundleError(
            "the bundle's steps are not what they should be",
            value=bundle.folder,
            do="take the bundle from its registry again",
        ) from error
    if steps.transform is None:
        return steps.until(bundle.encoder.schema.names)
    _check_code(steps.transform, manifest.transform_sha256, folder)
    return steps.able(manifest.request_schema.names)


def _check_code(path: str, wanted: str | None, folder: str | None) -> None:
    try:
        found = usercode.version(path, folder)
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


def _protection(bundle: Bundle, keys: Keys | None) -> Protection:
    """What becomes of personal data in rows: as in training, with the key of training."""
    manifest = bundle.manifest
    if keys is not None and manifest.pii_key_id not in (None, keys.id):
        raise BundleError(
            "the model was trained with another key of personal data",
            value=f"key {keys.id}",
            allowed=f"key {manifest.pii_key_id}",
            do="set sources.pii_key to that key, or train again",
        )
    if keys is not None:
        return Protection(manifest.protected, keys)
    names = {name for name, _ in manifest.schema}
    needed = [n for n, action in manifest.protected.items() if action != "drop" and n in names]
    if needed:
        raise BundleError(
            "the model takes hashed or tokenised columns, and no key is here",
            value=needed,
            do=f"set sources.pii_key to key {manifest.pii_key_id}",
        )
    return Protection(dict.fromkeys(manifest.protected, "drop"))


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
