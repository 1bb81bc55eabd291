"""A real bundle, made in a second: real encoder, graph and golden rows; weights at random."""

from __future__ import annotations

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
from mlray.models.target import Target
from mlray.stats.bins import Reference
from mlray.stats.profile import Profile


def flights(rows: int = 600) -> pa.Table:
    """A number, a text with gaps, and a target of each task."""
    random = np.random.default_rng(0)
    distance = random.uniform(80, 5000, rows)
    return pa.table(
        {
            "distance": distance,
            "carrier": pa.array(random.choice(["UA", "B6"], rows), mask=random.random(rows) < 0.2),
            "late": random.random(rows) < 0.3,
            "origin": random.choice(["EWR", "JFK", "LGA"], rows),
            "delay": distance / 100 + random.normal(0, 5, rows),
        }
    )


def write(folder: str, target: str, seed: int = 0) -> Bundle:
    table = flights().select(["distance", "carrier", target])
    profile = Profile.of(table)
    roles, _ = choose_roles(profile, target)
    encoder = Encoder.fit(profile, roles, Target.fit(profile.columns[target])[0])
    inputs = encoder.inputs()
    torch.manual_seed(seed)
    network = build("mlp", inputs, {}).eval()
    parts = BundleParts(
        name="flights",
        encoder=encoder,
        graph=to_onnx(network, Calibration(), inputs),
        weights=safetensors.torch.save(network.state_dict()),
        calibration=Calibration(),
        profile=profile,
        reference=Reference((), (), 0),
        evaluation={},
        golden=table,
        request_columns=tuple(encoder.schema.names),
        metric="roc_auc",
        created_at="2013-10-01T00:00:00+00:00",
    )
    return write_bundle(folder, parts)
