"""Rows of the diagnosis project: a source is any function that returns a Ray Dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.data import Dataset


def biopsies(options: dict[str, Any]) -> Dataset:
    """scikit-learn's breast cancer set: 30 measurements of cell nuclei, one row a biopsy."""
    import pandas as pd
    import ray.data
    from sklearn.datasets import load_breast_cancer

    cancer = load_breast_cancer()
    names = [name.replace(" ", "_") for name in cancer.feature_names]
    frame = pd.DataFrame(cancer.data, columns=names)
    return ray.data.from_pandas(frame.assign(benign=cancer.target == 1))
