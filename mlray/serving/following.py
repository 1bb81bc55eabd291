"""Following the champion: one watcher asks the registry, each replica asks the watcher.

A replica takes another version only when it has loaded, its sums are right, and its golden rows
give the stored predictions. Until then, and if not, the version before goes on answering.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from mlray.errors import MlrayError
from mlray.serving.served import Champion

log = logging.getLogger(__name__)

RETRY_S = 60.0
"""A refused version is looked at again after this time: its store may have been the reason."""

Ask = Callable[[], Champion | None]


class Watcher:
    """Runs as one Ray actor per service, so that N replicas cost the registry one question.

    Args:
        ask: who is champion, by the registry.
        every_s: the registry is not asked more often than this.
    """

    def __init__(self, ask: Ask, every_s: float):
        self._ask, self._every_s = ask, every_s
        self._champion: Champion | None = None
        self._good: Champion | None = None
        self._asked_at = float("-inf")

    def champion(self) -> Champion | None:
        """The champion by the last answer of the registry; its last one if it is away now."""
        now = time.monotonic()
        if now - self._asked_at >= self._every_s:
            try:
                self._champion, self._asked_at = self._ask() or self._champion, now
            except MlrayError as error:
                log.warning("the registry does not answer, the version stays: %s", error)
        return self._champion

    def good(self) -> Champion | None:
        """The last version that a replica took: what a new replica takes if the champion is bad."""
        return self._good

    def took(self, champion: Champion) -> None:
        """A replica says that `champion` is verified and answers."""
        self._good = champion


class Follower:
    """Runs in a thread of each replica.

    Args:
        ask: who is champion, by the watcher.
        take: load and verify a version, then answer with it; raises if it is bad.
        refuse: told of a version that was bad, and why.
        every_s: time between two questions.
        tick: called after each question, whatever came of it.
    """

    def __init__(
        self,
        ask: Ask,
        take: Callable[[Champion], None],
        refuse: Callable[[Champion, Exception], None],
        every_s: float,
        tick: Callable[[], None],
    ):
        self._ask, self._take, self._refuse = ask, take, refuse
        self._every_s, self._tick = every_s, tick
        self._current: Champion | None = None
        self._refused: Champion | None = None
        self._refused_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlray-follow", daemon=True)

    def start(self, current: Champion) -> None:
        self._current = current
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._every_s + 10)

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                self.look()
            except Exception as error:  # the watcher may be on its way back: ask again next time
                log.warning("cannot ask who is champion: %s", type(error).__name__)
            self._tick()

    def look(self) -> None:
        """Ask once, and follow if another version is champion."""
        champion = self._ask()
        if champion is None or champion == self._current or self._waits(champion):
            return
        try:
            self._take(champion)
        except Exception as error:
            # whatever a bad version raises, the one before goes on answering
            self._refused, self._refused_at = champion, time.monotonic()
            self._refuse(champion, error)
            return
        self._current, self._refused = champion, None

    def _waits(self, champion: Champion) -> bool:
        return champion == self._refused and time.monotonic() - self._refused_at < RETRY_S
