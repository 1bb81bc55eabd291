"""The launcher file of `ray up`, checked by Ray's own validator."""

from __future__ import annotations

import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "cluster" / "ray-up.yaml"


def launcher() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def on_own_machines() -> dict[str, Any]:
    """What a reader gets who follows the comment at the end of the file."""
    block = FILE.read_text().split("# --- machines you own")[1]
    lines = [line[2:] for line in block.splitlines()[2:] if line.startswith("# ")]
    own = yaml.safe_load(textwrap.dedent("\n".join(lines)))
    kept = {
        k: v for k, v in launcher().items() if k not in ("head_node_type", "available_node_types")
    }
    return {**kept, **own}


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    full: dict[str, Any] = prepare_config(config)
    validate_config(full)
    return full


def test_ray_accepts_the_file_for_aws() -> None:
    full = prepared(launcher())
    assert full["head_node_type"] in full["available_node_types"]
    workers = full["available_node_types"]["worker"]
    assert workers["max_workers"] <= full["max_workers"]


def test_ray_accepts_the_variant_for_machines_you_own() -> None:
    full = prepared(on_own_machines())
    assert full["provider"]["type"] == "local"
    assert full["max_workers"] == 2


def test_every_node_asks_for_the_token() -> None:
    config = launcher()
    assert any("RAY_AUTH_MODE=token" in option for option in config["docker"]["run_options"])
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert not any("0.0.0.0" in command for command in config["head_start_ray_commands"])


def test_the_image_has_the_ray_and_the_python_that_are_locked() -> None:
    image = launcher()["docker"]["image"]
    assert image.startswith(f"rayproject/ray:{version('ray')}-py311")


def test_what_setup_installs_is_in_the_repository() -> None:
    config = launcher()
    assert config["file_mounts"]["/home/ray/mlray"] == "."
    for command in config["setup_commands"]:
        path = command.split()[-1].replace("~/mlray", ".")
        assert (ROOT / path).exists(), command


def test_ray_start_takes_the_options_it_is_given() -> None:
    from ray.scripts.scripts import start

    options = {name for parameter in start.params for name in parameter.opts}
    config = launcher()
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        if command.startswith("ray start"):
            used = {word.split("=")[0] for word in command.split() if word.startswith("--")}
            assert used <= options
