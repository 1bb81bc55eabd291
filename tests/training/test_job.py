from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

from mlray.training.job import TrainingJob

MakeJob = Callable[..., TrainingJob]


def test_the_key_changes_with_what_decides_the_weights_only(make_job: MakeJob) -> None:
    job = make_job()
    assert job.key == make_job(name="other", max_failures=9).key
    for change in ({"seed": 1}, {"budget": "4 epochs"}, {"options": {}}, {"workers": 2}):
        assert replace(job, **change).key != job.key, change
    assert make_job(rows=1500).key != job.key


def test_a_job_travels(make_job: MakeJob) -> None:
    job = make_job()
    assert pickle.loads(pickle.dumps(job)) == job
