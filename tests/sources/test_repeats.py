"""Repeated keys over files: found by hashes, proven by the keys themselves."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlray.sources import repeats


def repeated(tables: list[pa.Table], columns: list[str], folder: Path, parts: int = 1) -> list[int]:
    """Numbers of repeated rows, counted over all tables."""
    files = [str(folder / f"{number}.npy") for number in range(len(tables))]
    for file, table in zip(files, tables, strict=True):
        repeats.write_hashes(file, table, columns)
    starts = np.cumsum([0, *map(len, tables)])
    found: list[int] = []
    edges = [(part << 64) // parts for part in range(parts + 1)]
    for bounds in pairwise(edges):
        rows = repeats.repeated_rows(files, lambda n: tables[n].select(columns), bounds)
        found += [int(starts[n] + row) for n, held in rows.items() for row in held]
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.none(), st.sampled_from(["", "a", "b"])),
            st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, float("nan")])),
        ),
        max_size=50,
    ),
    cuts=st.lists(st.integers(0, 50), max_size=4),
    parts=st.integers(1, 4),
)
def test_the_first_row_of_each_key_is_no_repeat(tmp_path_factory, rows, cuts, parts):
    table = pa.table({
        "a": pa.array([a for a, _ in rows], pa.string()),
        "b": pa.array([b for _, b in rows], pa.float64()),
    })  # fmt: skip
    ends = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    tables = [table.slice(a, b - a) for a, b in pairwise(ends)]
    seen, expected = set(), []
    for number, (a, b) in enumerate(rows):
        if a is None or b is None or b != b:
            continue
        if (a, b) in seen:
            expected.append(number)
        seen.add((a, b))
    assert repeated(tables, ["a", "b"], tmp_path_factory.mktemp("keys"), parts) == expected
    marked = np.flatnonzero(repeats.repeated_in(table)).tolist()
    assert marked == expected


def test_keys_of_one_hash_are_told_apart(tmp_path, monkeypatch):
    """Were all hashes alike, the keys themselves would still decide."""
    monkeypatch.setattr(repeats, "hash_keys", lambda keys: np.ones(len(keys), np.uint64))
    tables = [pa.table({"k": [1, 2, 3]}), pa.table({"k": [4, 2, 5, 1]})]
    assert repeated(tables, ["k"], tmp_path) == [4, 6]


def test_files_without_repeats_are_not_read_again(tmp_path):
    tables = [pa.table({"k": [1, 2]}), pa.table({"k": [3, 4]}), pa.table({"k": [2, 5]})]
    files = [str(tmp_path / f"{n}.npy") for n in range(3)]
    for file, table in zip(files, tables, strict=True):
        repeats.write_hashes(file, table, ["k"])
    read = []

    def keys(number):
        read.append(number)
        return tables[number]

    found = repeats.repeated_rows(files, keys)
    assert {n: rows.tolist() for n, rows in found.items()} == {2: [0]}
    assert read == [0, 2]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), "str")])
def test_a_key_is_the_same_however_it_is_stored(kind):
    plain = repeats.hash_keys(pa.table({"k": ["x", "y"]}))
    assert (repeats.hash_keys(pa.table({"k": pa.array(["x", "y"]).cast(kind)})) == plain).all()


def test_ranges_cover_all_hashes_once():
    for rows in (0, 1, 9_000_000, 100_000_000):
        found = repeats.ranges(rows)
        assert found[0][0] == 0
        assert found[-1][1] == 1 << 64
        assert all(a[1] == b[0] for a, b in pairwise(found))
