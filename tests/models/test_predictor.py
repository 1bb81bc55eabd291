from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mlray.errors import BundleError, InputError
from mlray.models.bundle import load_bundle
from mlray.models.predictor import Predictor
from tests.models.conftest import Made, make_bundle, mixed_table


@pytest.fixture(scope="module")
def predictor(made: Made) -> Predictor:
    return Predictor(load_bundle(made.folder))


def records_of(table: pa.Table, predictor: Predictor) -> list[dict[str, object]]:
    """Rows as a JSON request would hold them: times as text."""
    rows = table.select(predictor.schema.names).to_pylist()
    return [
        {k: v.isoformat() if hasattr(v, "isoformat") else v for k, v in row.items()} for row in rows
    ]


def test_golden_rows_give_the_stored_scores_to_the_bit(predictor: Predictor) -> None:
    predictor.verify_golden()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 1000])
def test_rows_score_the_same_bits_in_batches_of_any_size(predictor: Predictor, size: int) -> None:
    table = mixed_table(1000, seed=5)
    whole = predictor.predict(table).scores
    parts = [predictor.predict(table.slice(i, size)).scores for i in range(0, 1000, size)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_records_columns_and_tables_encode_and_score_the_same_bits(predictor: Predictor) -> None:
    table = mixed_table(300, seed=6)
    records = records_of(table, predictor)
    columns = {name: [row[name] for row in records] for name in predictor.schema.names}
    wanted = predictor.predict(table)
    for found in (
        predictor.predict_records(records),
        predictor.predict_columns(columns),
        predictor.predict(predictor.from_records(records)),
        predictor.predict(predictor.from_columns(columns)),
    ):
        assert found.numeric.tobytes() == wanted.numeric.tobytes()
        assert found.category.tobytes() == wanted.category.tobytes()
        assert found.scores.tobytes() == wanted.scores.tobytes()
        assert found.labels == wanted.labels


def test_the_model_has_learnt(predictor: Predictor) -> None:
    table = mixed_table(2000, seed=7)
    found = predictor.predict(table)
    assert np.mean(np.array(found.labels) == table["late"].to_numpy(zero_copy_only=False)) > 0.75


def test_no_rows_give_no_predictions(predictor: Predictor) -> None:
    assert len(predictor.predict_records([])) == 0
    assert len(predictor.predict(mixed_table(10).slice(0, 0))) == 0


def test_a_missing_column_is_named(predictor: Predictor) -> None:
    record = records_of(mixed_table(1), predictor)[0]
    del record["seats"]
    with pytest.raises(InputError, match="seats"):
        predictor.from_records([record])
    with pytest.raises(InputError, match="seats"):
        predictor.predict(mixed_table(3).drop_columns(["seats"]))


def test_a_column_that_is_not_known_is_named(predictor: Predictor) -> None:
    record = records_of(mixed_table(1), predictor)[0] | {"colour": "secret"}
    with pytest.raises(InputError, match="colour") as caught:
        predictor.from_records([record])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "needed"),
    [
        ("x", "4711-secret", "a finite number is needed, text given"),
        ("x", float("nan"), "NaN or infinity"),
        ("x", float("inf"), "NaN or infinity"),
        ("x", 10**400, "out of range"),
        ("x", True, "a boolean given"),
        ("seats", 4711.5, "a fraction given"),
        ("seats", 2**63, "out of the range of int64"),
        ("seats", 1e300, "out of the range"),
        ("jet", 1, "true or false"),
        ("carrier", 4711, "text is needed"),
        ("carrier", {"a": 4711}, "an object given"),
        ("decided_at", "4711-secret", "ISO 8601"),
        ("decided_at", "2013-01-01T00:00:00+02:00", "ISO 8601"),
        ("decided_at", 4711, "a number given"),
    ],
)
def test_a_wrong_value_is_refused_by_its_column_and_never_repeated(
    predictor: Predictor, column: str, value: object, needed: str
) -> None:
    record = records_of(mixed_table(1), predictor)[0] | {column: value}
    with pytest.raises(InputError) as caught:
        predictor.predict_records([record])
    assert needed in str(caught.value)
    assert column in str(caught.value)
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize("rows", [{"x": 1}, "rows", [1], [None], None, 3])
def test_rows_that_are_no_list_of_objects_are_refused(predictor: Predictor, rows: object) -> None:
    with pytest.raises(InputError):
        predictor.predict_records(rows)  # type: ignore[arg-type]


def test_columns_of_unequal_length_are_refused(predictor: Predictor) -> None:
    columns = {name: [None] for name in predictor.schema.names} | {"x": [1.0, 2.0]}
    with pytest.raises(InputError, match="equally long"):
        predictor.from_columns(columns)


def test_nulls_are_missing_values(predictor: Predictor) -> None:
    found = predictor.predict_records([dict.fromkeys(predictor.schema.names)])
    assert np.isnan(found.numeric).all()
    assert (found.category == 0).all()
    assert np.isfinite(found.scores).all()


def test_a_multiclass_model_gives_a_probability_per_class(tmp_path: Path) -> None:
    predictor = Predictor(load_bundle(make_bundle(tmp_path / "b", "size").folder))
    found = predictor.predict(mixed_table(50, seed=8))
    assert found.scores.shape == (50, 3)
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, atol=1e-6)
    assert predictor.classes == ("large", "middle", "small")
    assert set(found.labels) <= {"large", "middle", "small"}
    predictor.verify_golden()


def test_a_regression_answers_in_the_targets_units(tmp_path: Path) -> None:
    predictor = Predictor(load_bundle(make_bundle(tmp_path / "b", "minutes").folder))
    table = mixed_table(500, seed=8)
    wanted = table["minutes"].to_numpy()
    found = predictor.predict(table)
    assert np.mean((found.scores - wanted) ** 2) < 0.3 * np.var(wanted)
    assert found.labels == [float(s) for s in found.scores]


TRANSFORM = """
import pyarrow as pa, pyarrow.compute as pc

def prepare(table: pa.Table) -> pa.Table:
    twice = pc.multiply(table["x"], {factor})
    names = ["x"] + (["note"] if "note" in table.column_names else [])
    return table.append_column("twice", twice).drop_columns(names)
"""


def test_the_transform_runs_on_requests_and_only_what_it_needs_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "twofold.py").write_text(TRANSFORM.format(factor=2.0))
    made = make_bundle(tmp_path / "b", "late", transform="twofold:prepare", project=str(tmp_path))
    predictor = Predictor(load_bundle(made.folder), str(tmp_path))
    assert predictor.schema.names == ["x", "zeros", "seats", "jet", "carrier", "decided_at"]
    assert "twice" in predictor.encoder.schema.names
    table = mixed_table(20, seed=9)
    by_record = predictor.predict_records(records_of(table, predictor))
    assert by_record.scores.tobytes() == predictor.predict(table).scores.tobytes()


def test_a_bundle_whose_transform_changed_is_refused(tmp_path: Path) -> None:
    import sys

    (tmp_path / "changing.py").write_text(TRANSFORM.format(factor=3.0))
    made = make_bundle(tmp_path / "b", "late", transform="changing:prepare", project=str(tmp_path))
    (tmp_path / "changing.py").write_text(TRANSFORM.format(factor=30.0) + "\n# other\n")
    del sys.modules["changing"]
    with pytest.raises(BundleError, match="not the code"):
        Predictor(load_bundle(made.folder), str(tmp_path))
    sys.modules.pop("changing", None)
    (tmp_path / "changing.py").unlink()
    with pytest.raises(BundleError, match="not here"):
        Predictor(load_bundle(made.folder), str(tmp_path))


def test_a_single_row_is_answered_fast(predictor: Predictor) -> None:
    record = records_of(mixed_table(1), predictor)
    best = float("inf")
    for _ in range(30):
        started = time.process_time()
        for _ in range(20):
            predictor.predict_records(record)
        best = min(best, (time.process_time() - started) / 20)
    assert best < 500e-6, f"{best * 1e6:.0f} us a row"


SHAPING = {
    "rename": {"seats": "places"},
    "cast": {"places": "float64"},
    "derive": {
        "per_place": "zeros / places",
        "route": '"to " + carrier',
        "high": "x > 55",
        "label": "not late",
    },
    "select": ["x", "per_place", "route", "high", "decided_at", "label"],
}


@pytest.fixture(scope="module")
def stepwise(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    made = make_bundle(tmp_path_factory.mktemp("steps") / "b", "label", shaping=SHAPING)
    return Predictor(load_bundle(made.folder))


def test_declared_steps_run_on_requests_without_the_projects_code(stepwise: Predictor) -> None:
    """The target is made by a step too, whose column a request lacks."""
    assert stepwise.schema.names == ["x", "zeros", "seats", "carrier", "decided_at"]
    assert {"per_place", "route", "high"} <= set(stepwise.encoder.schema.names)
    table = mixed_table(40, seed=9)
    whole = stepwise.predict(table).scores.tobytes()
    records = records_of(table, stepwise)
    columns = {name: [record[name] for record in records] for name in stepwise.schema.names}
    assert stepwise.predict_records(records).scores.tobytes() == whole
    assert stepwise.predict_columns(columns).scores.tobytes() == whole
    alone = [stepwise.predict_records([record]).scores for record in records]
    assert np.concatenate(alone).tobytes() == whole


def test_steps_that_were_tampered_with_are_no_bundle(
    stepwise: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = stepwise.bundle
    monkeypatch.setitem(bundle.manifest.steps, "derive", {"per_place": "__import__('os')"})
    with pytest.raises(BundleError, match="steps are not what they should be"):
        Predictor(bundle)


def test_a_request_that_a_step_cannot_take_is_refused_without_its_values(tmp_path: Path) -> None:
    shaping = {
        "derive": {"text": "str(seats)", "carrier": "carrier"},
        "cast": {"carrier": "string"},
    }
    made = make_bundle(tmp_path / "b", "late", shaping=shaping)
    predictor = Predictor(load_bundle(made.folder))
    predictor._steps = predictor._steps._only(cast={"carrier": "int64"})
    with pytest.raises(InputError) as caught:
        predictor.predict(mixed_table(5))
    assert "sources.cast.carrier: a value does not convert" in str(caught.value)
    assert not any(f"'{name}'" in str(caught.value) for name in ("AA", "B6", "UA", "WN"))
