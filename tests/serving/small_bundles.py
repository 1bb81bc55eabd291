"""Small real bundles, made in a second: real encoder, network, graph and golden rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch

from mlray.models.bundle import Bundle
from mlray.models.calibration import Calibration
from mlray.models.encoder import Encoder
from mlray.models.export import to_onnx
from mlray.models.networks import build
from mlray.models.packing import BundleParts, write_bundle
from mlray.models.roles import choose_roles
from mlray.models.scoring import Scorer
from mlray.models.target import Target
from mlray.monitoring.counters import count
from mlray.stats.bins import Reference, category_bins, numeric_bins
from mlray.stats.profile import Profile

BINS = 20


def flights_table(rows: int = 400, seed: int = 0) -> pa.Table:
    """Rows with a number, a whole number, a text, a time, gaps, and three possible targets."""
    random = np.random.default_rng(seed)
    delay = random.normal(10, 30, rows)
    carrier = random.choice(["UA", "B6", "EV", "DL"], rows)
    seconds = random.integers(1_357_000_000, 1_388_000_000, rows)
    moments = [datetime.fromtimestamp(int(s), UTC) for s in seconds]
    return pa.table(
        {
            "delay": pa.array(delay, mask=random.random(rows) < 0.1),
            "distance": pa.array(random.integers(80, 5000, rows)),
            "carrier": pa.array(carrier, mask=random.random(rows) < 0.05),
            "decided_at": pa.array(moments, pa.timestamp("us", "UTC")),
            "late": pa.array(np.where(delay > 10, "yes", "no")),
            "origin": pa.array(random.choice(["EWR", "JFK", "LGA"], rows)),
            "arrival": pa.array(delay * 0.9 + random.normal(0, 5, rows)),
        }
    )


def numbers_table(features: int = 30, rows: int = 600) -> pa.Table:
    """Rows of numbers only, with a binary target `benign`."""
    values = np.random.default_rng(0).normal(size=(rows, features))
    columns = {f"x{j}": values[:, j] for j in range(features)}
    return pa.table({**columns, "benign": values.sum(axis=1) > 0})


def bundle_of(
    table: pa.Table,
    target: str,
    folder: str,
    *,
    name: str = "flights",
    leave: tuple[str, ...] = (),
    positive: object = None,
    seed: int = 0,
    **options: Any,
) -> Bundle:
    """A bundle whose network has random weights: what serving does never depends on them."""
    table = table.drop_columns(list(leave))
    profile = Profile.of(table)
    roles, _ = choose_roles(profile, target)
    encoder = Encoder.fit(profile, roles, Target.fit(profile.columns[target], positive=positive)[0])
    inputs = encoder.inputs()
    torch.manual_seed(seed)
    network = build("mlp", inputs, options).eval()
    graph = to_onnx(network, Calibration(), inputs)
    parts = BundleParts(
        name=name,
        encoder=encoder,
        graph=graph,
        weights=safetensors.torch.save(network.state_dict()),
        calibration=Calibration(),
        profile=profile,
        reference=_reference(table, encoder, Scorer(graph.onnx, multiple=graph.multiple)),
        evaluation={},
        golden=table,
        request_columns=tuple(encoder.schema.names),
        metric="roc_auc",
        created_at="2013-10-01T00:00:00+00:00",
    )
    return write_bundle(folder, parts)


def _reference(table: pa.Table, encoder: Encoder, scorer: Scorer) -> Reference:
    encoded = encoder.encode(table)
    scores = scorer(encoded.numeric, encoded.category)
    features = [
        numeric_bins(f.name, encoded.numeric[:, j], BINS, str)
        for j, f in enumerate(encoder.numeric)
    ]
    features += [
        category_bins(f.name, f.values, range(len(f.values), 0, -1), BINS) for f in encoder.category
    ]
    if scores.ndim == 1:
        features.append(numeric_bins("score", scores, BINS, str, kind="score"))
    else:
        classes = [str(c) for c in encoder.classes]
        features.append(category_bins("class", classes, [1] * len(classes), BINS))
    counts = tuple(count(features, encoded.numeric, encoded.category, scores))
    return Reference(tuple(features), counts, table.num_rows)
