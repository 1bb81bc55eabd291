"""Requests carry raw values; the predictor protects them as the pipeline protected the rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlray.errors import BundleError
from mlray.models.bundle import Bundle, load_bundle
from mlray.models.predictor import Predictor
from mlray.sources.personal import Keys, Protection
from tests.models.conftest import make_bundle, mixed_table

KEYS = Keys.of("a secret that is long enough to be one")
OTHER = Keys.of("another secret that is long enough too")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    actions = {"carrier": "hash", "seats": "token", "jet": "drop"}
    folder = tmp_path_factory.mktemp("protected") / "bundle"
    return load_bundle(make_bundle(folder, "late", protection=Protection(actions, KEYS)).folder)


def test_raw_and_protected_requests_score_alike(bundle: Bundle) -> None:
    predictor = Predictor(bundle, keys=KEYS)
    predictor.verify_golden()
    raw = mixed_table(50).drop_columns(["late", "size", "minutes"])
    hidden = predictor.protected(raw)
    assert "jet" not in hidden.column_names
    assert hidden["carrier"].to_pylist()[0] == KEYS.hashed(raw["carrier"][0].as_py())
    scores = predictor.predict(raw).scores
    assert predictor.predict(hidden).scores.tobytes() == scores.tobytes()
    assert len(set(scores.tolist())) > 10
    records = raw.select(predictor.schema.names).to_pylist()
    for record in records:
        record["decided_at"] = record["decided_at"].isoformat()
        if "seats" in record:
            record["seats"] = str(record["seats"])
        record["x"] = None if record["x"] != record["x"] else record["x"]
    assert predictor.predict_records(records).scores.tobytes() == scores.tobytes()
    columns = {name: [record[name] for record in records] for name in predictor.schema.names}
    assert predictor.predict_columns(columns).scores.tobytes() == scores.tobytes()


def test_a_carrier_matters_only_through_its_hash(bundle: Bundle) -> None:
    predictor = Predictor(bundle, keys=KEYS)
    golden, _ = bundle.golden
    one = golden.slice(0, 1)
    row = dict(one.to_pylist()[0])
    row["decided_at"] = row["decided_at"].isoformat()

    def score(carrier: str) -> float:
        return float(predictor.predict_records([{**row, "carrier": carrier}]).scores[0])

    assert score("B6") == score(KEYS.hashed("B6")) != score("nobody")
    assert score(OTHER.hashed("B6")) == score("nobody")


def test_another_key_and_no_key_are_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="another key of personal data") as caught:
        Predictor(bundle, keys=OTHER)
    assert KEYS.id in str(caught.value)
    assert OTHER.id in str(caught.value)
    with pytest.raises(BundleError, match=r"no key is here.*carrier"):
        Predictor(bundle)


def test_a_bundle_holds_the_keys_name_and_nothing_else_of_it(bundle: Bundle) -> None:
    assert bundle.manifest.pii_key_id == KEYS.id
    secrets = (KEYS.hash, KEYS.seal, KEYS.token)
    for data in bundle.files.values():
        for secret in secrets:
            assert secret not in data
            assert secret.hex().encode() not in data


def test_a_bundle_without_personal_data_takes_any_key(made: Any) -> None:
    check: Callable[[], None] = Predictor(load_bundle(made.folder), keys=KEYS).verify_golden
    check()
    assert Path(made.folder).is_dir()
