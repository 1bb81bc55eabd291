"""A trained model is packed: all that a bundle holds, written at once or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlray import storage, usercode
from mlray.models.bundle import LIMITS, SUMS, Bundle, Manifest, load_bundle
from mlray.models.calibration import Calibration
from mlray.models.encoder import Encoder
from mlray.models.export import Graph
from mlray.models.predictor import Predictor
from mlray.models.scoring import processor
from mlray.sources.personal import Action, Keys
from mlray.sources.steps import Steps
from mlray.stats.bins import Reference
from mlray.stats.profile import Profile

GOLDEN_ROWS = 64


@dataclass(frozen=True)
class BundleParts:
    """What training leaves behind, before it is a bundle."""

    name: str
    encoder: Encoder
    graph: Graph
    """From `export.to_onnx`."""
    weights: bytes
    """The network's weights as safetensors."""
    calibration: Calibration
    profile: Profile
    reference: Reference
    evaluation: dict[str, Any]
    golden: pa.Table
    """A few raw training rows; the first `GOLDEN_ROWS` are kept."""
    request_columns: tuple[str, ...]
    """Columns of `golden` that a request must have, from `required_inputs`."""
    metric: str
    created_at: str
    """UTC, ISO 8601."""
    threshold: float = 0.5
    network: str = "mlp"
    options: dict[str, Any] = field(default_factory=dict)
    steps: Steps = field(default_factory=lambda: Steps("sources", None))
    """From raw rows to what the encoder reads."""
    protected: dict[str, Action] = field(default_factory=dict)
    """Columns with personal data, by their names in raw rows, and what became of them."""
    keys: Keys | None = None
    """Of hashes and tokens; of these only the id is written."""
    card: str = ""


def write_bundle(folder: str, parts: BundleParts, project_folder: str | None = None) -> Bundle:
    """Write a bundle and open it again, all sums checked and golden rows replayed.

    Args:
        folder: where it will be; what is there is replaced, in one step.
        parts: what it holds.
        project_folder: folder of the project file, where the transform's module is found.
    """
    files = _texts(parts, project_folder)
    files["golden.arrow"] = _golden(parts, files, project_folder)
    with storage.new_folder(folder) as temporary:
        for name in LIMITS:
            (Path(temporary) / name).write_bytes(files[name])
        sums = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in LIMITS]
        (Path(temporary) / SUMS).write_text("".join(sums))
        Predictor(load_bundle(temporary), project_folder, keys=parts.keys).verify_golden()
    return load_bundle(folder)


def _texts(parts: BundleParts, project_folder: str | None) -> dict[str, bytes]:
    """All files but the golden rows."""
    manifest = json.dumps(asdict(_manifest(parts, project_folder)), indent=1, sort_keys=True)
    return {
        "bundle.json": manifest.encode(),
        "model.onnx": parts.graph.onnx,
        "weights.safetensors": parts.weights,
        "encoder.json": parts.encoder.to_json().encode(),
        "profile.json": parts.profile.to_json().encode(),
        "reference.json": parts.reference.to_json().encode(),
        "evaluation.json": json.dumps(parts.evaluation, indent=1, sort_keys=True).encode(),
        "card.md": parts.card.encode(),
    }


def _manifest(parts: BundleParts, project_folder: str | None) -> Manifest:
    target = parts.encoder.target
    schema = parts.golden.select(list(parts.request_columns)).schema
    transform = parts.steps.transform
    return Manifest(
        name=parts.name,
        task=target.task,
        target=target.column,
        classes=target.classes,
        metric=parts.metric,
        threshold=parts.threshold,
        created_at=parts.created_at,
        schema=tuple((item.name, _plain(item.type)) for item in schema),
        transform=transform,
        transform_sha256=usercode.version(transform, project_folder) if transform else None,
        steps=parts.steps.to_dict(),
        network=parts.network,
        options=parts.options,
        calibration=parts.calibration.to_dict(),
        multiple=parts.graph.multiple,
        processor=processor(),
        protected=parts.protected,
        pii_key_id=parts.keys.id if parts.keys else None,
    )


def _plain(kind: pa.DataType) -> str:
    """A request sends values, not dictionaries of them."""
    return str(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _golden(parts: BundleParts, files: dict[str, bytes], project_folder: str | None) -> bytes:
    """Request rows with the scores that the predictor gives them, as an Arrow file."""
    predictor = Predictor(Bundle("(unwritten)", "", {}, files), project_folder, keys=parts.keys)
    names = predictor.schema.names
    rows = parts.golden.select(names).slice(0, GOLDEN_ROWS).cast(predictor.schema)
    table = rows.append_column("_score", score_array(predictor.predict(rows).scores))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def score_array(scores: npt.NDArray[np.float32]) -> pa.Array:
    """Scores (N,) or (N, K) as an Arrow column."""
    if scores.ndim == 1:
        return pa.array(scores)
    return pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), scores.shape[1])
