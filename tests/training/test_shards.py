from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from training.conftest import Problem, make_problem, make_table

from mlray.errors import InputError, TrainingError
from mlray.training.shards import (
    Assign,
    Manifest,
    Rows,
    Shards,
    read_arrow,
    write_arrow,
    write_shards,
)


@pytest.fixture
def problem() -> Problem:
    return make_problem(make_table(1000))


def whole(folder: str, part: str) -> Rows:
    shards = Shards.open(folder, part)
    return shards.slice(0, len(shards))


def same(left: Rows, right: Rows) -> bool:
    pairs = zip(left.arrays, right.arrays, strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


def part_column() -> Assign:
    """A function that travels by value: Ray's workers cannot import this file."""
    return lambda table: table.column("part").to_numpy().astype("int8")


def test_no_row_is_lost_and_order_is_kept(problem: Problem, tmp_path: Path) -> None:
    folder = str(tmp_path / "s")
    tables = [problem.table.slice(i, 300) for i in range(0, 1000, 300)]
    manifest = write_shards(tables, problem.encoder, folder, problem.parts, expected_rows=1000)
    assert manifest.rows == 1000
    assert manifest == Manifest.read(folder)
    parts = problem.parts(problem.table)
    for code, part in enumerate(("train", "validation")):
        expected = problem.table.filter(pa.array(parts == code))
        encoded = problem.encoder.encode(expected)
        label = problem.encoder.encode_target(expected.column("yes"))
        rows = whole(folder, part)
        assert rows.numeric.dtype == np.float32
        assert rows.category.dtype == np.int32
        assert same(rows, Rows(encoded.numeric, encoded.category, label))


def test_ray_data_writes_the_same_matrix_however_many_blocks(
    ray_cluster: None, problem: Problem, tmp_path: Path
) -> None:
    import ray

    folders = [str(tmp_path / name) for name in ("one", "many")]
    for folder, blocks in zip(folders, (1, 7), strict=True):
        dataset = ray.data.from_arrow(problem.table).repartition(blocks)
        write_shards(dataset, problem.encoder, folder, part_column(), expected_rows=1000)
    assert len(Manifest.read(folders[1]).files) == 14
    for part in ("train", "validation"):
        assert same(whole(folders[0], part), whole(folders[1], part))


def test_an_input_error_comes_out_of_ray_data_as_itself(
    ray_cluster: None, problem: Problem, tmp_path: Path
) -> None:
    import ray

    table = problem.table.set_column(5, "yes", pa.array([None] * 50 + [True] * 950))
    with pytest.raises(InputError, match="rows have no target value"):
        write_shards(
            ray.data.from_arrow(table), problem.encoder, str(tmp_path / "s"), part_column()
        )
    assert os.listdir(tmp_path) == []


def test_the_transform_is_applied_before_encoding(problem: Problem, tmp_path: Path) -> None:
    def doubled(table: pa.Table) -> pa.Table:
        return table.set_column(2, "c", pa.array(table.column("c").to_numpy() * 2))

    folder = str(tmp_path / "s")
    write_shards([problem.table], problem.encoder, folder, problem.parts, transform=doubled)
    expected = doubled(problem.table).filter(pa.array(problem.parts(problem.table) == 0))
    numeric = problem.encoder.encode(expected).numeric
    assert np.array_equal(whole(folder, "train").numeric, numeric, equal_nan=True)


def test_a_transform_that_drops_rows_is_refused(problem: Problem, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the transform made"):
        write_shards(
            [problem.table],
            problem.encoder,
            str(tmp_path / "s"),
            problem.parts,
            transform=lambda table: table.slice(1),
        )


@pytest.mark.parametrize("part", ["train", "validation"])
def test_an_empty_part_is_named(problem: Problem, tmp_path: Path, part: str) -> None:
    code = {"train": 1, "validation": 0}[part]
    with pytest.raises(InputError, match=f"no row falls into the {part} part"):
        write_shards(
            [problem.table],
            problem.encoder,
            str(tmp_path / "s"),
            lambda table: np.full(table.num_rows, code, dtype=np.int8),
        )


def test_rows_that_did_not_arrive_are_noticed(problem: Problem, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="1001 rows were expected, 1000 reached the shards"):
        write_shards(
            [problem.table],
            problem.encoder,
            str(tmp_path / "s"),
            problem.parts,
            expected_rows=1001,
        )


def test_slices_and_takes_cross_files(problem: Problem, tmp_path: Path) -> None:
    folder = str(tmp_path / "s")
    tables = [problem.table.slice(i, 90) for i in range(0, 1000, 90)]
    write_shards(tables, problem.encoder, folder, problem.parts)
    shards = Shards.open(folder, "train")
    rows = whole(folder, "train")
    assert same(shards.slice(37, 333), Rows(*(a[37:333] for a in rows.arrays)))
    indices = np.random.default_rng(0).permutation(len(shards))[:200]
    assert same(shards.take(indices), Rows(*(a[indices] for a in rows.arrays)))
    assert len(shards.slice(len(shards), len(shards))) == 0


def test_reading_copies_nothing(problem: Problem, tmp_path: Path) -> None:
    path = str(tmp_path / "x.arrow")
    rows = Rows(np.ones((5, 3), np.float32), np.ones((5, 2), np.int32), np.ones(5, np.float32))
    write_arrow(path, rows)
    assert not any(a.flags.owndata for a in read_arrow(path).arrays)
    assert same(read_arrow(path), rows)


def test_a_matrix_without_numbers_or_categories_can_be_stored(tmp_path: Path) -> None:
    path = str(tmp_path / "x.arrow")
    rows = Rows(np.ones((5, 0), np.float32), np.ones((5, 2), np.int32), np.arange(5))
    write_arrow(path, rows)
    assert read_arrow(path).numeric.shape == (5, 0)
    assert same(read_arrow(path), rows)


def test_a_truncated_shard_is_refused(problem: Problem, tmp_path: Path) -> None:
    folder = str(tmp_path / "s")
    write_shards([problem.table], problem.encoder, folder, problem.parts)
    file = Path(folder, "train", "00000.arrow")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(TrainingError, match="missing or not complete"):
        Shards.open(folder, "train")
