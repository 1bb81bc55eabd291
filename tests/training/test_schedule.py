from __future__ import annotations

import torch

from mlray.config.fields import Budget
from mlray.training.schedule import Schedule, factor
from mlray.training.team import Team

TEAM = Team(0, 1, 1, torch.device("cpu"))


def test_epochs_and_rows_count_steps() -> None:
    epochs = Schedule(Budget(2, "epochs"), steps=10, rows=1000, team=TEAM)
    assert [epochs.over(s) for s in (19, 20)] == [False, True]
    rows = Schedule(Budget(1500, "rows"), steps=10, rows=1000, team=TEAM)
    assert [rows.over(s) for s in (14, 15)] == [False, True]


def test_minutes_go_on_where_an_earlier_attempt_ended() -> None:
    schedule = Schedule(Budget(1, "minutes"), steps=10, rows=1000, team=TEAM, spent_s=59.0)
    assert 0.98 < schedule.progress(0) < 1.0
    assert not schedule.over(0)


def test_the_learning_rate_rises_then_falls() -> None:
    rates = [factor(i / 1000) for i in range(1001)]
    peak = rates.index(max(rates))
    assert rates[peak] == 1.0
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) > 0
