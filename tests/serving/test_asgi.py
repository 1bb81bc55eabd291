"""The HTTP API over a real socket, with a real bundle: what is answered, what is refused."""

from __future__ import annotations

import json
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from mlray.serving.asgi import Api, Limits, Refused
from mlray.serving.listener import Listener
from mlray.serving.served import Served

PREDICT = "/v1/models/flights/predict"
SECRET = "s3cr3t-value-that-must-not-come-back"


@pytest.fixture(scope="module")
def api(flights: Served) -> Api:
    api = Api("flights", Limits(body_bytes=1 << 20, rows=2000))
    api.swap(flights)
    return api


@pytest.fixture(scope="module")
def client(api: Api, module_port: int) -> Iterator[httpx.Client]:
    listener = Listener(api, "127.0.0.1", module_port)
    listener.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{module_port}", timeout=10) as client:
        yield client
    listener.stop()


@pytest.fixture
def row(flights: Served) -> dict[str, Any]:
    return flights.example()


def post(client: httpx.Client, body: bytes | str, kind: str = "application/json") -> httpx.Response:
    return client.post(PREDICT, content=body, headers={"content-type": kind})


def problem(answer: httpx.Response, status: int, *fields: str) -> dict[str, Any]:
    """The problem document of an answer, which must be a whole one and hold nothing secret."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "request_id"} <= document.keys()
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]
    assert SECRET not in answer.text
    assert "Traceback" not in answer.text
    for field in fields:
        assert field in answer.text
    return document


def test_a_row_is_answered_with_score_label_model_and_version(
    client: httpx.Client, row: dict[str, Any]
) -> None:
    answer = client.post("/predict", json={"rows": [row]})
    assert answer.status_code == 200
    document = answer.json()
    assert (document["model"], document["version"]) == ("flights", "1")
    (prediction,) = document["predictions"]
    assert 0 <= prediction["score"] <= 1
    assert prediction["label"] in ("no", "yes")
    assert re.fullmatch(r"[0-9a-f]+-[0-9a-f]+", answer.headers["x-request-id"])


def test_the_served_scores_are_the_predictors_to_the_bit(
    client: httpx.Client, flights: Served
) -> None:
    table, golden = flights.bundle.golden
    rows = flights.rows_to_send(table)
    for body in ({"rows": rows}, {"columns": {n: [r[n] for r in rows] for n in rows[0]}}):
        answer = client.post(PREDICT, json=body).json()
        scores = np.array([p["score"] for p in answer["predictions"]])
        assert scores.astype(np.float32).tobytes() == np.asarray(golden, np.float32).tobytes()
        assert scores.tolist() == np.asarray(golden, np.float32).astype(float).tolist()


def test_many_clients_at_once_get_their_own_rows(client: httpx.Client, flights: Served) -> None:
    table, golden = flights.bundle.golden
    rows, scores = flights.rows_to_send(table), golden.to_pylist()

    def ask(i: int) -> bool:
        n = i % len(rows)
        answer = client.post(PREDICT, json={"rows": [rows[n], rows[0]]}).json()
        return [p["score"] for p in answer["predictions"]] == [scores[n], scores[0]]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(300)))


def test_a_bad_row_among_good_requests_spoils_only_its_own(
    client: httpx.Client, row: dict[str, Any]
) -> None:
    bodies = [
        json.dumps({"rows": [row if i % 5 else {**row, "delay": "late"}]}) for i in range(200)
    ]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda body: post(client, body).status_code, bodies))
    assert answers == [200 if i % 5 else 422 for i in range(200)]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_refused_by_name(
    client: httpx.Client, row: dict[str, Any], number: str
) -> None:
    body = json.dumps({"rows": [{**row, "delay": "@"}]}).replace('"@"', number)
    problem(post(client, body), 422, "delay")


def test_a_missing_column_is_named(client: httpx.Client, row: dict[str, Any]) -> None:
    del row["carrier"]
    problem(client.post(PREDICT, json={"rows": [row]}), 422, "carrier")


def test_an_extra_column_is_named(client: httpx.Client, row: dict[str, Any]) -> None:
    problem(client.post(PREDICT, json={"rows": [{**row, "colour": SECRET}]}), 422, "colour")


def test_a_text_for_a_number_is_named(client: httpx.Client, row: dict[str, Any]) -> None:
    problem(client.post(PREDICT, json={"rows": [{**row, "delay": SECRET}]}), 422, "delay")


@pytest.mark.parametrize("value", [[1], {"a": 1}, True])
def test_another_type_for_a_number_is_named(
    client: httpx.Client, row: dict[str, Any], value: object
) -> None:
    problem(client.post(PREDICT, json={"rows": [{**row, "delay": value}]}), 422, "delay")


def test_a_number_for_a_text_is_named(client: httpx.Client, row: dict[str, Any]) -> None:
    problem(client.post(PREDICT, json={"rows": [{**row, "carrier": 7}]}), 422, "carrier")


@pytest.mark.parametrize("whole", [2**63, 10**30, -(2**64), 1.5])
def test_a_whole_number_that_does_not_fit_is_named(
    client: httpx.Client, row: dict[str, Any], whole: float
) -> None:
    problem(client.post(PREDICT, json={"rows": [{**row, "distance": whole}]}), 422, "distance")


def test_a_text_that_is_no_time_is_named(client: httpx.Client, row: dict[str, Any]) -> None:
    problem(client.post(PREDICT, json={"rows": [{**row, "decided_at": SECRET}]}), 422, "decided_at")


@pytest.mark.parametrize(
    "change",
    [
        {"carrier": "never seen \u2028 \U0001f680"},
        {"carrier": ""},
        {"delay": 1e308},
        {"delay": -1e308},
        {"delay": 5e-324},
        {"distance": 2**63 - 1},
        dict.fromkeys(("carrier", "delay", "distance", "decided_at")),
    ],
)
def test_odd_but_honest_values_are_answered(
    client: httpx.Client, row: dict[str, Any], change: dict[str, Any]
) -> None:
    answer = client.post(PREDICT, json={"rows": [{**row, **change}]})
    assert answer.status_code == 200, answer.text
    assert math.isfinite(answer.json()["predictions"][0]["score"])


def test_of_two_equal_keys_the_last_counts(client: httpx.Client, row: dict[str, Any]) -> None:
    once = json.dumps({"rows": [row]})
    twice = once.replace('"carrier":', '"carrier": "ZZ", "carrier":')
    assert post(client, twice).json() == post(client, once).json()


@pytest.mark.parametrize("body", [b"", b"{", b'{"rows": [{"delay": 1', b"\xff\xfe", b"[" * 9000])
def test_broken_json_is_400(client: httpx.Client, body: bytes) -> None:
    problem(post(client, body), 400)


def test_no_rows_is_422(client: httpx.Client) -> None:
    problem(client.post(PREDICT, json={"rows": []}), 422, "at least one row")


def test_too_many_rows_are_413(client: httpx.Client, row: dict[str, Any]) -> None:
    few = {name: row[name] for name in row}
    body = {"columns": {name: [value] * 2001 for name, value in few.items()}}
    problem(client.post(PREDICT, json=body), 413, "2000 rows")


@pytest.mark.parametrize("megabytes", [2, 20, 100])
def test_a_large_body_is_413_within_a_second(client: httpx.Client, megabytes: int) -> None:
    started = time.monotonic()
    answer = post(client, b"x" * (megabytes << 20))
    problem(answer, 413, str(1 << 20))
    assert time.monotonic() - started < 1.5


def test_a_large_body_of_undeclared_size_is_413(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 100_000

    answer = client.post(PREDICT, content=chunks(), headers={"content-type": "application/json"})
    problem(answer, 413)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/csv"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_another_content_type_is_415(client: httpx.Client, headers: dict[str, str]) -> None:
    problem(client.post(PREDICT, content=b"{}", headers=headers), 415, "application/json")


def test_a_content_type_with_utf8_is_fine(client: httpx.Client, row: dict[str, Any]) -> None:
    body = json.dumps({"rows": [row]})
    assert post(client, body, "application/json; charset=UTF-8").status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/v1/models/other/predict", "/predict/"])
def test_another_path_is_404(client: httpx.Client, path: str) -> None:
    problem(client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/predict", "POST"), ("DELETE", PREDICT, "POST"), ("POST", "/docs", "GET, HEAD")],
)
def test_another_method_is_405_and_says_which(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    problem(answer, 405)
    assert answer.headers["allow"] == allowed


def test_a_plain_request_id_comes_back_and_any_other_is_replaced(client: httpx.Client) -> None:
    def given(text: str) -> str:
        return client.get("/health/live", headers={"x-request-id": text}).headers["x-request-id"]

    assert given("trace-7.a_B") == "trace-7.a_B"
    assert given("<script>") != "<script>"
    assert given("x" * 65) != "x" * 65


def test_health_root_openapi_and_docs(client: httpx.Client, row: dict[str, Any]) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json()["version"] == "1"
    assert client.head("/health/ready").status_code == 200
    assert client.get("/").json()["predict"] == PREDICT
    document = client.get("/openapi.json").json()
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert client.post("/predict", json=example["application/json"]["example"]).status_code == 200
    docs = client.get("/docs")
    assert docs.headers["content-type"].startswith("text/html")
    assert "http://" not in docs.text
    assert "https://" not in docs.text
    assert all(name in docs.text for name in row)


def test_without_a_model_it_lives_but_is_not_ready(free_port: int) -> None:
    listener = Listener(Api("flights"), "127.0.0.1", free_port)
    listener.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{free_port}") as client:
        assert client.get("/health/live").status_code == 200
        problem(client.get("/health/ready"), 503)
        answer = client.post("/predict", json={"rows": [{}]})
        problem(answer, 503)
        assert answer.headers["retry-after"] == "1"
    listener.stop()


def test_a_refused_version_shows_in_ready(api: Api, client: httpx.Client) -> None:
    api.refused = Refused("3", "model.onnx is not the file that was written")
    document = client.get("/health/ready").json()
    api.refused = None
    assert document["version"] == "1"
    assert document["refused"]["version"] == "3"


def test_a_score_that_is_not_finite_is_500_without_details(
    api: Api, client: httpx.Client, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = api.served
    assert served is not None
    predict = served.predict

    def broken(rows: list[dict[str, Any]]) -> Any:
        predictions = predict(rows)
        predictions.scores[:] = np.nan
        return predictions

    monkeypatch.setattr(served, "predict", broken)
    problem(client.post(PREDICT, json={"rows": [row]}), 500)


def test_a_failure_inside_is_500_and_the_log_has_no_values(
    api: Api,
    client: httpx.Client,
    row: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(rows: list[dict[str, Any]]) -> Any:
        raise RuntimeError(f"cannot work with {rows}")

    monkeypatch.setattr(api.served, "predict", broken)
    with caplog.at_level(logging.ERROR):
        answer = client.post(PREDICT, json={"rows": [{**row, "carrier": SECRET}]})
    document = problem(answer, 500)
    assert document["request_id"] in caplog.text
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text


def test_rows_are_counted_once_after_their_answer(
    api: Api, client: httpx.Client, row: dict[str, Any]
) -> None:
    counted: list[int] = []
    assert api.served is not None
    api.served.count = lambda predictions: counted.append(len(predictions))
    for rows in (1, 3, 700):  # 700 are computed beside the event loop
        assert client.post(PREDICT, json={"rows": [row] * rows}).status_code == 200
    assert client.post(PREDICT, json={"rows": [{}]}).status_code == 422
    until = time.monotonic() + 2
    while len(counted) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    api.served.count = None
    assert counted == [1, 3, 700]


def test_counting_that_fails_costs_no_answer(
    api: Api, client: httpx.Client, row: dict[str, Any]
) -> None:
    def broken(predictions: Any) -> None:
        raise ValueError("no bins")

    assert api.served is not None
    api.served.count = broken
    answers = [client.post(PREDICT, json={"rows": [row]}).status_code for _ in range(3)]
    api.served.count = None
    assert answers == [200] * 3


def test_answered_requests_are_tallied_by_version_and_status(
    api: Api, client: httpx.Client, row: dict[str, Any]
) -> None:
    api.tally.take()
    client.post(PREDICT, json={"rows": [row]})
    client.get("/nothing")
    taken = api.tally.take()
    assert taken.requests == {("1", 200): 1, ("1", 404): 1}
    assert taken.seconds > 0
    assert not api.tally.requests


def test_two_requests_in_one_packet_get_two_answers(
    client: httpx.Client, row: dict[str, Any]
) -> None:
    body = json.dumps({"rows": [row]}).encode()
    request = (
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    ) + body
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as connection:
        connection.sendall(request * 2)
        connection.settimeout(3)
        received = b""
        while received.count(b'"predictions"') < 2:
            received += connection.recv(65536)
    assert received.count(b"HTTP/1.1 200") == 2


def test_swapping_under_load_loses_no_request(
    api: Api, client: httpx.Client, flights: Served, row: dict[str, Any]
) -> None:
    other = Served("flights", "2", flights.predictor)
    stopping, statuses, versions = threading.Event(), set(), set()

    def ask() -> None:
        while not stopping.is_set():
            answer = client.post(PREDICT, json={"rows": [row]})
            statuses.add(answer.status_code)
            versions.add(answer.json()["version"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for served in (other, flights) * 10:
        api.swap(served)
        time.sleep(0.02)
    stopping.set()
    for thread in threads:
        thread.join()
    assert (statuses, versions) == ({200}, {"1", "2"})


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_answer_in_their_own_words(
    task: str, other_tasks: dict[str, Served], free_port: int
) -> None:
    served = other_tasks[task]
    api = Api("other")
    api.swap(served)
    listener = Listener(api, "127.0.0.1", free_port)
    listener.start()
    url = f"http://127.0.0.1:{free_port}"
    rows = {"rows": [served.example()] * 2}
    prediction = httpx.post(f"{url}/predict", json=rows).json()["predictions"][1]
    schema = httpx.get(f"{url}/openapi.json").json()["components"]["schemas"]["Prediction"]
    listener.stop()
    assert set(prediction) == set(schema["required"])
    if task == "regression":
        assert isinstance(prediction["value"], float)
        return
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert prediction["label"] in served.classes
    assert prediction["score"] == prediction["probabilities"][str(prediction["label"])]


def test_the_schema_in_openapi_names_each_column_and_its_type(flights: Served) -> None:
    from mlray.serving import openapi

    row = openapi.document(flights)["components"]["schemas"]["Row"]
    assert row["required"] == flights.predictor.schema.names
    assert row["properties"]["delay"] == {"type": ["number", "null"]}
    assert row["properties"]["distance"] == {"type": ["integer", "null"]}
    assert row["properties"]["carrier"] == {"type": ["string", "null"]}
    assert row["properties"]["decided_at"]["format"] == "date-time"
    assert flights.predictor.schema.field("decided_at").type == pa.timestamp("us", "UTC")
