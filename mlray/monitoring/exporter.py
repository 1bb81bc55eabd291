"""Hands a replica's counts on: to Ray's metrics, where Prometheus finds them, and to its log.

One thread per exporter, in the replica's process. Every `flush_s` it takes the counts since the
last flush, adds them to Ray's counters (Ray's agent on the node keeps and exports the sums, so they
outlive the replica) and appends them to the replica's file of the day (`windows.Log`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np

from mlray.monitoring import series, windows
from mlray.monitoring.counters import Counts, Integers
from mlray.stats.bins import Reference, shares

_log = logging.getLogger(__name__)
_REFERENCE_S = 5.0  # Ray's report interval is 10 s unless configured
_PAUSE_S = 0.0005  # after each feature, so that requests go first: all series take milliseconds
_BIN = ("model", "version", "feature", "bin")


class Exporter:
    """Counts of one version on one replica, exported until `stop`.

    `replica` names the process: no two live processes may share it. `start` makes the reference
    visible and begins to flush; `stop` flushes once more. A flush that cannot write its file keeps
    the counts, says so in the log and in `ray_mlray_flush_errors_total`, and tries again.

    `important` features are exported first where not all series fit `limit`, see `series`.
    """

    def __init__(
        self,
        counts: Counts,
        reference: Reference,
        *,
        model: str,
        version: str,
        replica: str,
        home: str,
        flush_s: float = 5.0,
        limit: int = series.SERIES,
        important: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._counts, self._reference, self._flush_s, self._clock = (
            counts,
            reference,
            flush_s,
            clock,
        )
        self._tags = {"model": model, "version": version}
        self._series = series.exported(reference.features, limit=limit, important=important)
        self._file = windows.Log(home, model, version, replica, reference.features)
        self._unwritten = [np.zeros(len(f.labels), np.int64) for f in reference.features]
        self._flushed_at = clock()
        self._flushing = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlray-flush", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and flush what is left; may be called twice."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Hand on what was counted since the last flush. Raises nothing: serving goes on."""
        with self._flushing:
            taken = self._counts.take()
            for kept, new in zip(self._unwritten, taken, strict=True):
                kept += new
            self._attempt("write", self._write)
            self._attempt("export", lambda: self._export(taken))

    def _run(self) -> None:
        flush_at = time.monotonic() + self._flush_s
        self._attempt("export the reference", self._export_reference)
        while not self._stopping.wait(min(self._flush_s, _REFERENCE_S)):
            self._attempt("export the reference", self._export_reference)
            if time.monotonic() >= flush_at:
                flush_at += self._flush_s
                self.flush()

    def _attempt(self, what: str, act: Callable[[], None]) -> None:
        """Do it, or say that it failed: no store and no metrics agent may end the thread."""
        try:
            act()
        except Exception as error:
            _metrics()["flush_errors"].inc(1, self._tags)
            _log.warning("%s %s: cannot %s counts: %s", *self._tags.values(), what, error)

    def _write(self) -> None:
        """Append what is not on the disk yet; it stays in memory if that fails."""
        since, now = self._flushed_at, self._clock()
        if self._unwritten[-1].any():
            self._file.append(self._unwritten, since, now)
            for kept in self._unwritten:
                kept[:] = 0
        self._flushed_at = now

    def _export(self, taken: Sequence[Integers]) -> None:
        if not taken[-1].any():
            return
        metrics = _metrics()
        metrics["predictions"].inc(int(taken[-1].sum()), self._tags)
        for one in self._series:
            rows = one.rows(taken[one.place]).tolist()
            self._add(metrics["feature_rows"], one, rows)
            self._add(metrics["feature_rows_le"], one, accumulate(rows[: one.ordered]))
            time.sleep(_PAUSE_S)

    def _add(self, counter: Any, one: series.Series, rows: Any) -> None:
        for name, number in zip(one.bins, rows, strict=False):
            if number:  # Ray refuses an increment by zero
                counter.inc(number, {**self._tags, "feature": one.feature, "bin": name})

    def _export_reference(self) -> None:
        """Set again and again: Ray forgets a gauge that was not set for two report intervals."""
        metrics = _metrics()
        left_out = len(self._reference.features) - len(self._series)
        metrics["features_left_out"].set(left_out, self._tags)
        for one in self._series:
            rows = one.rows(self._reference.counts[one.place])
            feature = {**self._tags, "feature": one.feature}
            metrics["reference_rows"].set(int(rows.sum()), feature)
            finite = rows[: one.ordered]
            shares_le = (finite.cumsum() / max(1, finite.sum())).tolist()
            for name, values, share in zip(
                one.bins, one.values, shares(rows).tolist(), strict=True
            ):
                tags = {**feature, "bin": name, "values": values}
                metrics["reference_share"].set(share, tags)
            for name, share in zip(one.bins, shares_le, strict=False):
                metrics["reference_share_le"].set(share, {**feature, "bin": name})
            time.sleep(_PAUSE_S)


@cache
def _metrics() -> dict[str, Any]:
    """Ray's metric objects, one set a process; Ray puts `ray_` before their names."""
    from ray.util.metrics import Counter, Gauge

    version, values = ("model", "version"), (*_BIN, "values")
    made = [
        Counter("mlray_feature_rows", "Served rows in a bin.", _BIN),
        Counter("mlray_feature_rows_le", "Served rows in this or a lower bin.", _BIN),
        Counter("mlray_predictions", "Served rows.", version),
        Counter("mlray_flush_errors", "Flushes whose file could not be written.", version),
        Gauge("mlray_reference_share", "Share of training rows in a bin.", values),
        Gauge("mlray_reference_share_le", "Share of finite values, this or a lower bin.", _BIN),
        Gauge("mlray_reference_rows", "Rows of the reference.", _BIN[:3]),
        Gauge("mlray_features_left_out", "Features without series: too many.", version),
    ]
    return {metric.info["name"].removeprefix("mlray_"): metric for metric in made}
