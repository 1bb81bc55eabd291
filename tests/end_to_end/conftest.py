"""A CSV as teams have them, and the least project file over it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROWS = 3_000
_WORDS = ["the", "customer", "called", "about", "a", "late", "parcel", "and", "asked", "for"]


@pytest.fixture(scope="session")
def customers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dates, free text, ids, a column mostly missing, a constant, wild numbers, a rare class."""
    random = np.random.default_rng(7)
    file = tmp_path_factory.mktemp("rows") / "customers.csv"
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(
            ["customer", "signed_up", "note", "plan", "age", "spend", "discount", "land", "left"]
        )
        for i in range(ROWS):
            plan = random.choice(["basic", "plus", "pro"], p=[0.6, 0.3, 0.1])
            age = random.integers(18, 90)
            spend = random.lognormal(3, 1)
            risk = -4.2 + 1.8 * (plan == "basic") + 0.03 * (50 - age) + 0.02 * spend
            left = random.random() < 1 / (1 + np.exp(-risk))
            wild = {3: "1e308", 5: "inf", 7: "-inf", 11: "NaN"}.get(i, f"{spend:.2f}")
            writer.writerow(
                [
                    f"C-{i:06d}",
                    f"2024-{1 + i * 12 // ROWS:02d}-{1 + i % 28:02d}",
                    " ".join(random.choice(_WORDS, 14)),
                    plan,
                    age if random.random() > 0.1 else "",
                    wild,
                    f"{random.random():.3f}" if random.random() < 0.08 else "",
                    "NL",
                    "yes" if left else "no",
                ]
            )
    return file


@pytest.fixture
def project_file(tmp_path: Path, customers: Path) -> Callable[..., Path]:
    """Writes a project file over the customers; keyword arguments replace its lines."""

    def write(**lines: str) -> Path:
        given = {
            "name": "churn",
            "sources": f"{{rows: {{path: {customers}}}}}",
            "model": "{target: left}",
        }
        file = tmp_path / "churn.yaml"
        file.write_text("".join(f"{k}: {v}\n" for k, v in (given | lines).items()))
        return file

    return write


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a storage folder of its own."""
    home = tmp_path / "home"
    monkeypatch.setenv("MLRAY_HOME", str(home))
    return home
