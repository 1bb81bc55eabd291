from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from mlray.training import batches as module
from mlray.training.batches import InMemory, Streamed, open_batches
from mlray.training.shards import Rows, Shards
from mlray.training.team import Team

CPU = torch.device("cpu")


def shards_of(sizes: list[int]) -> Shards:
    """Rows whose label, number and category are the row's number."""
    numbers = np.arange(sum(sizes))
    cuts = np.cumsum([0, *sizes])
    files = tuple(
        Rows(n[:, None].astype(np.float32), n[:, None].astype(np.int32), n.astype(np.float32))
        for n in (numbers[a:b] for a, b in pairwise(cuts))
    )
    return Shards(files, cuts)


def labels(feed: InMemory | Streamed, epoch: int) -> list[np.ndarray]:
    found = []
    for numeric, category, label in feed.epoch(epoch):
        assert torch.equal(numeric[:, 0], label)
        assert torch.equal(category[:, 0].float(), label)
        found.append(label.numpy().copy())
    return found


@pytest.fixture(params=["memory", "disk"])
def open_feed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., InMemory | Streamed]:
    monkeypatch.setattr(module, "BLOCK_ROWS", 16)
    monkeypatch.setattr(module, "BUFFER_BLOCKS", 4)
    monkeypatch.setattr(module, "GATHERED_ROWS", 100)

    def open_(shards: Shards, team: Team, batch_size: int, seed: int = 0) -> InMemory | Streamed:
        memory_bytes = None if request.param == "memory" else 0
        feed = open_batches(shards, team, batch_size, seed, memory_bytes)
        assert isinstance(feed, InMemory if request.param == "memory" else Streamed)
        return feed

    return open_


@pytest.mark.parametrize("rows", [1, 5, 32, 33, 500, 997])
def test_an_epoch_is_a_permutation_of_all_rows(open_feed, rows: int) -> None:
    feed = open_feed(
        shards_of([rows // 3, rows - rows // 3] if rows > 2 else [rows]), Team(0, 1, 1, CPU), 32
    )
    for epoch in (1, 2):
        found = labels(feed, epoch)
        assert len(found) == feed.steps == -(-rows // 32)
        assert max(map(len, found)) - min(map(len, found)) <= 1
        assert max(map(len, found)) <= 32
        assert np.array_equal(np.sort(np.concatenate(found)), np.arange(rows))


def test_epochs_and_seeds_differ_and_repeat(open_feed) -> None:
    shards, team = shards_of([500]), Team(0, 1, 1, CPU)
    first, again = open_feed(shards, team, 64), open_feed(shards, team, 64)
    other = open_feed(shards, team, 64, 1)
    order = [np.concatenate(labels(feed, epoch)) for feed in (first, again) for epoch in (1, 2)]
    assert np.array_equal(order[0], order[2])
    assert np.array_equal(order[1], order[3])
    assert not np.array_equal(order[0], order[1])
    assert not np.array_equal(order[0], np.concatenate(labels(other, 1)))


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_get_equally_many_equal_batches_of_their_own_rows(open_feed, workers: int) -> None:
    shards = shards_of([301, 200])
    feeds = [open_feed(shards, Team(r, workers, workers, CPU), 48) for r in range(workers)]
    found = [labels(feed, 1) for feed in feeds]
    sizes = [[len(batch) for batch in mine] for mine in found]
    assert all(s == sizes[0] for s in sizes)
    seen = np.concatenate([b for mine in found for b in mine])
    assert len(np.unique(seen)) == len(seen) == 501 // workers * workers


def test_rows_left_out_of_one_epoch_come_in_another(open_feed) -> None:
    feeds = [open_feed(shards_of([31]), Team(r, 2, 2, CPU), 8) for r in range(2)]
    seen = {float(v) for e in range(1, 30) for f in feeds for b in labels(f, e) for v in b}
    assert len(seen) == 31


def test_a_worker_without_rows_has_no_batches() -> None:
    feed = open_batches(shards_of([1]), Team(0, 2, 2, CPU), 8, 0, None)
    assert feed.rows == 0
