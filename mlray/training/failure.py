"""What went wrong in workers, in words; and which of it is not worth another try."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlray import storage
from mlray.errors import MlrayError, TrainingError
from mlray.training.team import Team

_BUGS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
    ValueError,
    MlrayError,
)
"""Errors that the same code on the same rows gives again. Not RuntimeError: torch raises it when a
peer is lost."""


class Final:
    """An error that would only happen again, recorded for the workers of the next try.

    Ray Train tries again after any error. A worker that fails alone must raise, or its peers
    would wait for it for ever; then the next try finds the record and returns it at once.
    """

    def __init__(self, run_folder: str, attempt: str):
        self._path = storage.join(run_folder, f"failed-{attempt}.json")

    def read(self) -> TrainingError | None:
        if not Path(self._path).is_file():
            return None
        said = storage.read_json(self._path)
        return TrainingError(said["what"], **said["rest"])

    def record(self, error: Exception, team: Team) -> TrainingError:
        """The error to return; raises it where another try, or the peers, need that."""
        transient = isinstance(error, OSError)
        peers_fault = team.size > 1 and not isinstance(error, _BUGS)
        if transient or peers_fault:
            raise error
        known = explained(error)
        rest = {"value": known.value, "allowed": known.allowed, "do": known.do}
        said = json.loads(json.dumps({"what": known.what, "rest": rest}, default=str))
        storage.write_json(self._path, said)
        if team.size > 1:
            raise known
        return known


def explained(error: BaseException) -> TrainingError:
    """An error of a worker as one of ours, with the line it came from."""
    if isinstance(error, TrainingError):
        return error
    if isinstance(error, MlrayError):
        return TrainingError(error.what, value=error.value, allowed=error.allowed, do=error.do)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
    said = traceback.format_exception_only(error)[-1].strip()
    return TrainingError(f"a worker failed: {said}", value=where)


def cause(error: BaseException, max_failures: int) -> TrainingError:
    """The root of what Ray Train raised."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    if failures:
        return _of_workers(failures, max_failures)
    inner = getattr(error, "controller_failure", None)
    if inner is not None and "timed out" in str(inner):
        return TrainingError(
            "the workers did not start in time: other work holds the cluster's resources",
            value=_free(),
            do="wait until it ends, or set training.workers lower",
        )
    return explained(inner or error)


def _of_workers(failures: Mapping[int, BaseException], max_failures: int) -> TrainingError:
    roots = [root(e) for _, e in sorted(failures.items())]
    ours = next((r for r in roots if isinstance(r, MlrayError)), None)
    if ours is not None:
        return explained(ours)
    lost = [r for r in roots if _is_loss(r)]
    if lost:
        return TrainingError(
            f"workers were lost {max_failures + 1} times",
            value=_first_line(lost[0]),
            do="look for lack of memory on the nodes; raise training.max_failures or lower "
            "training.batch_size",
        )
    return explained(roots[0])


def root(error: BaseException) -> BaseException:
    """The worker's own exception inside Ray's wrapping."""
    for name in ("_base_exc", "cause", "health_check_failure"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return root(inner)
    return error


def _is_loss(error: BaseException) -> bool:
    return type(error).__module__.startswith("ray.")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def _free() -> str:
    import ray

    free: dict[str, Any] = ray.available_resources()
    return f"free are {free.get('CPU', 0):g} CPU, {free.get('GPU', 0):g} GPU"


def listed(resources: Mapping[str, float]) -> str:
    """
    >>> listed({"CPU": 1.0, "GPU": 1.0})
    '1 CPU and 1 GPU'
    """
    return " and ".join(f"{amount:g} {kind}" for kind, amount in resources.items())
