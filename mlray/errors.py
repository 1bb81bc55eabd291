"""Every error a user can meet.

An error says four things: what happened, the value that caused it, what is allowed, and what to
do next. All of them pickle, so a cause survives the way from a Ray worker to the terminal.
"""

from __future__ import annotations

EXAMPLES = 5
"""At most so many example values stand in one message."""


class MlrayError(Exception):
    """Something a user can act on.

    `exit_code` is what the command line returns for it: 1 failed, 2 bad input, 3 refused by the
    gate or by quality.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, value: object = None, allowed: str | None = None, do: str | None = None
    ):
        super().__init__(what)
        self.what, self.value, self.allowed, self.do = what, value, allowed, do

    def __str__(self) -> str:
        parts = [self.what if self.value is None else f"{self.what}: {_shown(self.value)}"]
        if self.allowed:
            parts.append(f"Allowed: {self.allowed}")
        if self.do:
            parts.append(f"Do: {self.do}")
        return "\n  ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.value, self.allowed, self.do)


def _rebuild(
    kind: type[MlrayError], what: str, value: object, allowed: str | None, do: str | None
) -> MlrayError:
    return kind(what, value=value, allowed=allowed, do=do)


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        more = f" and {len(value) - EXAMPLES} more" if len(value) > EXAMPLES else ""
        return ", ".join(map(str, value[:EXAMPLES])) + more
    return str(value)


class ConfigError(MlrayError):
    """The project file is wrong; the message lists every mistake with its place."""

    exit_code = 2


class InputError(MlrayError):
    """A file, a table or a request is not what was declared."""

    exit_code = 2


class QualityError(MlrayError):
    """Too many rows broke a rule, or a rule that stops the run was broken."""

    exit_code = 3


class GateError(MlrayError):
    """The gate kept the champion: the candidate did not earn its place."""

    exit_code = 3


class BundleError(MlrayError):
    """A bundle is damaged, incomplete or not one of ours; nothing of it was loaded."""


class TrainingError(MlrayError):
    """Training ended without a usable model."""


class TrackingError(MlrayError):
    """The MLflow store or registry could not be reached or refused a call."""


class ServingError(MlrayError):
    """The service could not be started or did not answer."""


class StorageError(MlrayError):
    """A file could not be read or written."""
