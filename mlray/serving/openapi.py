"""The OpenAPI 3.1 document of a served version, made from the bundle's schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

import mlray

if TYPE_CHECKING:
    from mlray.serving.served import Served

Json = dict[str, Any]

_PROBLEMS = {
    "400": "The body is not JSON in UTF-8",
    "408": "The body did not arrive in time",
    "413": "The body is too large or has too many rows",
    "415": "The body is not application/json",
    "422": "The rows do not fit the schema; `fields` names the columns",
    "500": "The service failed on this request",
    "503": "No model is loaded yet",
}


def document(served: Served) -> Json:
    """The OpenAPI document as a JSON-able dict."""
    manifest = served.manifest
    return {
        "openapi": "3.1.0",
        "info": {
            "title": served.name,
            "version": served.version,
            "description": f"Predicts `{manifest.target}` ({manifest.task}).",
        },
        "paths": {
            "/predict": {"post": _predict(served)},
            f"/v1/models/{served.name}/predict": {"post": _predict(served)},
            "/health/live": {"get": _get("Whether the process answers")},
            "/health/ready": {"get": _get("Whether a model is loaded, and which", "503")},
            "/openapi.json": {"get": _get("This document")},
        },
        "components": {
            "schemas": {
                "Row": _row(served),
                "Request": _request(served),
                "Prediction": _prediction(served),
                "Answer": _answer(served),
                "Problem": _PROBLEM,
            }
        },
        "x-mlray": {"mlray": mlray.__version__, "metric": manifest.metric},
    }


_PROBLEM: Json = {
    "type": "object",
    "description": "RFC 9457 problem document; names fields, never values.",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "fields": {"type": "array", "items": {"type": "string"}},
        "request_id": {"type": "string"},
    },
}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _problem(description: str) -> Json:
    content = {"application/problem+json": {"schema": _ref("Problem")}}
    return {"description": description, "content": content}


def _get(summary: str, *problems: str) -> Json:
    content = {"application/json": {"schema": {"type": "object"}}}
    responses = {"200": {"description": "OK", "content": content}}
    return {
        "summary": summary,
        "responses": responses | {code: _problem(_PROBLEMS[code]) for code in problems},
    }


def _predict(served: Served) -> Json:
    example = {"rows": [served.example()]}
    answer = {"schema": _ref("Answer")}
    ok = {"description": "One prediction per row", "content": {"application/json": answer}}
    return {
        "summary": f"Predict {served.manifest.target}",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref("Request"), "example": example}},
        },
        "responses": {"200": ok, **{code: _problem(text) for code, text in _PROBLEMS.items()}},
    }


def _row(served: Served) -> Json:
    schema = served.predictor.schema
    return {
        "type": "object",
        "properties": {field.name: _column(field.type) for field in schema},
        "required": list(schema.names),
        "additionalProperties": False,
    }


def _column(kind: pa.DataType) -> Json:
    """The JSON schema of a column; null is a missing value everywhere.

    >>> _column(pa.int64())
    {'type': ['integer', 'null']}
    >>> _column(pa.timestamp("us"))
    {'type': ['string', 'null'], 'format': 'date-time'}
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        return {"type": ["boolean", "null"]}
    if pa.types.is_integer(kind):
        return {"type": ["integer", "null"]}
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return {"type": ["number", "null"]}
    if pa.types.is_timestamp(kind):
        return {"type": ["string", "null"], "format": "date-time"}
    if pa.types.is_date(kind):
        return {"type": ["string", "null"], "format": "date"}
    return {"type": ["string", "null"]}


def _request(served: Served) -> Json:
    rows = {"type": "array", "minItems": 1, "items": _ref("Row")}
    columns = {
        name: {"type": "array", "minItems": 1, "items": _column(kind)}
        for name, kind in zip(
            served.predictor.schema.names, served.predictor.schema.types, strict=True
        )
    }
    by_column = {"type": "object", "properties": columns, "required": list(columns)}
    return {
        "oneOf": [
            _shape("rows", rows),
            _shape("columns", by_column | {"additionalProperties": False}),
        ]
    }


def _shape(name: str, schema: Json) -> Json:
    return {
        "type": "object",
        "properties": {name: schema},
        "required": [name],
        "additionalProperties": False,
    }


def _prediction(served: Served) -> Json:
    number = {"type": "number"}
    frac = {"type": "number", "minimum": 0, "maximum": 1}
    if served.manifest.task == "regression":
        return {"type": "object", "properties": {"value": number}, "required": ["value"]}
    label = {"enum": list(served.classes)}
    properties: Json = {"score": frac, "label": label}
    if served.manifest.task == "multiclass":
        names = {str(c): frac for c in served.classes}
        properties["probabilities"] = {"type": "object", "properties": names}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _answer(served: Served) -> Json:
    return {
        "type": "object",
        "required": ["model", "version", "predictions"],
        "properties": {
            "model": {"const": served.name},
            "version": {"type": "string"},
            "predictions": {"type": "array", "items": _ref("Prediction")},
        },
    }
