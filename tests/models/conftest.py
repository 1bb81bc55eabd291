"""One small real model per session: a mixed table, a trained network, its bundle."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlray.models.encoder import Encoder
from mlray.models.packing import BundleParts, write_bundle
from mlray.models.roles import choose_roles
from mlray.models.target import Target
from mlray.sources.personal import Protection
from mlray.stats.bins import Reference, category_bins, numeric_bins
from mlray.stats.profile import Profile

ROWS = 2000
CREATED_AT = "2026-01-01T00:00:00+00:00"


def mixed_table(rows: int = ROWS, seed: int = 0) -> pa.Table:
    """Numbers with gaps, a zero-heavy column, whole numbers, a flag, texts, times, three targets.

    `late` follows from `x`, `zeros` and `carrier`.
    """
    random = np.random.default_rng(seed)
    x = random.normal(50, 10, rows)
    zeros = np.where(random.random(rows) < 0.9, 0.0, random.exponential(1000, rows))
    carrier = random.choice(["AA", "B6", "UA", "WN"], rows, p=[0.4, 0.3, 0.2, 0.1])
    score = (x - 50) / 10 + (zeros > 0) + (carrier == "B6") - 0.5
    late = random.random(rows) < 1 / (1 + np.exp(-2 * score))
    start = datetime(2013, 1, 1)
    times = [start + timedelta(hours=5 * i) for i in range(rows)]
    return pa.table(
        {
            "x": pa.array(np.where(random.random(rows) < 0.1, np.nan, x), from_pandas=True),
            "zeros": zeros,
            "seats": random.integers(1, 200, rows),
            "jet": random.random(rows) < 0.5,
            "carrier": pa.array([None if i % 50 == 7 else c for i, c in enumerate(carrier)]),
            "decided_at": pa.array(times, pa.timestamp("us")),
            "late": late,
            "size": np.array(["small", "middle", "large"])[np.digitize(score, [-1, 1])],
            "minutes": 30 * score + random.normal(0, 1, rows),
        }
    )


def fitted(table: pa.Table, target: str, **options: object) -> Encoder:
    others = [n for n in ("late", "size", "minutes") if n != target and n in table.column_names]
    profile = Profile.of(table)
    roles, _ = choose_roles(profile, target, ignore=others, **options)  # type: ignore[arg-type]
    return Encoder.fit(profile, roles, Target.fit(profile.columns[target])[0])


@dataclass(frozen=True)
class Made:
    folder: str
    table: pa.Table
    parts: BundleParts


def make_bundle(
    folder: Path,
    target: str,
    *,
    transform: str | None = None,
    project: str | None = None,
    shaping: dict[str, Any] | None = None,
    protection: Protection | None = None,
) -> Made:
    """A trained, calibrated, packed model of `mixed_table`."""
    import safetensors.torch
    import torch

    from mlray.config.rows import Shaping
    from mlray.models.calibration import Calibration, calibrate
    from mlray.models.export import to_onnx
    from mlray.models.networks import build
    from mlray.models.predictor import required_inputs
    from mlray.models.tasks import task_named
    from mlray.sources.steps import Steps

    protection = protection or Protection()
    raw = protection.apply(mixed_table())
    steps = Steps.of(Shaping(transform=transform, **(shaping or {})), "sources", project)
    table = steps.rowwise(raw)
    encoder = fitted(table, target)
    inputs = encoder.inputs()
    torch.manual_seed(0)
    network = build("mlp", inputs, {"width": 32, "depth": 1})
    encoded, labels = encoder.encode(table), encoder.encode_target(table[target])
    numeric, category = torch.from_numpy(encoded.numeric), torch.from_numpy(encoded.category)
    task, y = task_named(inputs.task), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        task.loss(network(numeric, category), y).backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        logits = network(numeric, category).numpy()
    calibration = (
        Calibration(encoder.target.scale, encoder.target.center, "target's units")
        if inputs.task == "regression"
        else calibrate(inputs.task, logits, labels)
    )
    needed = required_inputs(raw, steps, encoder)
    bins = [
        numeric_bins(n, encoded.numeric[:, i], 8, str) for i, n in enumerate(inputs.numeric)
    ] + [
        category_bins(n, encoder.labels(n)[2:], np.bincount(encoded.category[:, i])[2:], 8)
        for i, n in enumerate(inputs.category)
    ]
    values = [*encoded.numeric.T, *encoded.category.T]
    counts = tuple(b.count(v) for b, v in zip(bins, values, strict=True))
    parts = BundleParts(
        name="flights",
        encoder=encoder,
        graph=to_onnx(network, calibration, inputs),
        weights=safetensors.torch.save(network.state_dict()),
        calibration=calibration,
        profile=Profile.of(table),
        reference=Reference(tuple(bins), counts, len(raw)),
        evaluation={"part": "test", "metrics": {}},
        golden=raw,
        request_columns=tuple(needed),
        metric=task.metric,
        created_at=CREATED_AT,
        options={"width": 32, "depth": 1},
        steps=steps,
        protected=dict(protection.actions),
        keys=protection.keys,
        card="# flights\n",
    )
    write_bundle(str(folder), parts, project)
    return Made(str(folder), raw, parts)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A binary model's bundle. Tests that damage it work on a copy."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "late", "late")
