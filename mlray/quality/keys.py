"""The values of a column of another source, as 64-bit hashes: what `exists_in` looks up.

Two different values have the same hash with a probability of 5e-20, so of a billion looked up in a
million, one in two thousand runs lets one wrong value pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from mlray.errors import InputError
from mlray.quality.values import Mask
from mlray.sources.repeats import Hashes, hash_keys


def hashes_of(values: pa.ChunkedArray, kind: pa.DataType) -> Hashes:
    """Sorted hashes of the distinct values, taken as of type `kind`; missing ones left out.

    Raises:
        InputError: the values do not convert to that type.
    """
    distinct = values.unique().drop_null()
    try:
        return np.unique(hash_keys(pa.table({"key": distinct.cast(kind)})))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"keys do not convert to {kind} ({error})") from None


@dataclass(frozen=True)
class KeySet:
    """Values that exist, by their sorted hashes."""

    hashes: Any
    """uint64 (K,), or a reference to them in Ray's object store."""

    @classmethod
    def of(cls, parts: Iterable[Hashes]) -> KeySet:
        """All values of the parts."""
        every = list(parts)
        return cls(np.unique(np.concatenate(every)) if every else np.empty(0, np.uint64))

    def shared(self) -> KeySet:
        """The same in Ray's object store, so that a task's message stays small."""
        import ray

        return KeySet(ray.put(self.hashes))

    def lacks(self, values: pa.Array) -> Mask:
        """Which values (n,) do not exist; a missing one is not judged."""
        found = self._has(hash_keys(pa.table({"key": values})))
        if values.null_count:
            found |= values.is_null().to_numpy(zero_copy_only=False)
        return np.asarray(~found)

    def _has(self, wanted: Hashes) -> Mask:
        """Two looks into tables, by the upper and by the lower bits; a search only for the few
        hashes that share their slots in both."""
        keys, bits, upper, lower = self._slots
        if not len(keys):
            return np.zeros(len(wanted), bool)
        found: Mask = upper[(wanted >> np.uint64(64 - bits)).astype(np.int64)] == wanted
        left = np.flatnonzero(~found)
        if len(left):
            rest = wanted[left]
            found[left] = lower[(rest & np.uint64((1 << bits) - 1)).astype(np.int64)] == rest
            left = left[~found[left]]
        if len(left):
            places = np.minimum(np.searchsorted(keys, wanted[left]), len(keys) - 1)
            found[left] = keys[places] == wanted[left]
        return found

    @cached_property
    def _slots(self) -> tuple[Hashes, int, Hashes, Hashes]:
        keys = self.hashes
        if not isinstance(keys, np.ndarray):
            import ray

            keys = ray.get(keys)
        bits = max(4, len(keys).bit_length() + 1)
        upper, lower = np.zeros((2, 1 << bits), np.uint64)
        by_upper = (keys >> np.uint64(64 - bits)).astype(np.int64)
        upper[by_upper] = keys
        rest = keys[upper[by_upper] != keys]
        lower[(rest & np.uint64((1 << bits) - 1)).astype(np.int64)] = rest
        return keys, bits, upper, lower

    def __getstate__(self) -> dict[str, Any]:
        return {"hashes": self.hashes}
