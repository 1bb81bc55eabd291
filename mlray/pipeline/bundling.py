"""From trained weights to a judged bundle: calibrate, export, cut bins, keep golden rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mlray import storage
from mlray.config import Project
from mlray.models.calibration import Calibration, calibrate
from mlray.pipeline.outputs import BUNDLE, encoder_of, profile_of, rows_of_part
from mlray.pipeline.preparing import steps_of
from mlray.pipeline.stages import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlray.evaluation import Evaluation
    from mlray.models.bundle import Bundle
    from mlray.models.encoder import Encoder
    from mlray.models.packing import BundleParts
    from mlray.models.predictor import Predictor
    from mlray.stats.bins import Reference

_CUT_ROWS = 1_000_000
"""Bins are cut on so many training rows at most; all of them are counted."""


def write(work: Work) -> tuple[Bundle, Evaluation]:
    """Write `work.folder/bundle` and judge it on the test rows through its own predictor."""
    from mlray.models.bundle import load_bundle
    from mlray.models.packing import write_bundle
    from mlray.models.predictor import Predictor

    project = work.project
    parts = _parts(work)
    work.say("evaluating on the test rows")
    draft = write_bundle(storage.join(work.scratch, BUNDLE), parts, project.folder)
    evaluation = judged(work, Predictor(draft, project.folder, threads=2, keys=parts.keys), "test")
    done = dataclasses.replace(parts, evaluation=evaluation.to_dict(), card=_card(work, evaluation))
    write_bundle(work.path(BUNDLE), done, project.folder)
    return load_bundle(work.path(BUNDLE)), evaluation


def _parts(work: Work) -> BundleParts:
    from mlray.models.export import to_onnx
    from mlray.models.networks import build
    from mlray.models.packing import BundleParts
    from mlray.models.predictor import required_inputs
    from mlray.sources.personal import keys_of

    project, encoder = work.project, encoder_of(work.before["encode"])
    weights = storage.read_bytes(work.before["train"].path("weights.safetensors"))
    logits, labels = _validation(work)
    calibration = _calibration(project, encoder, logits, labels)
    network = build(project.model.network, encoder.inputs(), project.model.options, project.folder)
    _load(network, weights)
    work.say("exporting the graph")
    golden = _golden(work)
    steps = steps_of(project)
    scores = _scores(encoder.target.task, logits, calibration)
    return BundleParts(
        name=project.name,
        encoder=encoder,
        graph=to_onnx(network, calibration, encoder.inputs()),
        weights=weights,
        calibration=calibration,
        profile=profile_of(work.before["split"]),
        reference=_reference(work, encoder, scores),
        evaluation={},
        golden=golden,
        request_columns=tuple(required_inputs(golden, steps, encoder)),
        metric=project.evaluation.metric,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        threshold=_threshold(encoder.target.task, scores, labels),
        network=project.model.network,
        options=project.model.options,
        steps=steps,
        protected=work.before["quality"].result["protected"],
        keys=keys_of(project),
    )


def _validation(work: Work) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits (N, K) and labels (N,) of the best epoch on the validation rows."""
    from safetensors.numpy import load_file

    found = load_file(work.before["train"].path("validation.safetensors"))
    return found["logits"], found["label"]


def _calibration(
    project: Project, encoder: Encoder, logits: NDArray[Any], labels: NDArray[Any]
) -> Calibration:
    target = encoder.target
    if target.task == "regression":
        return Calibration(target.scale, target.center, "units of the target")
    return calibrate(target.task, logits, labels, fit=project.evaluation.calibrate)


def _scores(task: str, logits: NDArray[Any], calibration: Calibration) -> NDArray[np.float32]:
    """What the graph will say about the validation rows."""
    z = logits.astype(np.float64) * calibration.slope + calibration.shift
    if task == "multiclass":
        powers = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)
    z = z[:, 0]
    return np.asarray(1 / (1 + np.exp(-z)) if task == "binary" else z, dtype=np.float32)


def _threshold(task: str, scores: NDArray[np.float32], labels: NDArray[Any]) -> float:
    """The probability from which on a row is called positive: best F1 on the validation rows."""
    if task != "binary" or not 0 < labels.sum() < len(labels):
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    hits = np.cumsum(labels[order])
    f1 = 2 * hits / (np.arange(1, len(labels) + 1) + labels.sum())
    ends = np.append(ranked[1:] != ranked[:-1], True)  # rows of equal score are called together
    return float(ranked[np.argmax(np.where(ends, f1, -1))])


def _load(network: Any, weights: bytes) -> None:
    import safetensors.torch

    network.load_state_dict(safetensors.torch.load(weights))


def _golden(work: Work) -> pa.Table:
    """A few raw training rows, spread over the first file that has any."""
    for table in part_tables(work, "train"):
        step = max(1, table.num_rows // 64)
        return table.take(pa.array(np.arange(0, table.num_rows, step)[:64]))
    raise AssertionError("the split has training rows, so some file holds one")


def part_tables(work: Work, part: str) -> Iterator[pa.Table]:
    """The raw clean rows of a part, as a stream of tables that are never empty."""
    steps = steps_of(work.project)
    return rows_of_part(steps, work.before["quality"], work.before["split"], part)


def judged(work: Work, predictor: Predictor, part: str) -> Evaluation:
    """A predictor on the rows of a part, by the bundle's own threshold."""
    from mlray.evaluation import evaluate

    project, target, steps = work.project, predictor.encoder.target, steps_of(work.project)
    slices = tuple(dict.fromkeys([*project.evaluation.slices, *project.monitoring.groups]))
    return evaluate(
        predictor,
        part_tables(work, part),
        target,
        slices,
        part,
        told=partial(steps.having, names=[target.column, *slices]),
        metric=project.evaluation.metric,
        threshold=predictor.threshold,
    )


# --- the drift reference ------------------------------------------------------------------------


def _reference(work: Work, encoder: Encoder, scores: NDArray[np.float32]) -> Reference:
    """Bins cut and counted on the encoded training rows; of the score, on validation rows."""
    from mlray.monitoring.counters import count
    from mlray.stats.bins import Reference
    from mlray.training.shards import Shards

    bins = work.project.monitoring.bins
    shards = Shards.open(work.before["encode"].path("shards"), "train")
    features = (*_feature_bins(encoder, shards, bins), score_bins(encoder, scores, bins))
    width = scores.shape[1:] if scores.ndim == 2 else ()
    totals = None
    for rows in shards.files:
        blank = np.zeros((len(rows), *width), np.float32)
        counts = count(features, rows.numeric, rows.category, blank)
        totals = counts if totals is None else [a + b for a, b in zip(totals, counts, strict=True)]
    assert totals is not None
    empty = [np.zeros((len(scores), n), t) for n, t in _widths(encoder)]
    totals[-1] = count(features, empty[0], empty[1], scores)[-1]
    return Reference(features, tuple(totals), len(shards))


def _widths(encoder: Encoder) -> tuple[tuple[int, Any], tuple[int, Any]]:
    return (len(encoder.numeric), np.float32), (len(encoder.category), np.int32)


def _feature_bins(encoder: Encoder, shards: Any, bins: int) -> list[Any]:
    from mlray.stats.bins import category_bins, numeric_bins

    step = max(1, len(shards) // _CUT_ROWS)
    numeric = np.concatenate([rows.numeric[::step] for rows in shards.files])
    category = np.concatenate([rows.category[::step] for rows in shards.files])
    cut = []
    for i, feature in enumerate(encoder.numeric):

        def human(value: float, name: str = feature.name) -> str:
            return encoder.to_human(name, value)

        cut.append(numeric_bins(feature.name, numeric[:, i], bins, human))
    for i, named in enumerate(encoder.category):
        labels = encoder.labels(named.name)[2:]
        counts = np.bincount(category[:, i], minlength=len(labels) + 2)[2:]
        # codes are numbered by the profile's frequency; a sample may see two of them swapped
        cut.append(category_bins(named.name, labels, np.sort(counts)[::-1], bins))
    return cut


def score_bins(encoder: Encoder, scores: NDArray[np.float32], bins: int) -> Any:
    """Bins of what the model says: probabilities or values, or the likeliest class."""
    from mlray.stats.bins import category_bins, numeric_bins

    if scores.ndim == 1:
        return numeric_bins("score", scores, bins, lambda value: f"{value:.4g}", kind="score")
    classes = [str(c) for c in encoder.classes]
    return category_bins("class", classes, [0] * len(classes), max(bins, len(classes)))


def _card(work: Work, evaluation: Evaluation) -> str:
    """The model for people: what it is for, what it learned from, how good it is."""
    project, parts = work.project, work.before["split"].result["parts"]
    metrics = "\n".join(
        f"| {name} | {_number(found['value'])} | {_number(found['low'])} to "
        f"{_number(found['high'])} | {_number(evaluation.baseline.get(name))} |"
        for name, found in evaluation.metrics.items()
    )
    features = ", ".join(role["column"] for role in work.before["encode"].result["roles"])
    return (
        f"# {project.name}\n\nPredicts `{project.model.target}` ({project.model.task}).\n\n"
        f"Learned from {parts['train']:,} rows, chosen on {parts['validation']:,}, judged on "
        f"{evaluation.rows:,}.\n\nFeatures: {features}.\n\n"
        "| metric | test | 95 % interval | best constant answer |\n| --- | --- | --- | --- |\n"
        f"{metrics}\n"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
