"""The state of a run on disk: one folder per epoch, atomic, hashed, verified before it is used.

    RUN/checkpoints/00003/   network.safetensors  optimizer.pt  progress.json  SHA256SUMS
    RUN/best/00002/          weights.safetensors  validation.safetensors       SHA256SUMS
    RUN/epochs/00001.json    what the driver shows while the workers go on
    RUN/done.json            why and how the run ended

A checkpoint that is damaged is passed over for the one before it. Randomness needs no state: that
of an epoch follows from seed, epoch and rank (see `loop.py`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mlray import storage
from mlray.errors import TrainingError
from mlray.training.job import EpochReport

KEPT = 2
"""So many of the newest checkpoints stay: the last one, and one to step back to."""
SUMS = "SHA256SUMS"


@dataclass
class Progress:
    """Where a run stands at the end of an epoch.."""

    epoch: int = 0
    step: int = 0
    spent_s: float = 0.0
    best_epoch: int = 0
    best_metric: float = float("nan")
    stopped: str = ""
    """Why the run ended; empty while it goes on."""
    history: list[EpochReport] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "history": [r.to_dict() for r in self.history]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        history = [EpochReport.from_dict(r) for r in values["history"]]
        return cls(**{**values, "history": history})


@dataclass
class State:
    """All that a run goes on from."""

    network: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    progress: Progress


def save(run_folder: str, state: State) -> None:
    """Write the checkpoint of `state.progress.epoch`; older ones beyond `KEPT` are removed."""
    folder = _numbered(run_folder, "checkpoints", state.progress.epoch)
    with storage.new_folder(folder) as temporary:
        save_file(state.network, os.path.join(temporary, "network.safetensors"))
        torch.save(state.optimizer, os.path.join(temporary, "optimizer.pt"))
        storage.write_json(os.path.join(temporary, "progress.json"), state.progress.to_dict())
        write_sums(temporary)
    for old in storage.names(storage.join(run_folder, "checkpoints"))[:-KEPT]:
        storage.remove(storage.join(run_folder, "checkpoints", old))


def newest(run_folder: str) -> int:
    """Epoch of the newest checkpoint that is whole; 0 if there is none."""
    for name in reversed(storage.names(storage.join(run_folder, "checkpoints"))):
        if name.isdigit() and damage(storage.join(run_folder, "checkpoints", name)) is None:
            return int(name)
    return 0


def load(run_folder: str, epoch: int) -> State:
    """The checkpoint of an epoch that `newest` named."""
    folder = _numbered(run_folder, "checkpoints", epoch)
    return State(
        load_file(os.path.join(folder, "network.safetensors")),
        torch.load(os.path.join(folder, "optimizer.pt"), weights_only=True, map_location="cpu"),
        Progress.from_dict(storage.read_json(os.path.join(folder, "progress.json"))),
    )


def save_best(
    run_folder: str, epoch: int, weights: dict[str, torch.Tensor], validation: dict[str, Any]
) -> None:
    """Keep an epoch's weights and its validation logits and labels."""
    with storage.new_folder(best_folder(run_folder, epoch)) as temporary:
        save_file(weights, os.path.join(temporary, "weights.safetensors"))
        save_file(validation, os.path.join(temporary, "validation.safetensors"))
        write_sums(temporary)


def best_folder(run_folder: str, epoch: int) -> str:
    return _numbered(run_folder, "best", epoch)


def drop_all_but(run_folder: str, best_epoch: int) -> None:
    """Remove the weights of epochs that are the best no more."""
    for name in storage.names(storage.join(run_folder, "best")):
        if name != f"{best_epoch:05d}":
            storage.remove(storage.join(run_folder, "best", name))


def require_whole(folder: str) -> None:
    """
    Raises:
        TrainingError: a file of the folder is missing or is not what was written.
    """
    if (wrong := damage(folder)) is not None:
        raise TrainingError(
            f"trained weights are damaged ({wrong})",
            value=folder,
            do="remove the run's folder and train again; check the disk",
        )


def write_sums(folder: str) -> None:
    names = [n for n in storage.names(folder) if n != SUMS]
    lines = [f"{storage.sha256(os.path.join(folder, n))}  {n}\n" for n in names]
    storage.write_bytes(os.path.join(folder, SUMS), "".join(lines).encode())


def damage(folder: str) -> str | None:
    """What is wrong with a folder that `write_sums` described; None if nothing is."""
    sums = Path(folder, SUMS)
    if not sums.is_file():
        return f"no {SUMS}"
    for line in sums.read_text(errors="replace").splitlines():
        expected, _, name = line.partition("  ")
        file = Path(folder, name)
        if not file.is_file():
            return f"{name} is missing"
        if storage.sha256(str(file)) != expected:
            return f"{name} has another hash"
    return None


def publish(run_folder: str, report: EpochReport) -> None:
    """Let the driver see an epoch: its file appears at once and is the same when written again."""
    path = storage.join(run_folder, "epochs", f"{report.epoch:05d}.json")
    storage.write_json(path, report.to_dict())


def published(run_folder: str, epoch: int) -> EpochReport | None:
    """The report of an epoch, if it is there yet."""
    path = Path(run_folder, "epochs", f"{epoch:05d}.json")
    return EpochReport.from_dict(storage.read_json(str(path))) if path.is_file() else None


def _numbered(run_folder: str, kind: str, epoch: int) -> str:
    return storage.join(run_folder, kind, f"{epoch:05d}")
