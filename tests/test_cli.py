"""The command line: verbs, help with examples, exit codes, errors without tracebacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlray.cli import app

VERBS = ["run", "check", "explain", "schema", "serve", "predict", "monitor", "models", "lineage",
         "doctor"]  # fmt: skip


def mlray(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlray", *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "MLRAY_HOME": str(home / "m")},
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_text_with_an_example(verb: str) -> None:
    told = CliRunner().invoke(app, [verb, "--help"])
    assert told.exit_code == 0
    assert "Usage" in told.output
    if verb != "models":
        assert "Example" in told.output


def test_help_names_every_verb() -> None:
    told = CliRunner().invoke(app, ["--help"])
    assert all(f"  {verb} " in told.output for verb in VERBS)
    assert "Exit codes: 0 done, 1 failed, 2 bad input, 3 refused" in " ".join(told.output.split())


def test_a_wrong_project_file_ends_with_2_and_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("name: x\nsources: {rows: {path: a.csv}}\nmodel: {targt: y}\n")
    told = mlray("run", str(file), home=tmp_path)
    assert told.returncode == 2
    assert "p.yaml:3:9: model.targt: unknown key; did you mean `target`?" in told.stderr
    assert "Traceback" not in told.stderr + told.stdout


def test_a_missing_source_ends_with_2_and_names_the_nearest_file(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("a,y\n1,0\n")
    file = tmp_path / "p.yaml"
    file.write_text("name: x\nsources: {rows: {path: cels.csv}}\nmodel: {target: y}\n")
    told = mlray("run", str(file), home=tmp_path)
    assert told.returncode == 2
    assert "cels.csv" in told.stderr
    assert "cells.csv" in told.stderr
    assert not (tmp_path / "m" / "stages").exists()


def test_schema_is_json_that_names_every_section(tmp_path: Path) -> None:
    import json

    told = CliRunner().invoke(app, ["schema"])
    assert set(json.loads(told.output)["properties"]) >= {"name", "sources", "model", "training"}


def test_doctor_says_what_it_saw(tmp_path: Path) -> None:
    told = mlray("doctor", home=tmp_path)
    for what in ("Python", "ray", "torch", "mlflow", "machine", "storage"):
        assert f"✓ {what}" in told.stdout
    assert told.returncode == 0


def test_doctor_finds_a_port_in_use_and_an_address_that_does_not_answer(tmp_path: Path) -> None:
    import socket

    (tmp_path / "a.csv").write_text("x,y\n1,0\n2,1\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = tmp_path / "p.yaml"
        file.write_text(
            "name: x\nsources: {rows: {path: a.csv}}\nmodel: {target: y}\n"
            f"serving: {{port: {port}}}\ntracking: {{uri: 'http://127.0.0.1:9'}}\n"
        )
        told = mlray("doctor", str(file), home=tmp_path)
    assert told.returncode == 1
    assert f"✗ serving: 127.0.0.1:{port}" in told.stdout
    assert "✗ MLflow: 127.0.0.1:9" in told.stdout


def test_models_of_an_empty_store_is_an_empty_table(tmp_path: Path) -> None:
    told = mlray("models", home=tmp_path)
    assert told.returncode == 0
    assert "version" in told.stdout


def test_monitor_of_an_unknown_model_says_what_to_do(tmp_path: Path) -> None:
    told = mlray("monitor", "nothing", home=tmp_path)
    assert told.returncode == 2
    assert "nothing has no champion" in told.stderr
