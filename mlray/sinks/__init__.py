"""Where batch predictions go: one file per kind, each behind the shape of `Sink`."""

from __future__ import annotations

from mlray.config.sections import Prediction
from mlray.sinks.csv import CsvSink
from mlray.sinks.delta import DeltaSink
from mlray.sinks.jsonl import JsonLinesSink
from mlray.sinks.parquet import ParquetSink
from mlray.sinks.sink import BATCH, Parts, Sink
from mlray.sinks.sql import SqlSink

__all__ = ["BATCH", "Parts", "Sink", "open_sink"]

_ENDINGS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def open_sink(section: Prediction, folder: str) -> Sink:
    """The sink that a section describes.

    Args:
        section: where to and how.
        folder: of the project file.

    Raises:
        ConfigError: something is missing in the section.
        InputError: a library is missing, or the place is of the wrong kind.
    """
    kind = kind_of(section)
    if kind == "sql":
        return SqlSink.of(section, folder)
    if kind == "delta":
        return DeltaSink.of(section)
    if kind == "csv":
        return CsvSink.of(section)
    return JsonLinesSink.of(section) if kind == "jsonl" else ParquetSink.of(section)


def kind_of(section: Prediction) -> str:
    """What is written: as declared, a database if there is an address of one, else by the ending.

    >>> kind_of(Prediction(path="scores.csv")), kind_of(Prediction(path="scores"))
    ('csv', 'parquet')
    """
    if section.kind is not None:
        return section.kind
    if section.url is not None:
        return "sql"
    return next((kind for e, kind in _ENDINGS.items() if section.place.endswith(e)), "parquet")
