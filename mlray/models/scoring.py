"""An ONNX graph as a function of encoded rows whose bits do not depend on the batch size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from mlray.errors import BundleError

CHUNK_ROWS = 8192
"""Rows per run of the session: bounds memory, and stays a multiple of every padding."""
PADDINGS = (1, 2, 4, 8, 16)
_DOMAINS = {"", "ai.onnx"}


class Scorer:
    """A graph with inputs `numeric` (N, F) and `category` (N, C) and output `score`.

    Rows are padded to a multiple of `multiple`, because matrix products of a single row (and, in
    some graphs, of an odd number of rows) take another path through the CPU and end in other bits.
    """

    def __init__(self, graph: bytes, *, multiple: int = 1, threads: int = 1):
        import onnxruntime

        refuse_foreign(graph)
        try:
            self._session = onnxruntime.InferenceSession(
                graph, _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises a class per status code, without a base
            raise BundleError("ONNX Runtime refused the graph", value=str(error)[:200]) from error
        self._names = {item.name for item in self._session.get_inputs()}
        self.multiple = multiple

    def __call__(
        self, numeric: npt.NDArray[np.float32], category: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        """Scores (N,) or (N, K), float32."""
        rows = len(numeric)
        if rows <= CHUNK_ROWS:
            return self._run(numeric, category)
        return np.concatenate(
            [
                self._run(numeric[i : i + CHUNK_ROWS], category[i : i + CHUNK_ROWS])
                for i in range(0, rows, CHUNK_ROWS)
            ]
        )

    def _run(
        self, numeric: npt.NDArray[np.float32], category: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        rows = len(numeric)
        # an empty batch is padded too: not every kernel takes zero rows
        short = -rows % self.multiple if rows else self.multiple
        if short:
            numeric = np.concatenate([numeric, np.zeros((short, numeric.shape[1]), np.float32)])
            category = np.concatenate([category, np.zeros((short, category.shape[1]), np.int32)])
        feed = {"numeric": numeric, "category": category}
        (scores,) = self._session.run(None, {k: v for k, v in feed.items() if k in self._names})
        found: npt.NDArray[np.float32] = scores[:rows]
        return found


def _options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # waiting threads sleep: a spinning one takes the core of the next replica
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def refuse_foreign(graph: bytes) -> None:
    """Refuse a graph that names other files or operators that are not ONNX's own.

    Raises:
        BundleError: with what was found.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_model_from_string(graph)
    except (DecodeError, ValueError) as error:
        raise BundleError("model.onnx is no ONNX graph") from error
    domains = {item.domain for item in model.opset_import} | {
        node.domain for node in model.graph.node
    }
    if foreign := sorted(domains - _DOMAINS):
        raise BundleError("the graph uses foreign operators", value=foreign, allowed="ONNX's own")
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in _tensors(model)):
        raise BundleError("the graph reads other files", allowed="all weights inside model.onnx")


def _tensors(model: Any) -> Iterable[Any]:
    """Every tensor of the graph, those in attributes and subgraphs included."""
    from onnx.external_data_helper import _get_all_tensors

    found: Iterable[Any] = _get_all_tensors(model)
    return found


def stable_multiple(
    graph: bytes, numeric: npt.NDArray[np.float32], category: npt.NDArray[np.int32]
) -> int:
    """The smallest of `PADDINGS` with which rows score the same bits in batches of any size.

    It is tried on the rows given, in batches of 1, 2, 3, 7, 16 and all; the largest if none does.
    """
    for multiple in PADDINGS:
        scorer = Scorer(graph, multiple=multiple)
        whole = scorer(numeric, category)
        if all(
            np.array_equal(
                np.concatenate(
                    [
                        scorer(numeric[i : i + size], category[i : i + size])
                        for i in range(0, len(numeric), size)
                    ]
                ),
                whole,
            )
            for size in (1, 2, 3, 7, 16)
        ):
            return multiple
    return PADDINGS[-1]


def processor() -> str:
    """The kind of CPU and of ONNX Runtime: where both are equal, so are the scores' bits."""
    import platform

    import onnxruntime

    return f"{platform.machine()} {_cpu_model()} onnxruntime {onnxruntime.__version__}"


def _cpu_model() -> str:
    """The CPU's model and vector instructions as Linux tells them; elsewhere what Python knows."""
    import hashlib
    import platform
    from pathlib import Path

    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = info.read_text(errors="replace").splitlines()
    known = ("model name", "flags", "Features")
    told = sorted({line for line in lines if line.startswith(known)})
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
