"""How far a run is within its budget, and the learning rate that follows from it."""

from __future__ import annotations

import math
import time

from mlray.config.fields import Budget
from mlray.training.team import Team

WARM_UP_FRAC = 0.05
"""Share of the budget in which the learning rate rises."""
FLOOR = 0.01
"""The learning rate never falls below this share of its peak."""
AGREE_STEPS = 32
"""So often a time budget is looked at; all workers then go by rank 0's clock."""


def factor(progress: float) -> float:
    """Share of the peak learning rate: linear warm-up, then a half cosine down to `FLOOR`.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.

    >>> [round(factor(p), 3) for p in (0.0, 0.025, 0.05, 0.525, 1.0)]
    [0.01, 0.5, 1.0, 0.5, 0.01]
    """
    if progress < WARM_UP_FRAC:
        return max(FLOOR, progress / WARM_UP_FRAC)
    gone = min(1.0, (progress - WARM_UP_FRAC) / (1 - WARM_UP_FRAC))
    return max(FLOOR, 0.5 * (1 + math.cos(math.pi * gone)))


class Schedule:
    """Progress through a budget: 0 at the start, 1 when it is used up."""

    def __init__(self, budget: Budget, steps: int, rows: int, team: Team, spent_s: float = 0.0):
        """`steps` and `rows` of one epoch over all workers; `spent_s` in earlier attempts."""
        self._team = team
        self._limit_s = budget.amount * 60 if budget.unit == "minutes" else None
        epochs = budget.amount / rows if budget.unit == "rows" else budget.amount
        self._total_steps = max(1, math.ceil(epochs * steps))
        self._began = time.monotonic() - spent_s
        self._timed = 0.0

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._began

    def progress(self, step: int) -> float:
        """Share of the budget used after `step` steps; a collective call on a time budget."""
        if self._limit_s is None:
            return step / self._total_steps
        if step % AGREE_STEPS == 0:
            self.look_at_clock()
        return self._timed

    def look_at_clock(self) -> None:
        if self._limit_s is not None:
            (self._timed,) = self._team.agree([self.spent_s / self._limit_s])

    def over(self, step: int) -> bool:
        return self.progress(step) >= 1.0
