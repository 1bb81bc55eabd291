"""Bodies become rows, or a problem that says what to do and repeats no value."""

from __future__ import annotations

import orjson
import pytest

from mlray.serving.problems import Problem
from mlray.serving.reading import rows_of


def refused(body: bytes, max_rows: int = 10) -> Problem:
    with pytest.raises(Problem) as caught:
        rows_of(body, max_rows)
    return caught.value


def test_records_and_columns_mean_the_same() -> None:
    records = rows_of(b'{"rows": [{"a": 1, "b": "x"}, {"a": 2, "b": null}]}', 10)
    columns = rows_of(b'{"columns": {"a": [1, 2], "b": ["x", null]}}', 10)
    assert records == columns == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"rows": [{"a": 01}]}',
        b'\xff\xfe{"rows"',
        b'{"rows": [{"a": "\xc3("}]}',
        '{"rows": []}'.encode("utf-16"),
        b'\xef\xbb\xbf{"rows": []}',
        b"[" * 100_000,
        b'{"rows": ' + b'[{"a":' * 5000,
        b'{"rows": [{"a": ' + b"9" * 10_000 + b"}",
        b'{"a": NaN',
    ],
)
def test_what_is_not_json_in_utf8_is_400(body: bytes) -> None:
    problem = refused(body)
    assert (problem.status, problem.kind) == (400, "json")
    assert "at byte" in problem.detail


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_a_number_that_is_not_finite_is_named_by_its_column(number: str) -> None:
    for body in (
        f'{{"rows": [{{"a": 1, "delay": {number}}}]}}',
        f'{{"columns": {{"a": [1], "delay": [{number}]}}}}',
    ):
        problem = refused(body.encode())
        assert (problem.status, list(problem.fields)) == (422, ["delay"])
        assert "null for a missing value" in problem.detail


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"3",
        b"null",
        b"{}",
        b'{"rows": null}',
        b'{"rows": []}',
        b'{"rows": {}}',
        b'{"rows": [1]}',
        b'{"rows": [[1]]}',
        b'{"rows": [{"a": 1}], "more": 1}',
        b'{"columns": {}}',
        b'{"columns": []}',
        b'{"columns": {"a": []}}',
        b'{"columns": {"a": 1}}',
        b'{"columns": {"a": [1], "b": [1, 2]}}',
    ],
)
def test_another_shape_is_422_and_says_the_right_one(body: bytes) -> None:
    problem = refused(body)
    assert (problem.status, problem.kind) == (422, "schema")
    assert problem.detail


def test_too_many_rows_are_413_in_both_shapes() -> None:
    for body in ({"rows": [{"a": 1}] * 11}, {"columns": {"a": [1] * 11}}):
        assert refused(orjson.dumps(body)).status == 413
    assert len(rows_of(orjson.dumps({"rows": [{"a": 1}] * 10}), 10)) == 10


def test_of_two_equal_keys_the_last_counts() -> None:
    assert rows_of(b'{"rows": [{"a": 1, "a": 2}]}', 10) == [{"a": 2}]


def test_a_problem_document_is_short_whatever_the_client_called_its_fields() -> None:
    problem = refused(b'{"columns": {"' + b"x" * 100_000 + b'": 1}}')
    document = problem.document("id-1")
    assert len(document) < 1000
    assert orjson.loads(document)["request_id"] == "id-1"
