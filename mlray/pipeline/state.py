"""What is known of a run across restarts: who runs it, its MLflow run, how it ended.

runs/RUN/lock          held while a driver works on the run; a killed driver lets go of it
runs/RUN/run.json      MLflow run id, status, stage times
runs/RUN/report.html
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlray import storage
from mlray.errors import MlrayError


class RunningError(MlrayError):
    """Another driver works on the same run."""


@dataclass
class State:
    """What run.json holds."""

    run_id: str = ""
    """MLflow's; empty before the run was started there."""
    status: str = "new"
    """new, running, finished, failed."""
    attempts: int = 0
    stages: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str) -> State:
        path = storage.join(folder, "run.json")
        return cls(**storage.read_json(path)) if storage.exists(path) else cls()

    def write(self, folder: str) -> None:
        storage.write_json(storage.join(folder, "run.json"), asdict(self))


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Only one driver at a time works on a run.

    Raises:
        RunningError: another process holds the run.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder) / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunningError(
                "another process works on this very run",
                value=f"process {file.read().strip() or 'unknown'}, {folder}",
                do="wait until it is done, or end that process",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
