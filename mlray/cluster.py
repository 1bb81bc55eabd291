"""The connection to Ray: join a cluster by address, or start one here and end it again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlray.config import Project, size_bytes
from mlray.errors import MlrayError

_CLUSTER_SETTINGS = {
    "RAY_worker_niceness": "0",  # Ray's 15 starves training on a machine that does other things
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # 2 s of every fit would be waiting
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in user code keep their meaning
}
_LIMIT = "MLRAY_WORKER_MEMORY"


class ClusterError(MlrayError):
    """Ray could not be reached or started."""


@contextmanager
def connected(project: Project, *, dashboard: bool = False) -> Iterator[str]:
    """A connection to the project's Ray cluster; yields its dashboard address or "".

    A cluster that is already connected is used and left as it is. One that is started here is
    ended when the block ends.
    """
    import ray

    if ray.is_initialized():
        _set_up_data()
        yield _dashboard_url()
        return
    connect(project, dashboard=dashboard)
    try:
        yield _dashboard_url()
    finally:
        ray.shutdown()


def connect(project: Project, *, dashboard: bool = False) -> None:
    """Connect this process to Ray: `cluster.address`, $RAY_ADDRESS, else a cluster started here."""
    for name, value in _CLUSTER_SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    wanted = project.cluster
    address = wanted.address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {
        "runtime_env": _worker_environment(project),
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if not address or address == "local":
        options |= {"address": "local", "include_dashboard": dashboard}
        options |= {"num_cpus": wanted.cpus} if wanted.cpus else {}
        if wanted.object_store:
            options["object_store_memory"] = size_bytes(wanted.object_store)
    else:
        options |= {"address": address, "namespace": "mlray"}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(
            f"no Ray cluster ({str(error).splitlines()[0]})",
            value=address or "a cluster of its own",
            do="check cluster.address or RAY_ADDRESS; `mlray doctor` looks closer",
        ) from error
    _set_up_data()


def _worker_environment(project: Project) -> dict[str, Any]:
    variables = {"PYTHONPATH": _python_path(project)}
    limit = project.cluster.worker_memory
    if limit is None:
        return {"env_vars": variables}
    return {
        "env_vars": {**variables, _LIMIT: str(size_bytes(limit))},
        "worker_process_setup_hook": "mlray.cluster.limit_memory",
    }


def limit_memory() -> None:
    """Bound what this process may allocate, shared memory aside. Runs in each worker's start."""
    import resource

    limit = int(os.environ[_LIMIT])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def owns_cluster() -> bool:
    """Whether this process started the cluster it is connected to, which ends with it."""
    import ray

    node = ray._private.worker._global_node
    return node is not None and bool(node.head)


def _set_up_data() -> None:
    """How Ray Data works for this process: quietly, in order, and with plain errors."""
    import logging

    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True  # same rows in the same order on every run
    context.raise_original_map_exception = True
    context.use_datasource_v2 = False  # 32 actors for every read; sources turn it on where it pays


def _python_path(project: Project) -> str:
    """Workers find the user's modules where the driver does: beside the project file."""
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([project.folder, *filter(None, known)]))


def connect_once(project: Project, *, dashboard: bool = False) -> None:
    """Connect unless this process is connected already; the caller, or its end, disconnects."""
    import ray

    if not ray.is_initialized():
        connect(project, dashboard=dashboard)


def _dashboard_url() -> str:
    import ray

    url = getattr(ray._private.worker.global_worker.node, "webui_url", None)
    return f"http://{url}" if url else ""
