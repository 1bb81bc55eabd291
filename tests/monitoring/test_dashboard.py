from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

GRAFANA = Path(__file__).parent.parent.parent / "cluster" / "grafana"
TEXT = (GRAFANA / "mlray.json").read_text()
PANELS = json.loads(TEXT)["panels"]


def test_panels_do_not_overlap_and_stay_on_the_grid() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


def test_panels_have_a_title_a_description_and_numbers_of_their_own() -> None:
    shown = [p for p in PANELS if p["type"] != "row"]
    assert all(p["title"] and p["description"] for p in shown)
    assert len({p["id"] for p in PANELS}) == len(PANELS)


def test_every_variable_that_a_query_uses_is_declared() -> None:
    declared = {v["name"] for v in json.loads(TEXT)["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", TEXT)) - {"__rate_interval", "__all"}
    assert used <= declared


def test_every_series_is_one_that_mlray_or_the_installed_ray_exports() -> None:
    rules = (GRAFANA.parent / "prometheus" / "rules.yml").read_text()
    package = "".join(p.read_text() for p in (GRAFANA.parent.parent / "mlray").rglob("*.py"))
    spec = find_spec("ray.serve")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    serve = Path(spec.submodule_search_locations[0], "_private", "deployment_state.py").read_text()
    names = set(re.findall(r"\bray_((?:mlray|serve)_\w+)", TEXT + rules))
    assert len(names) > 8
    for name in names - {"mlray_"}:
        assert f'"{name.removesuffix("_total")}"' in package + serve, name


@pytest.mark.parametrize("path", sorted(GRAFANA.rglob("*.yaml")), ids=lambda p: p.name)
def test_provisioning_parses(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["apiVersion"] == 1
