"""Imports go down only; the tree in the README is the real one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mlray"
LAYERS = [
    {"errors", "secrets"},
    {"config", "storage", "usercode"},
    {"stats", "expressions"},
    {"sources", "cluster"},
    {"splits", "sinks", "quality", "models", "tracking"},
    {"derive", "training", "evaluation", "monitoring"},
    {"registry", "report"},
    {"serving", "prediction", "watching", "quarantine", "ancestry"},
    {"pipeline", "health"},
    {"trial"},
    {"verbs"},
    {"cli"},
    {"__init__", "__main__"},
]
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(file: Path) -> set[str]:
    """Rooms that a file imports from, at the top or inside functions."""
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "mlray":
            rooms |= {name.name for name in node.names if name.name in LAYER_OF}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlray."):
            rooms.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {n.name.split(".")[1] for n in node.names if n.name.startswith("mlray.")}
    return rooms


FILES = sorted(p for p in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(file: Path) -> None:
    room = room_of(file)
    assert room in LAYER_OF, f"{room} has no layer: give it one in tests/test_layers.py"
    upward = {r for r in imported_rooms(file) - {room} if LAYER_OF[r] >= LAYER_OF[room]}
    assert not upward, f"{file} imports {upward}, which are not below {room}"


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(file: Path) -> None:
    text = file.read_text()
    assert text.count("\n") <= 420
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{file}: {node.name} is too long"


def test_the_tree_in_the_readme_is_the_real_one() -> None:
    block = re.search(r"```text\nmlray/\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block is not None
    told = set(re.findall(r"^  (\S+?)/?(?:\s|$)", block[1], re.M))
    real = {p.name for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert told == real
