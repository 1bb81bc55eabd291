"""One worker's training rows as shuffled batches: from memory where they fit, else from disk.

In memory, every epoch is an exact random permutation. From disk, blocks of consecutive rows are
drawn in random order into a buffer and shuffled there. Either way every worker gets equally many
batches, and batches of one step are equally large on all workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mlray.training.shards import Rows, Shards
from mlray.training.team import Team

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""numeric float32 (n, F), category int32 (n, C), label (n,)."""

GATHERED_ROWS = 16_384
"""Rows copied at a time in memory: few large copies, of which batches are views."""
BLOCK_ROWS = 16_384
"""Consecutive rows read at a time from disk."""
BUFFER_BLOCKS = 32
"""Blocks that are shuffled together."""
GPU_FRAC = 0.4
"""Rows that take less than this share of a GPU's free memory are kept there."""


@dataclass(frozen=True)
class Batches:
    """What both kinds of feed share: where batches begin and end."""

    rows: int
    """Rows of an epoch on each worker: N // workers, so that all have the same."""
    bounds: npt.NDArray[np.int64]
    """Of batches in the shuffled rows, ascending from 0 to `rows`."""
    seed: int
    rank: int
    device: torch.device

    @property
    def steps(self) -> int:
        return len(self.bounds) - 1

    def epoch(self, number: int) -> Iterator[Batch]:
        """All batches of one epoch; the order depends on seed, epoch and rank alone."""
        raise NotImplementedError

    def _random(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, self.rank))


@dataclass(frozen=True)
class InMemory(Batches):
    """Rows as contiguous tensors, permuted exactly."""

    tensors: Batch

    def epoch(self, number: int) -> Iterator[Batch]:
        own = len(self.tensors[2])
        order = torch.from_numpy(self._random(number).permutation(own))
        order = order.to(self.tensors[2].device)
        for start, stop in self._gathers():
            gathered = [t.index_select(0, order[start:stop]) for t in self.tensors]
            inside = self.bounds[(self.bounds >= start) & (self.bounds <= stop)] - start
            for low, high in pairwise(inside.tolist()):
                yield _moved([t[low:high] for t in gathered], self.device)

    def _gathers(self) -> Iterator[tuple[int, int]]:
        """Stretches of whole batches of about `GATHERED_ROWS` rows."""
        per_batch = max(1, self.rows // self.steps)
        cuts = self.bounds[:: max(1, GATHERED_ROWS // per_batch)].tolist()
        if cuts[-1] != self.rows:
            cuts.append(self.rows)
        return iter(pairwise(cuts))


@dataclass(frozen=True)
class Streamed(Batches):
    """Rows that stay on disk: shard order is broken up by blocks and a buffer."""

    shards: Shards
    start: int
    stop: int

    def epoch(self, number: int) -> Iterator[Batch]:
        random = self._random(number)
        buffers = self._buffers(random)
        left: Rows | None = None
        for size in np.diff(self.bounds).tolist():
            while left is None or len(left) < size:
                more = next(buffers)
                left = more if left is None else Rows.concatenate([left, more])
            head = [torch.from_numpy(a[:size]) for a in left.arrays]
            yield _moved(head, self.device)
            left = Rows(*(a[size:] for a in left.arrays))

    def _buffers(self, random: np.random.Generator) -> Iterator[Rows]:
        firsts = random.permutation(np.arange(self.start, self.stop, BLOCK_ROWS))
        for chosen in np.array_split(firsts, -(-len(firsts) // BUFFER_BLOCKS)):
            blocks = [self.shards.slice(f, min(f + BLOCK_ROWS, self.stop)) for f in chosen.tolist()]
            buffer = Rows.concatenate(blocks)
            order = random.permutation(len(buffer))
            yield Rows(*(a[order] for a in buffer.arrays))


def open_batches(
    shards: Shards, team: Team, batch_size: int, seed: int, memory_bytes: int | None
) -> InMemory | Streamed:
    """This worker's batches, from memory if its rows take at most `memory_bytes`."""
    start, stop = team.share(len(shards))
    rows = len(shards) // team.size
    steps = max(1, -(-rows // max(1, batch_size // team.size)))
    bounds = np.arange(steps + 1, dtype=np.int64) * rows // steps
    if memory_bytes is None:
        memory_bytes = free_bytes() // 2 // team.local_size
    if (stop - start) * shards.bytes_per_row > memory_bytes:
        return Streamed(rows, bounds, seed, team.rank, team.device, shards, start, stop)
    # a copy: index_select over contiguous memory beats page faults over many small files
    tensors = [torch.from_numpy(np.array(a)) for a in shards.slice(start, stop).arrays]
    kept = _kept_on_device(tensors, team.device)
    return InMemory(rows, bounds, seed, team.rank, team.device, kept)


def _kept_on_device(tensors: list[torch.Tensor], device: torch.device) -> Batch:
    numeric, category, label = tensors
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if sum(t.nbytes for t in tensors) < GPU_FRAC * free:
            return numeric.to(device), category.to(device), label.to(device)
    return numeric, category, label


def _moved(tensors: list[torch.Tensor], device: torch.device) -> Batch:
    """On the device; from pinned memory, so that the copy runs beside the arithmetic."""
    numeric, category, label = tensors
    if device.type == "cpu" or numeric.device == device:
        return numeric, category, label
    on = [t if t.is_cuda else t.pin_memory().to(device, non_blocking=True) for t in tensors]
    return on[0], on[1], on[2]


def free_bytes() -> int:
    """Memory that could be used on this node, container limits respected (Linux)."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():  # elsewhere: all there is, of which the caller takes half
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    most, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if most.is_file() and used.is_file() and (limit := most.read_text().strip()) != "max":
        return max(0, min(free, int(limit) - int(used.read_text())))
    return free
