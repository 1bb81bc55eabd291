from __future__ import annotations

import numpy as np
import pytest

from mlray.monitoring.series import exported
from mlray.stats.bins import FeatureBins, Reference


def wide(features: int, bins: int = 20) -> list[FeatureBins]:
    labels = (*(f"from {i}" for i in range(bins)), "missing", "nonfinite")
    edges = tuple(float(i) for i in range(1, bins))
    made = [FeatureBins(f"f{i}", "numeric", edges, labels) for i in range(features)]
    return [*made, FeatureBins("score", "score", edges, labels)]


def number(features: list[FeatureBins], limit: int) -> int:
    """Series of rows and of shares, of bins and cumulated, and the rows of the reference."""
    return sum(2 * (len(s.bins) + s.ordered) + 1 for s in exported(features, limit=limit)) + 2


@pytest.mark.parametrize("features", [1, 30, 3000])
@pytest.mark.parametrize("limit", [300, 6000])
def test_the_number_of_series_is_bounded(features: int, limit: int) -> None:
    assert number(wide(features), limit) <= limit
    assert exported(wide(features), limit=limit)[-1].feature == "score"


def test_the_stated_formula_holds() -> None:
    assert number(wide(29), 6000) == 30 * (4 * 20 + 5) + 2


def test_coarser_bins_hold_the_same_rows_in_order(reference: Reference) -> None:
    fine, coarse = exported(reference.features), exported(reference.features, limit=130)
    for one, other in zip(fine, coarse, strict=True):
        counts = reference.counts[one.place]
        assert one.rows(counts).sum() == other.rows(counts).sum() == reference.rows
        assert list(other.bins) == sorted(other.bins[:-2]) + list(other.bins[-2:])
        assert one.rows(counts)[-2:].tolist() == other.rows(counts)[-2:].tolist()
    assert len(coarse[0].bins) < len(fine[0].bins)
    assert coarse[0].values[0] == "delay 0 to delay 2"


def test_important_features_stay_longest() -> None:
    kept = [s.feature for s in exported(wide(100), limit=200, important=["f77", "f3"])]
    assert {"f3", "f77", "score"} <= set(kept)
    assert len(kept) < 101


def test_an_input_that_is_called_like_the_prediction_is_told_apart() -> None:
    features = [FeatureBins("score", "numeric", (0.5,), ("a", "b", "missing", "nonfinite"))]
    features += [FeatureBins("score", "score", (0.5,), ("a", "b", "missing", "nonfinite"))]
    assert [s.feature for s in exported(features)] == ["score (input)", "score"]


def test_labels_are_ascii_and_stay_different() -> None:
    names = ("größe", "grüße", "x" * 99)
    features = [FeatureBins(n, "category", (), ("missing", "unseen", *names)) for n in names]
    series = exported([*features, *wide(0)])
    assert len({s.feature for s in series}) == 4
    assert len(set(series[0].values)) == 5
    assert all(text.isascii() for s in series for text in (s.feature, *s.values))


def test_rare_categories_share_the_last_bin() -> None:
    labels = ("missing", "unseen", *(f"v{i}" for i in range(300)))
    category = FeatureBins("airport", "category", (), labels)
    one = exported([category, *wide(0)], limit=100)[0]
    rows = one.rows(np.arange(302))
    assert rows.sum() == np.arange(302).sum()
    assert (one.bins[-2:], one.ordered) == (("missing", "unseen"), 0)
    assert rows[-2:].tolist() == [0, 1]
    assert one.values[:2] == ("v0", "v1")
    assert one.values[-3] == "other values"
