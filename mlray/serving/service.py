"""Starting and stopping a service, and asking it."""

from __future__ import annotations

import functools
import logging
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from mlray import storage
from mlray.cluster import owns_cluster
from mlray.config import Project, duration_s, load
from mlray.errors import BundleError, InputError, ServingError
from mlray.serving.app import REPLICA_CPUS, Settings, build, start_watcher, stop_watcher
from mlray.serving.asgi import Limits
from mlray.serving.listener import check_port
from mlray.serving.served import Champion, Served
from mlray.sources.personal import keys_of

ANSWER_S = 30.0
START_S = 120.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Service:
    """A running service: `url`, `predict`, `version`, `stop`; ends with a `with` block too."""

    def __init__(self, name: str, url: str, *, started_serve: bool = False):
        self.name, self.url, self._started_serve = name, url, started_serve
        self._after: Callable[[], None] | None = None

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def welcome(self) -> str:
        """Where it answers and how to ask it, for people."""
        return (
            f"{self.name} version {self.version} answers at {self.url}\n"
            f"  pages       {self.url}/docs\n"
            f"  predict     POST {self.url}/v1/models/{self.name}/predict\n"
            f"  health      {self.url}/health/ready\n"
            "Ctrl-C ends it"
        )

    def wait(self) -> None:
        """Return when the process is asked to end: Ctrl-C, or SIGTERM as from a supervisor.

        Must be called from the main thread.
        """
        asked = threading.Event()
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, lambda *_: asked.set()) for number in signals]
        asked.wait()
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)

    def after_stop(self, then: Callable[[], None]) -> None:
        """What else ends with the service, such as the cluster that was started for it."""
        self._after = then

    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One prediction per row, over HTTP like anybody else's.

        Raises:
            InputError: the service refused the rows; the message names the columns.
            ServingError: the service did not answer.
        """
        body = orjson.dumps({"rows": rows})
        answer = self._asked(f"/v1/models/{self.name}/predict", body)
        predictions: list[dict[str, Any]] = answer["predictions"]
        return predictions

    @property
    def version(self) -> str:
        """Version that answers now."""
        return str(self._asked("/health/ready")["version"])

    def stop(self) -> None:
        """Answer what is under way, then end; Serve itself too, if it was started for this.

        May be called twice.
        """
        try:
            self._end()
        finally:
            then, self._after = self._after, None
            if then is not None:
                then()

    def _end(self) -> None:
        from ray import serve

        if (running := _running()) is None:
            return
        if application_name(self.name) in running:
            serve.delete(application_name(self.name))
        stop_watcher(self.name)
        # Serve's controller dies with a cluster of our own anyway, and more quietly than by itself.
        if self._started_serve and not owns_cluster() and not serve.status().applications:
            serve.shutdown()

    def _asked(self, path: str, body: bytes | None = None) -> Any:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                return orjson.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise _told(error.code, error.read()) from None
        except OSError as error:
            raise ServingError(
                f"the service did not answer ({error})",
                value=self.url,
                do="`mlray doctor`; the replica's log is in Ray's session folder under logs/serve",
            ) from None


def _told(status: int, body: bytes) -> InputError | ServingError:
    """The problem document of an answer as an error."""
    try:
        problem = orjson.loads(body)
        what = f"{problem['title']}. {problem['detail']}"
    except (orjson.JSONDecodeError, KeyError, TypeError):
        what = "the answer is no problem document: something else listens on that port"
    kind = InputError if 400 <= status < 500 else ServingError
    return kind(f"{what} (HTTP {status})")


def application_name(name: str) -> str:
    """What Ray's dashboard shows.

    >>> application_name("flights")
    'mlray-flights'
    """
    return f"mlray-{name}"


def serve(project: Project, home: str, *, monitored: bool = True) -> Service:
    """Serve the project's champion, on the Ray cluster this process is connected to.

    Serving the same project again replaces its replicas without a gap. Any other user of the port
    is refused before anything starts.

    Args:
        project: its `serving`, `monitoring` and `tracking` sections count here.
        home: storage folder of the project; the counts of served traffic go there.
        monitored: count served rows for drift.

    Raises:
        ServingError: the port is in use, there is no champion, or the replicas did not start.
        BundleError: the champion's bundle is damaged.
    """
    settings = _settings(project, home, monitored)
    return start(settings)


def application(arguments: Mapping[str, Any]) -> Any:
    """The Serve application of a project file, for Serve's config files and KubeRay.

    Args:
        arguments: `project`, path of the file; `overrides`, a list of section.field=value texts.
    """
    project = load(arguments["project"], arguments.get("overrides", ()))
    settings = _settings(project, storage.home(project.storage.path), monitored=True)
    start_watcher(settings)
    return build(settings)


def _settings(project: Project, home: str, monitored: bool) -> Settings:
    serving = project.serving
    return Settings(
        name=project.name,
        ask=functools.partial(registry_champion, project, home),
        home=home,
        folder=project.folder,
        host=serving.host,
        port=serving.port,
        replicas=serving.replicas,
        limits=Limits(serving.max_body_bytes, serving.max_rows),
        follow_s=duration_s(serving.follow),
        flush_s=duration_s(project.monitoring.flush),
        monitored=monitored,
        node=_this_node() if serving.host in _LOOPBACK else None,
        keys=keys_of(project),
    )


def _this_node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def registry_champion(project: Project, home: str) -> Champion | None:
    """Who is champion, by the model registry. Called in the watcher's process."""
    from mlray.registry import Registry

    registry = Registry.open(project, home)
    if (version := registry.champion(project.name)) is None:
        return None
    try:
        return Champion(str(version.number), registry.local_path(version))
    except BundleError as error:  # each replica is to refuse it and say why
        return Champion(str(version.number), version.source, error.what)


def start(settings: Settings) -> Service:
    """Start the service that `settings` describe; `serve` says what is raised."""
    from ray import serve as ray_serve

    name, running = application_name(settings.name), _running()
    if running is None or name not in running:
        check_port(settings.host, settings.port)
    _check_champion(settings)
    _check_room(settings)
    application = build(settings)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # its progress is not ours to show
    if running is None:
        quiet = {"enable_access_log": False, "log_level": "WARNING"}
        ray_serve.start(proxy_location="Disabled", logging_config=quiet)
    start_watcher(settings)
    try:
        handle = _run(application, name)
    except (RuntimeError, TimeoutError) as error:
        raise _not_started(settings, running is None) from error
    host = _ANY.get(settings.host, settings.host)
    if settings.host in _ANY:
        host = handle.address.remote().result(timeout_s=ANSWER_S)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{settings.port}"
    return Service(settings.name, url, started_serve=running is None)


def _run(application: Any, name: str) -> Any:
    """Deploy and wait until it answers; `serve.run` would wait without end."""
    from ray import serve as ray_serve

    target = ray_serve.RunTarget(application, name=name, route_prefix=None)
    (handle,) = ray_serve.run_many([target], wait_for_applications_running=False)
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        status = str(ray_serve.status().applications[name].status.value)
        if status == "RUNNING":
            return handle
        if status == "DEPLOY_FAILED":
            raise RuntimeError(status)
        time.sleep(0.1)
    raise TimeoutError(f"{name} is not ready after {START_S:g} s")


def _running() -> set[str] | None:
    """Names of Serve's applications; None if Serve does not run on this cluster."""
    import ray
    from ray import serve as ray_serve

    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return None
    return set(ray_serve.status().applications)


def _check_champion(settings: Settings) -> None:
    """A missing or damaged champion is told here, not from the log of a replica."""
    champion = settings.ask()
    if champion is None:
        raise ServingError(
            f"model `{settings.name}` has no champion to serve",
            do="train one: `mlray run FILE`; `mlray models` lists the versions",
        )
    Served.load(settings.name, champion, settings.folder, settings.keys)


def _check_room(settings: Settings) -> None:
    """Replicas that no node can hold would be waited for without end."""
    import ray

    replicas = settings.replicas
    least = replicas if isinstance(replicas, int) else replicas[0]
    cpus = float(ray.cluster_resources().get("CPU", 0))
    if least < 1 or least * REPLICA_CPUS > cpus:
        raise ServingError(
            "so many replicas cannot run on this cluster",
            value=least,
            allowed=f"1 to {int(cpus / REPLICA_CPUS)} on {cpus:g} CPUs",
            do="set serving.replicas",
        )


def _not_started(settings: Settings, started_serve: bool) -> ServingError:
    """The cause, which Serve keeps in its status; nothing half-started stays behind."""
    from ray import serve as ray_serve

    name = application_name(settings.name)
    status = ray_serve.status().applications.get(name)
    causes = [d.message for d in status.deployments.values() if d.message] if status else []
    ray_serve.delete(name)
    stop_watcher(settings.name)
    if started_serve:
        ray_serve.shutdown()
    lines = [line for cause in causes for line in cause.splitlines() if "Error" in line]
    return ServingError(
        "the service did not start",
        value=lines[-1].strip() if lines else "; ".join(causes)[:500] or None,
        do="see the replica's log in Ray's session folder under logs/serve",
    )
