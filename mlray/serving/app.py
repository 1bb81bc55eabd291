"""The Serve application: replicas that follow the champion and answer on a port of their own."""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlray.errors import MlrayError, ServingError
from mlray.serving.asgi import Api, Limits, Refused
from mlray.serving.following import Ask, Follower, Watcher
from mlray.serving.listener import GRACE_S, Listener
from mlray.serving.served import Champion, Served

if TYPE_CHECKING:
    from mlray.monitoring.exporter import Exporter
    from mlray.sources.personal import Keys

log = logging.getLogger(__name__)

REPLICA_CPUS = 0.1
"""Small on purpose: on a laptop, retraining must find CPUs while the service runs."""
BUSY_TARGET_FRAC = 0.6
"""Share of a core that a replica's event loop may be busy before another replica is added."""
NAMESPACE = "mlray"
_FIRST_ANSWER_S = 60.0


@dataclass(frozen=True)
class Settings:
    """All that a replica needs to know; plain data, and `ask`, which a Ray actor calls.

    `home` is the storage folder, `folder` the project file's, `keys` are those of personal data;
    `node` pins replicas to one node, for a loopback address means the machine of whoever starts the
    service.
    """

    name: str
    ask: Ask
    home: str
    folder: str
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int | tuple[int, int] = 1
    limits: Limits = field(default_factory=Limits)
    follow_s: float = 5.0
    flush_s: float = 5.0
    monitored: bool = True
    node: str | None = None
    keys: Keys | None = None


def build(settings: Settings) -> Any:
    """The Serve application (for `serve.run`) of a service."""
    from ray import serve

    options: dict[str, Any] = {
        "name": settings.name,
        "ray_actor_options": _actor_options(settings.node),
        "graceful_shutdown_wait_loop_s": 0.1,
        "graceful_shutdown_timeout_s": GRACE_S + 5,
        "health_check_period_s": 2,
        "max_surge_percent": 100,  # a new replica listens before an old one stops
        "rolling_update_percentage": 1.0,
        "max_constructor_retry_count": 3,
    }
    return serve.deployment(Replica, **options, **_scale(settings.replicas)).bind(settings)


def start_watcher(settings: Settings) -> None:
    """One actor asks the registry for all replicas; it outlives this process, and its own crashes.

    Not a `deployment_actor` of Serve: with arguments that do not pickle to the same bytes each
    time, such as a project, Serve 2.60 waits for ever for the application to be ready.
    """
    import ray

    stop_watcher(settings.name)
    options = {"name": _watcher_name(settings.name), "namespace": NAMESPACE}
    ray.remote(Watcher).options(
        **options, lifetime="detached", num_cpus=0, max_restarts=-1, **_pinned(settings.node)
    ).remote(settings.ask, settings.follow_s / 2)


def stop_watcher(name: str) -> None:
    import ray

    try:
        watcher = ray.get_actor(_watcher_name(name), namespace=NAMESPACE)
    except ValueError:
        return  # there is none
    ray.kill(watcher)
    for _ in range(100):  # the name is free when Ray has noticed
        try:
            ray.get_actor(_watcher_name(name), namespace=NAMESPACE)
        except ValueError:
            return
        time.sleep(0.05)


def _watcher_name(name: str) -> str:
    return f"mlray-{name}-watcher"


def _pinned(node: str | None) -> dict[str, Any]:
    return {"label_selector": {"ray.io/node-id": node}} if node else {}


def _actor_options(node: str | None) -> dict[str, Any]:
    return {"num_cpus": REPLICA_CPUS, **_pinned(node)}


def _scale(replicas: int | tuple[int, int]) -> dict[str, Any]:
    if isinstance(replicas, int):
        return {"num_replicas": replicas}
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    least, most = replicas
    policy = AutoscalingPolicy(policy_function=wanted_replicas)
    config = AutoscalingConfig(
        min_replicas=least,
        max_replicas=most,
        upscale_delay_s=5,
        downscale_delay_s=60,
        look_back_period_s=15,
        policy=policy,
    )
    return {"autoscaling_config": config}


def wanted_replicas(context: Any) -> tuple[int, dict[str, Any]]:
    """Serve's autoscaling policy: as many replicas as keep each below `BUSY_TARGET_FRAC` of a core.

    Serve does not see the requests of a replica's own listener, so replicas report how busy they
    are: `replicas = ceil(sum of busy fractions / target)`, within the configured bounds.
    """
    busy = (context.aggregated_metrics or {}).get("busy_frac", {})
    wanted = int(np.ceil(sum(busy.values()) / BUSY_TARGET_FRAC)) if busy else 1
    least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return max(least, min(most, wanted)), {}


class Replica:
    """One process of the service. Constructed when Serve starts it; listens when it can answer."""

    def __init__(self, settings: Settings):
        from ray import serve

        self._settings = settings
        self._id = serve.get_replica_context().replica_id.unique_id
        self._api = Api(settings.name, settings.limits)
        self._exporter: Exporter | None = None
        self._busy = _Busy()
        current = self._first()
        self._listener = Listener(self._api, settings.host, settings.port)
        self._listener.start()
        self._follower = Follower(
            self._ask, self._take, self._refuse, settings.follow_s, self._export_requests
        )
        self._follower.start(current)

    def check_health(self) -> None:
        """Serve replaces this replica if it raises."""
        if not self._listener.alive:
            raise ServingError("the HTTP server of this replica has ended")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `wanted_replicas` looks at."""
        return {"busy_frac": self._busy.frac()}

    def address(self) -> str:
        """IP address of the node this replica runs on."""
        import ray

        return str(ray.util.get_node_ip_address())

    def __del__(self) -> None:
        # Serve calls this when the replica is stopped; the constructor may not have ended
        for part in ("_follower", "_listener", "_exporter"):
            if (running := getattr(self, part, None)) is not None:
                running.stop()
        if hasattr(self, "_follower"):
            self._export_requests()

    def _watcher(self) -> Any:
        import ray

        return ray.get_actor(_watcher_name(self._settings.name), namespace=NAMESPACE)

    def _ask(self) -> Champion | None:
        import ray

        champion: Champion | None = ray.get(self._watcher().champion.remote(), timeout=10)
        return champion

    def _first(self) -> Champion:
        """Take the champion; if it is bad, the last version that another replica took."""
        import ray

        watcher = self._watcher()
        asked = watcher.champion.remote()
        champion: Champion | None = ray.get(asked, timeout=_FIRST_ANSWER_S)
        if champion is None:
            raise ServingError(
                f"model `{self._settings.name}` has no champion", do="train one with `mlray run`"
            )
        try:
            self._take(champion)
        except MlrayError as error:
            good: Champion | None = ray.get(watcher.good.remote(), timeout=_FIRST_ANSWER_S)
            if good is None or good == champion:
                raise
            self._take(good)
            self._refuse(champion, error)
            return good
        return champion

    def _take(self, champion: Champion) -> None:
        settings = self._settings
        served = Served.load(settings.name, champion, settings.folder, settings.keys)
        exporter = self._monitor(served) if settings.monitored else None
        self._api.swap(served)
        before, self._exporter = self._exporter, exporter
        self._watcher().took.remote(champion)
        if before is not None:
            time.sleep(0.2)  # the last forward of the version before has been counted by then
            before.stop()
        log.info("serving %s version %s", settings.name, champion.version)

    def _monitor(self, served: Served) -> Exporter:
        from mlray.monitoring.counters import Counts
        from mlray.monitoring.exporter import Exporter

        settings, reference = self._settings, served.bundle.reference
        counts = Counts(reference)
        served.count = functools.partial(_add, counts)
        exporter = Exporter(
            counts,
            reference,
            model=settings.name,
            version=served.version,
            replica=self._id,
            home=settings.home,
            flush_s=settings.flush_s,
        )
        exporter.start()
        return exporter

    def _refuse(self, champion: Champion, error: Exception) -> None:
        """Say it three times: log, metric, /health/ready."""
        known = isinstance(error, MlrayError)
        reason = error.what if isinstance(error, MlrayError) else type(error).__name__
        self._api.refused = Refused(champion.version, reason)
        tags = {"model": self._settings.name, "version": champion.version}
        _metrics()["refused"].inc(1, tags)
        log.error(
            "version %s is refused, the one before goes on: %s",
            champion.version,
            error if known else reason,
        )

    def _export_requests(self) -> None:
        tally, model = self._api.tally.take(), {"model": self._settings.name}
        for (version, status), requests in tally.requests.items():
            tags = {**model, "version": version, "status": str(status)}
            _metrics()["requests"].inc(requests, tags)
        if tally.seconds > 0:
            _metrics()["seconds"].inc(tally.seconds, model)


def _add(counts: Any, predictions: Any) -> None:
    counts.add(predictions.numeric, predictions.category, predictions.scores)


class _Busy:
    """CPU seconds of this process per second of wall time, since the last question."""

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.monotonic()

    def frac(self) -> float:
        cpu_s, wall_s = time.process_time(), time.monotonic()
        busy = (cpu_s - self._cpu_s) / max(wall_s - self._wall_s, 1e-3)
        self._cpu_s, self._wall_s = cpu_s, wall_s
        return busy


@functools.cache
def _metrics() -> dict[str, Any]:
    """Ray's metric objects, one set a process; Ray puts `ray_` before their names."""
    from ray.util.metrics import Counter

    return {
        "requests": Counter(
            "mlray_requests", "Answered HTTP requests.", ("model", "version", "status")
        ),
        "seconds": Counter("mlray_request_seconds", "Time spent on requests.", ("model",)),
        "refused": Counter(
            "mlray_versions_refused", "Versions that failed verification.", ("model", "version")
        ),
    }
