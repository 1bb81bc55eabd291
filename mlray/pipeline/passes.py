"""One pass over a dataset whose tasks hand back small rows about what they did."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Packed(Generic[Result]):
    """A function of a block whose result travels as bytes: within one Ray session, so pickled."""

    function: Callable[[pa.Table], Result]

    def __call__(self, table: pa.Table) -> pa.Table:
        packed = [pickle.dumps(self.function(table))] if table.num_rows else []
        return pa.table({"result": pa.array(packed, pa.large_binary())})


def results(name: str, dataset: Any, function: Callable[[pa.Table], Result]) -> Iterator[Result]:
    """Run `function` on every block that has rows; yields what it returned, in source order.

    Args:
        name: shown in Ray's dashboard.
        dataset: ray.data.Dataset of Arrow blocks.
        function: picklable; runs in Ray workers. Its result should be small.
    """
    from mlray.sources import plain_errors

    dataset.set_name(name)
    with plain_errors():
        done = dataset.map_batches(
            _Packed(function), batch_format="pyarrow", batch_size=None, zero_copy_batch=True
        )
        for batch in done.iter_batches(batch_format="pyarrow", batch_size=None):
            for packed in batch["result"].to_pylist():
                yield pickle.loads(packed)


def sparingly(say: Callable[[str], None], seconds: float = 2.0) -> Callable[[str], None]:
    """`say`, but silent for `seconds` after each time: a log of every block helps nobody."""
    spoke = -math.inf

    def maybe(text: str) -> None:
        nonlocal spoke
        if time.monotonic() - spoke >= seconds:
            spoke = time.monotonic()
            say(text)

    return maybe
