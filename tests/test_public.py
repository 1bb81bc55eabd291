"""The public surface, frozen: names, verbs, sections, and what importing costs."""

from __future__ import annotations

import subprocess
import sys

import mlray
from mlray.config import Project


def test_the_public_names_are_these() -> None:
    assert sorted(mlray.__all__) == [
        "MlrayError", "Project", "Run", "Service", "Version", "Watched", "check", "connected",
        "doctor", "explain", "lineage", "load", "monitor", "predict", "promote",
        "quarantined", "resubmit", "rollback", "run", "serve",
        "tracking_uri", "versions",
    ]  # fmt: skip
    for name in mlray.__all__:
        assert getattr(mlray, name) is not None


def test_the_sections_of_a_project_file_are_these() -> None:
    assert list(Project.model_fields) == [
        "name", "sources", "quality", "split", "model", "training", "evaluation", "registry",
        "tracking", "prediction", "serving", "monitoring", "storage", "cluster",
    ]  # fmt: skip


def test_importing_mlray_or_its_command_line_loads_nothing_heavy() -> None:
    heavy = ("ray", "torch", "mlflow", "pandas", "polars", "pyarrow", "onnxruntime", "matplotlib")
    code = f"import sys, mlray, mlray.cli; print([m for m in {heavy} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_no_module_hides_a_verb() -> None:
    """`import mlray.x` makes `mlray.x` the module: no verb may be called like a module."""
    from pathlib import Path

    modules = {p.stem for p in Path(mlray.__file__).parent.iterdir()}
    assert not modules & set(mlray.__all__)
