"""The workers of one run, seen from one of them. Alone, nothing of torch.distributed is used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from mlray.errors import TrainingError


@dataclass(frozen=True)
class Team:
    """Rank and size of the group this process belongs to, and what they can do together."""

    rank: int
    size: int
    local_size: int
    """Workers on this node."""
    device: torch.device

    @classmethod
    def alone(cls, device: str = "auto") -> Team:
        """A team of one, in any process, without Ray Train."""
        return cls(0, 1, 1, choose_device(device))

    @classmethod
    def of_ray(cls) -> Team:
        """The Ray Train workers that this process is one of."""
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        return cls(
            context.get_world_rank(),
            context.get_world_size(),
            context.get_local_world_size(),
            ray.train.torch.get_device(),
        )

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, rows: int) -> tuple[int, int]:
        """First and last + 1 of this worker's rows: slices differ by one row at most.

        >>> Team(1, 3, 3, torch.device("cpu")).share(10)
        (3, 6)
        """
        return self.rank * rows // self.size, (self.rank + 1) * rows // self.size

    def wrap(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network on this worker's device; gradients are averaged over a team."""
        if self.size == 1:
            return network.to(self.device)
        from ray.train.torch import prepare_model

        wrapped: torch.nn.Module = prepare_model(
            network, parallel_strategy_kwargs={"gradient_as_bucket_view": True}
        )
        return wrapped

    def agree(self, values: Sequence[float]) -> list[float]:
        """Rank 0's numbers, on every rank."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return [float(v) for v in tensor.tolist()]

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums of numbers over all ranks, on every rank."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(v) for v in tensor.tolist()]

    def gather(self, slices: torch.Tensor, rows: int) -> torch.Tensor:
        """The whole (N, K) of every rank's slice, which `share(rows)` cut, on the CPU."""
        if self.size == 1:
            return slices.cpu()
        longest = -(-rows // self.size)
        padded = slices.new_zeros((longest, *slices.shape[1:]))
        padded[: len(slices)] = slices
        pieces = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(pieces, padded)
        lengths = [(r + 1) * rows // self.size - r * rows // self.size for r in range(self.size)]
        return torch.cat([p[:n] for p, n in zip(pieces, lengths, strict=True)]).cpu()


def choose_device(wanted: str) -> torch.device:
    """`auto` is cuda where there is one.

    Raises:
        TrainingError: cuda is wanted and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "no GPU here", value="device: cuda", allowed="cpu, auto", do="set training.device: auto"
        )
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def cores() -> int:
    """CPU cores that this process may use, container limits respected."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()[:2]
        if limit != "max":
            return max(1, min(allowed or 1, round(int(limit) / int(period))))
    return allowed or 1
