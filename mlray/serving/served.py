"""One version of a model, loaded, verified and warm: what stands behind the HTTP API."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from mlray.errors import BundleError, InputError
from mlray.serving import problems

if TYPE_CHECKING:
    from mlray.models.predictor import Predictions, Predictor
    from mlray.sources.personal import Keys

Row = dict[str, Any]
Fragment = Callable[["Predictions", int, int], list[dict[str, Any]]]


@dataclass(frozen=True)
class Champion:
    """A version of a registered model, and the folder its bundle lies in.

    `damage` says what the registry found wrong with the bundle already; empty if nothing.
    """

    version: str
    folder: str
    damage: str = ""


class Served:
    """A predictor with its name and version, and the bytes of its answers.

    Rows of all requests that arrived together are predicted together; scores do not depend on
    what else is in the batch (`Predictor` holds that to the bit). `count` takes the predictions of
    each batch after its answers are on their way.
    """

    def __init__(self, name: str, version: str, predictor: Predictor):
        self.name, self.version, self.predictor = name, version, predictor
        self.bundle, self.manifest = predictor.bundle, predictor.bundle.manifest
        self.count: Callable[[Predictions], None] | None = None
        self._items = _ITEMS[self.manifest.task](self.manifest.classes)
        head = orjson.dumps({"model": name, "version": version})
        self._head = head[:-1] + b',"predictions":'

    @classmethod
    def load(
        cls, name: str, champion: Champion, project_folder: str, keys: Keys | None = None
    ) -> Served:
        """Load, verify and warm up a version. Nothing of it is used before all of it is right.

        Raises:
            BundleError: a file is damaged or missing, or the golden rows give other predictions.
        """
        if champion.damage:
            raise BundleError(champion.damage, value=champion.folder)
        from mlray.models.bundle import load_bundle
        from mlray.models.predictor import Predictor

        predictor = Predictor(load_bundle(champion.folder), folder=project_folder, keys=keys)
        predictor.verify_golden()  # replays real rows, so the graph is warm afterwards too
        return cls(name, champion.version, predictor)

    @property
    def classes(self) -> list[Any]:
        """Target values as JSON knows them; empty for regression."""
        return list(self.manifest.classes)

    def example(self) -> Row:
        """The golden row with the fewest missing values, as a client would send it."""
        table, _ = self.bundle.golden
        rows = self.rows_to_send(table.select(self.predictor.schema.names))
        return min(rows, key=lambda row: sum(value is None for value in row.values()))

    def rows_to_send(self, table: pa.Table) -> list[Row]:
        """A table of request columns as rows of JSON values."""
        return [{n: _sent(v) for n, v in row.items()} for row in table.to_pylist()]

    def predict(self, rows: list[Row]) -> Predictions:
        """Predictions of the rows.

        Raises:
            Problem: 422 naming columns that are missing, unknown or of another type.
        """
        try:
            return self.predictor.predict_records(rows)
        except InputError as error:
            raise problems.schema(*_told(error)) from None

    def answer(self, predictions: Predictions, start: int, stop: int) -> bytes:
        """The body of the answer for rows `start` to `stop`.

        Raises:
            Problem: 500, a score is not a finite number.
        """
        if not np.isfinite(predictions.scores[start:stop]).all():
            raise problems.internal()
        return self._head + orjson.dumps(self._items(predictions, start, stop)) + b"}"


def _told(error: InputError) -> tuple[str, list[str]]:
    """The sentence and the field names of a predictor's complaint, which holds no values.

    >>> _told(InputError("values do not fit", value=["delay: a number is needed, text given"]))
    ('values do not fit: `delay: a number is needed, text given`.', ['delay'])
    """
    complaints = [str(c) for c in error.value] if isinstance(error.value, (list, tuple)) else []
    told = f"{error.what}: {problems.named(complaints)}." if complaints else f"{error.what}."
    if error.do:
        told += f" Do: {error.do}."
    return told, [complaint.partition(": ")[0] for complaint in complaints]


def _sent(value: Any) -> Any:
    """A table's value as JSON; a number that is not finite is sent as missing."""
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Decimal):
        value = float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _binary(classes: tuple[Any, ...]) -> Fragment:
    def items(p: Predictions, start: int, stop: int) -> list[dict[str, Any]]:
        scores, labels = p.scores[start:stop].tolist(), p.labels[start:stop]
        return [
            {"score": score, "label": label} for score, label in zip(scores, labels, strict=True)
        ]

    return items


def _multiclass(classes: tuple[Any, ...]) -> Fragment:
    names = [str(c) for c in classes]

    def items(p: Predictions, start: int, stop: int) -> list[dict[str, Any]]:
        scores, labels = p.scores[start:stop].tolist(), p.labels[start:stop]
        return [
            {
                "score": max(row),
                "label": label,
                "probabilities": dict(zip(names, row, strict=True)),
            }
            for row, label in zip(scores, labels, strict=True)
        ]

    return items


def _regression(classes: tuple[Any, ...]) -> Fragment:
    def items(p: Predictions, start: int, stop: int) -> list[dict[str, Any]]:
        return [{"value": value} for value in p.scores[start:stop].tolist()]

    return items


_ITEMS = {"binary": _binary, "multiclass": _multiclass, "regression": _regression}
