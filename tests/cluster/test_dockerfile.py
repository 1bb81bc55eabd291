"""The Dockerfile, read instruction by instruction."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments), comments gone and continued lines joined."""
    lines = (ROOT / "cluster" / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n", " ", text)
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name.upper(), arguments) for name, arguments in pairs]


def arguments(name: str) -> list[str]:
    return [value for instruction, value in instructions() if instruction == name]


def test_every_instruction_is_one_that_docker_knows() -> None:
    known = {"FROM", "RUN", "ENV", "ARG", "WORKDIR", "COPY", "USER", "CMD"}
    assert {name for name, _ in instructions()} <= known


def test_the_base_is_pinned_to_the_python_of_the_package() -> None:
    (base,) = arguments("FROM")
    assert re.fullmatch(r"python:3\.11[\d.]*-slim-[a-z]+", base)


def test_the_last_user_is_not_root() -> None:
    user = arguments("USER")[-1]
    assert int(user.split(":")[0]) > 0
    last = max(i for i, (name, _) in enumerate(instructions()) if name == "USER")
    assert not [name for name, _ in instructions()[last:] if name in ("RUN", "COPY")]


def test_what_it_copies_exists_and_is_all_that_the_build_needs() -> None:
    sources = [path for value in arguments("COPY") for path in value.split()[:-1]]
    assert [path for path in sources if not (ROOT / path).exists()] == []
    assert {"requirements.lock", "pyproject.toml", "mlray", "configs"} <= set(sources)


def test_it_installs_the_lock_and_the_torch_of_the_lock() -> None:
    runs = " ".join(arguments("RUN"))
    assert "--requirement requirements.lock" in runs
    lock = (ROOT / "requirements.lock").read_text()
    assert re.search(r"^torch==\d", lock, re.M)
    assert "TORCH_INDEX=" in arguments("ARG")


def test_it_holds_no_secret() -> None:
    for name, value in instructions():
        if name in ("ENV", "ARG"):
            assert not re.search(r"token|secret|password|key", value, re.I)
