"""Commands that the files and their README tell people to type are commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("README.md", "Dockerfile", "ray-up.yaml", "kuberay/rayjob.yaml", "kuberay/rayservice.yaml")


def text(name: str) -> str:
    return (ROOT / "cluster" / name).read_text()


@pytest.mark.parametrize("name", OURS)
def test_verbs_of_mlray_exist(name: str) -> None:
    import typer

    from mlray.cli import app

    group = typer.main.get_command(app)
    verbs = set(getattr(group, "commands", {}))
    used = re.findall(r"(?:python -m mlray|`mlray) ([a-z]+)", text(name))
    assert set(used) <= verbs


@pytest.mark.parametrize("name", OURS)
def test_verbs_of_ray_exist(name: str) -> None:
    from ray.scripts.scripts import cli

    used = re.findall(r"(?:^|[`#]|- )\s*ray ([a-z][a-z-]+)(?= |`|$)", text(name), re.M)
    assert {verb for verb in used if verb != "start"} <= set(cli.commands) | {"version"}


@pytest.mark.parametrize("name", OURS)
def test_files_that_are_named_exist(name: str) -> None:
    named = re.findall(r"(?:cluster|configs)/[\w/.-]+\.\w+|cluster/Dockerfile", text(name))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readme_names_every_file_that_starts_something() -> None:
    for name in OURS[1:]:
        assert f"`{name}`" in text("README.md")
