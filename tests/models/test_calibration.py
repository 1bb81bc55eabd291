from __future__ import annotations

import numpy as np
import pytest

from mlray.models.calibration import Calibration, calibrate, platt, temperature


def test_platt_finds_the_true_line() -> None:
    random = np.random.default_rng(0)
    z = random.normal(size=200_000)
    y = random.random(len(z)) < 1 / (1 + np.exp(-(0.5 * z - 1)))
    found = platt(z, y.astype(np.int64))
    assert found.slope == pytest.approx(0.5, abs=0.02)
    assert found.shift == pytest.approx(-1, abs=0.02)


def test_platt_of_a_perfect_split_stays_finite() -> None:
    z = np.repeat([-5.0, 5.0], 100)
    found = platt(z, (z > 0).astype(np.int64))
    assert np.isfinite([found.slope, found.shift]).all()
    assert found.slope > 0


def test_scores_that_fall_with_the_label_are_not_turned_round() -> None:
    z = np.linspace(-3, 3, 400)
    found = calibrate("binary", z[:, None], (z < 0).astype(np.int64))
    assert (found.slope, found.shift) == (1.0, 0.0)


def test_temperature_finds_the_true_one() -> None:
    random = np.random.default_rng(0)
    z = random.normal(size=(100_000, 3)) * 2
    p = np.exp(z / 2.5)
    p /= p.sum(axis=1, keepdims=True)
    y = (random.random((len(z), 1)) > p.cumsum(axis=1)).sum(axis=1)
    assert 1 / temperature(z, y).slope == pytest.approx(2.5, rel=0.03)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((10, 1)), np.arange(10) % 2),
        (np.zeros((100, 1)), np.zeros(100)),
        (np.full((100, 1), np.nan), np.arange(100) % 2),
        (np.zeros((0, 1)), np.zeros(0)),
    ],
)
def test_rows_that_cannot_tell_leave_scores_alone(logits: object, labels: object) -> None:
    found = calibrate("binary", logits, labels)  # type: ignore[arg-type]
    assert (found.slope, found.shift) == (1.0, 0.0)
    assert "too few" in found.reason


def test_a_calibration_is_the_same_after_json() -> None:
    found = Calibration(0.5, -1.0, "Platt")
    assert Calibration.from_dict(found.to_dict()) == found
