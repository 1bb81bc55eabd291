"""Who asks whom, what is taken, and what happens to a version that is bad."""

from __future__ import annotations

import time

import pytest

from mlray.errors import BundleError, TrackingError
from mlray.serving.following import Follower, Watcher
from mlray.serving.served import Champion

ONE, TWO, THREE = (Champion(str(n), f"/bundles/{n}") for n in (1, 2, 3))


class Registry:
    """A registry's answers, and how often it was asked."""

    def __init__(self, champion: Champion | None):
        self.champion, self.asked, self.away = champion, 0, False

    def __call__(self) -> Champion | None:
        self.asked += 1
        if self.away:
            raise TrackingError("the store does not answer")
        return self.champion


class Replica:
    """What a follower did."""

    def __init__(self, registry: Registry, bad: tuple[Champion, ...] = ()):
        self.taken: list[Champion] = []
        self.refused: list[tuple[Champion, str]] = []
        self.bad = bad
        self.follower = Follower(registry, self.take, self.refuse, 0.01, lambda: None)
        self.follower._current = ONE

    def take(self, champion: Champion) -> None:
        if champion in self.bad:
            raise BundleError("model.onnx was changed")
        self.taken.append(champion)

    def refuse(self, champion: Champion, error: Exception) -> None:
        self.refused.append((champion, str(error)))


def test_the_registry_is_asked_once_for_all_replicas() -> None:
    registry = Registry(ONE)
    watcher = Watcher(registry, every_s=60)
    assert [watcher.champion() for _ in range(5)] == [ONE] * 5
    assert registry.asked == 1


def test_a_registry_that_is_away_leaves_the_last_answer() -> None:
    registry = Registry(ONE)
    watcher = Watcher(registry, every_s=0)
    assert watcher.champion() == ONE
    registry.away = True
    assert watcher.champion() == ONE
    registry.away, registry.champion = False, TWO
    assert watcher.champion() == TWO


def test_no_champion_any_more_leaves_the_last_one() -> None:
    registry = Registry(ONE)
    watcher = Watcher(registry, every_s=0)
    watcher.champion()
    registry.champion = None
    assert watcher.champion() == ONE


def test_the_watcher_remembers_the_last_good_version() -> None:
    watcher = Watcher(Registry(TWO), every_s=0)
    assert watcher.good() is None
    watcher.took(ONE)
    assert watcher.good() == ONE


def test_another_champion_is_taken_once() -> None:
    registry = Registry(ONE)
    replica = Replica(registry)
    replica.follower.look()
    registry.champion = TWO
    replica.follower.look()
    replica.follower.look()
    assert replica.taken == [TWO]


def test_a_bad_version_is_refused_once_and_the_next_good_one_is_taken() -> None:
    registry = Registry(TWO)
    replica = Replica(registry, bad=(TWO,))
    replica.follower.look()
    replica.follower.look()
    assert replica.taken == []
    assert replica.refused == [(TWO, "model.onnx was changed")]
    registry.champion = THREE
    replica.follower.look()
    assert replica.taken == [THREE]


def test_a_refused_version_is_looked_at_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlray.serving.following.RETRY_S", 0.0)
    replica = Replica(Registry(TWO), bad=(TWO,))
    replica.follower.look()
    replica.bad = ()
    replica.follower.look()
    assert replica.taken == [TWO]


def test_the_thread_goes_on_when_the_watcher_is_away() -> None:
    registry = Registry(TWO)
    registry.away = True
    replica = Replica(registry)
    replica.follower.start(ONE)
    time.sleep(0.05)
    registry.away = False
    until = time.monotonic() + 5
    while not replica.taken and time.monotonic() < until:
        time.sleep(0.01)
    replica.follower.stop()
    assert replica.taken == [TWO]
