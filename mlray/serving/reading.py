"""From the bytes of a request to rows: size and encoding first, then JSON, then its shape."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import orjson

from mlray.serving import problems

Row = dict[str, Any]

_SHAPE = 'Send {"rows": [{"column": value, ...}, ...]} or {"columns": {"column": [values], ...}}.'


def rows_of(body: bytes, max_rows: int) -> list[Row]:
    """The rows of a request body, one dict per row.

    Raises:
        Problem: 400 not JSON, 413 too many rows, 422 no rows, another shape, or a number that
            is not finite.
    """
    document = _parsed(body)
    if not isinstance(document, dict) or len(document) != 1:
        raise problems.schema(f"The body has another shape. {_SHAPE}")
    if (rows := document.get("rows")) is not None:
        return _records(rows, max_rows)
    if (columns := document.get("columns")) is not None:
        return _transposed(columns, max_rows)
    raise problems.schema(f"The body has another shape. {_SHAPE}")


def _records(rows: Any, max_rows: int) -> list[Row]:
    if not isinstance(rows, list) or not rows:
        raise problems.schema("`rows` must be a list with at least one row.")
    if len(rows) > max_rows:
        raise problems.too_many_rows(max_rows)
    for number, row in enumerate(rows):
        if type(row) is not dict:
            raise problems.schema(f"Row {number} is not an object with column names as keys.")
    return rows


def _transposed(columns: Any, max_rows: int) -> list[Row]:
    if not isinstance(columns, dict) or not columns:
        raise problems.schema("`columns` must be an object with a list of values per column.")
    odd = [name for name, values in columns.items() if not isinstance(values, list)]
    if odd:
        raise problems.schema(f"Not a list of values: {problems.named(odd)}.", odd)
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise problems.schema("The columns have different numbers of values.")
    if (length := lengths.pop()) == 0:
        raise problems.schema("There is no row: each column needs at least one value.")
    if length > max_rows:
        raise problems.too_many_rows(max_rows)
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # RFC 8259 knows no NaN and orjson no 1e999: a wider parser finds the fields they stand in
        if fields := _nonfinite_fields(body):
            raise problems.schema(
                f"Not a finite number: {problems.named(fields)}. Use null for a missing value.",
                fields,
            ) from None
        detail = f"Not valid JSON in UTF-8 at byte {error.pos}."
        raise problems.broken_json(detail) from None


def _nonfinite_fields(body: bytes) -> list[str]:
    """Names of fields with NaN, an infinity or a number beyond float64; empty if not JSON."""
    try:
        return list(dict.fromkeys(_nonfinite(json.loads(body), "")))
    except (ValueError, RecursionError):
        return []


def _nonfinite(value: Any, field: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _nonfinite(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _nonfinite(inner, field)
    elif isinstance(value, float) and not math.isfinite(value):
        yield field
