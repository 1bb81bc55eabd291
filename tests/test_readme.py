"""What the README says is so: its commands, its Python code, its figures, its table."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlray.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_first_command_stands_early() -> None:
    first = next(i for i, line in enumerate(README.splitlines(), 1) if line.startswith("make "))
    assert first < 20


def test_every_make_target_it_names_exists() -> None:
    named = set(re.findall(r"^make ([\w-]+)", README, re.M))
    named |= set(re.findall(r"`make ([\w-]+)", README))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert named
    assert named <= targets


def test_every_verb_it_names_exists() -> None:
    verbs = set(re.findall(r"^mlray (\w+)", README, re.M))
    assert len(verbs) == 11
    for verb in verbs:
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0, verb


def test_every_dependency_has_its_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    table = README.split("## Dependencies")[1]
    for requirement in project["dependencies"]:
        name = re.split(r"[\[<>=]", requirement)[0]
        assert re.search(rf"\b{name}\b", table), f"{name} is not in the README's table"


def results() -> dict[str, float]:
    files = (ROOT / "benchmarks" / "results").glob("*.json")
    claims = [claim for file in files for claim in json.loads(file.read_text())["claims"]]
    return {claim["claim"]: claim["value"] for claim in claims}


def test_every_figure_is_one_of_the_benchmarks() -> None:
    """A figure in the table of measurements stands, so rounded, in benchmarks/results."""
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \|", README.split("## Measured")[1], re.M)
    assert len(rows) > 10
    found = results()
    for name, shown in rows:
        digits = len(shown.partition(".")[2])
        assert f"{found[name]:.{digits}f}" == shown, f"{name}: {found[name]} is shown as {shown}"


def test_every_score_of_a_model_is_one_of_the_benchmarks() -> None:
    rows = re.findall(r"^\| ([a-z][\w -]+(?:AUC|accuracy)) \| (.+) \|$", README, re.M)
    assert len(rows) == 5
    found, models = results(), re.findall(r"^\| \| (mlray .+) \|$", README, re.M)[0].split(" | ")
    for name, cells in rows:
        for model, shown in zip(models, cells.split(" | "), strict=True):
            value = found[f"{name}, {model}".replace(" ", "_")]
            assert f"{value:.4f}" == shown, f"{name}, {model}: {value} is shown as {shown}"


@pytest.mark.usefixtures("ray_cluster")
def test_the_python_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the small project, so that it is done in seconds."""
    code = re.search(r"```python\n(.*?)```", README, re.S)
    assert code is not None
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MLRAY_HOME", str(tmp_path))
    text = code[1].replace("configs/flights.yaml", "configs/diagnosis.yaml")
    port = '"training.budget=2 epochs", "serving.port=8765"'
    text = text.replace('"training.budget=2 epochs"', port)
    exec(compile(text, "README.md", "exec"), {})
