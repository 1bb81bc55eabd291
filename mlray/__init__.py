"""mlray: one project file in, one monitored model out.

    import mlray

    project = mlray.load("configs/flights.yaml", "training.budget=2 epochs")
    run = mlray.run(project)
    with mlray.serve(project) as service:
        service.predict([{"carrier": "UA", "origin": "EWR"}])

Importing this starts nothing and loads none of Ray, torch and MLflow; a name is loaded when it is
first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlray.cluster import connected
    from mlray.config import Project
    from mlray.errors import MlrayError
    from mlray.pipeline import Run
    from mlray.registry import Version
    from mlray.serving import Service
    from mlray.verbs import (
        check,
        doctor,
        explain,
        lineage,
        load,
        monitor,
        predict,
        promote,
        quarantined,
        resubmit,
        rollback,
        run,
        serve,
        tracking_uri,
        versions,
    )
    from mlray.watching import Watched

__version__ = "0.1.0"

_CLASSES = {
    "MlrayError": "errors",
    "Project": "config",
    "Run": "pipeline",
    "Service": "serving",
    "Version": "registry",
    "Watched": "watching",
    "connected": "cluster",
}

__all__ = [
    "MlrayError",
    "Project",
    "Run",
    "Service",
    "Version",
    "Watched",
    "check",
    "connected",
    "doctor",
    "explain",
    "lineage",
    "load",
    "monitor",
    "predict",
    "promote",
    "quarantined",
    "resubmit",
    "rollback",
    "run",
    "serve",
    "tracking_uri",
    "versions",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mlray' has no attribute {name!r}")
    return getattr(import_module(f"mlray.{_CLASSES.get(name, 'verbs')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
