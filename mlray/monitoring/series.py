"""Which Prometheus series a reference becomes: names, labels, and a bound on their number.

    ray_mlray_feature_rows_total{model,version,feature,bin}      rows in a bin
    ray_mlray_feature_rows_le_total{model,version,feature,bin}   rows in this or a lower bin
    ray_mlray_reference_share{model,version,feature,bin,values}  `stats.drift.shares` of training
    ray_mlray_reference_share_le{model,version,feature,bin}      same, this or a lower bin
    ray_mlray_reference_rows{model,version,feature}              rows of the reference
    ray_mlray_predictions_total{model,version}                   served rows

The cumulative families exist for features whose bins have an order, and hold finite values only:
the largest difference of two cumulative shares is the KS distance, and PromQL cannot add up along
a label by itself. `bin` is 00, 01, ... from low to high, or by frequency for categories, then
"missing", "nonfinite", "unseen"; `values` says in human units what a bin holds.

Number of series of one version on one replica: a feature has 2 (slots + ordered bins) + 1, which is
4 B + 5 for a numeric one of B bins, and two belong to none. Up to `limit` are exported. Beyond it
neighbouring bins are merged, down to 5 a feature, then features are left out, the least important
first; the window files always hold everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlray.stats.bins import MISSING, NONFINITE, OTHER, UNSEEN, FeatureBins

SERIES = 6000
"""Series that one version may have on one replica: 70 numeric features of 20 bins."""
LEAST_BINS = 5
_TEXT = 40  # characters of a category's name in a label


@dataclass(frozen=True)
class Series:
    """The exported bins of one feature: slot i of its counts belongs to bin `group[i]`."""

    place: int
    feature: str
    bins: tuple[str, ...]
    values: tuple[str, ...]
    group: NDArray[np.intp]
    ordered: int
    """The first so many bins have an order; 0 for categories."""

    def rows(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows per exported bin."""
        return np.bincount(self.group, counts, len(self.bins)).astype(np.int64)


def exported(
    features: Sequence[FeatureBins], *, limit: int = SERIES, important: Sequence[str] = ()
) -> tuple[Series, ...]:
    """The series of a reference's features, at most `limit` in number, the prediction always.

    Features named in `important` stay longest when not all fit.
    """
    coarser = (256, 128, 64, 32, 20, 16, 10, 8, LEAST_BINS)
    fits = (m for m in coarser if 2 + sum(_number(f, m) for f in features) <= limit)
    most = next(fits, LEAST_BINS)
    rank = {name: i for i, name in enumerate(important)}
    *inputs, prediction = range(len(features))
    order = [prediction, *sorted(inputs, key=lambda i: rank.get(features[i].name, len(rank)))]
    taken = 2 + np.cumsum([_number(features[i], most) for i in order])
    kept = order[: max(1, int(np.sum(taken <= limit)))]
    names = _labels(features)
    return tuple(_series(i, names[i], features[i], most) for i in sorted(kept))


def _number(feature: FeatureBins, most: int) -> int:
    """Series of a feature with at most `most` bins, see the formula above."""
    bins = min(len(feature.labels) - 2, most)
    ordered = 0 if feature.kind == "category" else bins
    return 2 * (bins + 2 + ordered) + 1


def _labels(features: Sequence[FeatureBins]) -> list[str]:
    """Names of features; an input that is called like the prediction leaves it the name."""
    *inputs, prediction = (_ascii(f.name) for f in features)
    return [f"{name} (input)" if name == prediction else name for name in inputs] + [prediction]


def _series(place: int, name: str, feature: FeatureBins, most: int) -> Series:
    """The series of one feature with at most `most` bins beside the special ones."""
    category = feature.kind == "category"
    slots = len(feature.labels)
    plain = np.arange(2, slots) if category else np.arange(slots - 2)
    bins = min(len(plain), most)
    # Categories are in the order of frequency: the rare ones share the last bin.
    merged = np.minimum(np.arange(len(plain)), bins - 1)
    if not category:
        merged = np.arange(len(plain)) * bins // len(plain)
    group = np.empty(slots, np.intp)
    group[plain] = merged
    group[np.setdiff1d(np.arange(slots), plain)] = (bins, bins + 1)
    width = max(2, len(str(bins - 1)))
    labels = [f"{i:0{width}d}" for i in range(bins)]
    labels += [MISSING, UNSEEN if category else NONFINITE]
    members = [np.flatnonzero(group == i) for i in range(bins + 2)]
    values = [_text([feature.labels[j] for j in member]) for member in members]
    if category and len(plain) > bins:
        values[bins - 1] = OTHER
    return Series(place, name, tuple(labels), tuple(values), group, 0 if category else bins)


def _text(labels: Sequence[str]) -> str:
    """One text for neighbouring bins.

    >>> _text(["2 to 4", "4 to 6"]), _text(["below 2", "2 to 4"]), _text(["4 to 6", "from 6"])
    ('2 to 6', 'below 4', 'from 4')
    """
    low, high = labels[0].split(" to ")[0], labels[-1].split(" to ")[-1]
    text = f"{low} to {high}"
    if len(labels) == 1:
        text = labels[0]
    elif labels[0].startswith("below "):
        text = f"below {high}"
    elif labels[-1].startswith("from "):
        text = f"from {low}"
    text = _ascii(text)
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 3]}..."


def _ascii(text: str) -> str:
    r"""Ray refuses other characters in the labels of metrics; different texts stay different.

    >>> _ascii("Zürich")
    'Z\\xfcrich'
    """
    return text.encode("ascii", "backslashreplace").decode()
