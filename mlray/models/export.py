"""A trained network becomes an ONNX graph that gives finished scores.

The graph: non-finite values are handled by the network itself, then the network, the calibration
and the task's activation. It is made by tracing, which takes 0.2 s where torch.export takes 2 to
6; a network that cannot be traced right (the graph is compared with torch on batches of several
sizes) is exported the slow way.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mlray.errors import TrainingError
from mlray.models.calibration import Calibration
from mlray.models.inputs import Inputs
from mlray.models.scoring import Scorer, stable_multiple

TOLERANCE = 1e-4
"""Largest difference between graph and torch, relative to the scores' size."""
_OPSET = 18
_PROBE_ROWS = 61

Rows = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]


@dataclass(frozen=True)
class Graph:
    """The bytes of model.onnx, and to which multiple its batches are padded."""

    onnx: bytes
    multiple: int


class Served(nn.Module):  # type: ignore[misc]
    """Network, calibration and activation: encoded rows to scores in the words of the task."""

    slope: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, calibration: Calibration, task: str):
        super().__init__()
        self.network, self.task = network, task
        self.register_buffer("slope", torch.tensor(calibration.slope, dtype=torch.float32))
        self.register_buffer("shift", torch.tensor(calibration.shift, dtype=torch.float32))

    def forward(self, numeric: Tensor, category: Tensor) -> Tensor:
        logits = self.network(numeric, category) * self.slope + self.shift
        if self.task == "multiclass":
            return torch.softmax(logits, dim=1)
        return torch.sigmoid(logits[:, 0]) if self.task == "binary" else logits[:, 0]


def to_onnx(network: nn.Module, calibration: Calibration, inputs: Inputs) -> Graph:
    """Export and check.

    Raises:
        TrainingError: the network cannot be exported, or its graph does not say what torch says.
    """
    served = Served(network, calibration, inputs.task).cpu().eval()
    rows = probe_rows(inputs)
    problems = []
    for export in (_traced, _exported):
        try:
            with _quiet():
                graph = export(served)(rows)
            difference = _difference(served, graph, rows)
        except Exception as error:  # torch has no common base for what an exporter meets
            problems.append(f"{type(error).__name__}: {str(error)[:200]}")
            continue
        if difference <= TOLERANCE:
            return Graph(graph, stable_multiple(graph, *rows))
        problems.append(f"scores differ from torch by {difference:.2g}")
    raise TrainingError(
        "the network cannot be exported to ONNX",
        value=problems,
        do="write forward(numeric, category) with tensor operations only, the batch dimension free",
    )


def probe_rows(inputs: Inputs) -> Rows:
    """Rows of every kind, seeded: ordinary, missing, infinite, unseen."""
    random = np.random.default_rng(0)
    numeric = random.normal(size=(_PROBE_ROWS, len(inputs.numeric))).astype(np.float32)
    numeric[random.random(numeric.shape) < 0.1] = np.nan
    numeric[random.random(numeric.shape) < 0.02] = np.inf
    numeric[random.random(numeric.shape) < 0.02] = -1e30
    category = random.integers(0, inputs.cardinalities, (_PROBE_ROWS, len(inputs.category)))
    return numeric, category.astype(np.int32)


def _traced(served: Served) -> Callable[[Rows], bytes]:
    def export(rows: Rows) -> bytes:
        file = io.BytesIO()
        torch.onnx.export(
            served,
            (torch.from_numpy(rows[0]), torch.from_numpy(rows[1])),
            file,
            input_names=["numeric", "category"],
            output_names=["score"],
            dynamic_axes={name: {0: "rows"} for name in ("numeric", "category", "score")},
            opset_version=_OPSET,
            dynamo=False,
        )
        return file.getvalue()

    return export


def _exported(served: Served) -> Callable[[Rows], bytes]:
    def export(rows: Rows) -> bytes:
        free = {0: torch.export.Dim("rows", min=1)}
        program = torch.onnx.export(
            served,
            (torch.from_numpy(rows[0]), torch.from_numpy(rows[1])),
            input_names=["numeric", "category"],
            output_names=["score"],
            dynamic_shapes={"numeric": free, "category": free},
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
        return bytes(program.model_proto.SerializeToString())

    return export


def _difference(served: Served, graph: bytes, rows: Rows) -> float:
    """Largest difference from torch over batches of several sizes, relative to the scores.

    The batches start at other rows, so a value of the traced rows that froze in the graph shows.
    """
    scorer, worst = Scorer(graph), 0.0
    for first, last in ((0, 1), (1, 3), (3, 10), (10, 11), (0, len(rows[0]))):
        numeric, category = rows[0][first:last], rows[1][first:last]
        with torch.inference_mode():
            wanted = served(torch.from_numpy(numeric), torch.from_numpy(category)).numpy()
        found = scorer(numeric, category)
        if found.shape != wanted.shape:
            raise ValueError(f"{last - first} rows give scores of shape {found.shape}")
        scale = max(1.0, float(np.abs(wanted).max()))
        apart = np.abs(found.astype(np.float64) - wanted).max() / scale
        worst = max(worst, float(apart) if np.isfinite(apart) else np.inf)
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn about libraries that are not there and about their own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
