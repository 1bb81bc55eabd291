"""One pass over a dataset whose tasks hand back small rows about what they did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa


def records(
    name: str, dataset: Any, function: Callable[[pa.Table], pa.Table]
) -> Iterator[dict[str, Any]]:
    """Run `function` on every block; yields the small rows that it returned, in source order.

    `name` is what Ray's dashboard shows.
    """
    from mlray.sources import plain_errors

    dataset.set_name(name)
    with plain_errors():
        done = dataset.map_batches(
            function, batch_format="pyarrow", batch_size=None, zero_copy_batch=True
        )
        for batch in done.iter_batches(batch_format="pyarrow", batch_size=None):
            yield from batch.to_pylist()
