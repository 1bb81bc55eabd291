"""`mlray check` shows what each step makes of a few real rows."""

from __future__ import annotations

from pathlib import Path

from mlray.config import load
from mlray.trial import try_out

PROJECT = """
name: speeds
sources:
  rows: {{path: {folder}/flights.csv, filter: y is not None, derive: {{late: y > 15}}}}
  rename: {{dist: distance}}
  derive: {{speed: {speed}}}
  filter: distance > 30
  select: [speed]
model: {{target: late}}
"""


def file_of(folder: Path, speed: str) -> Path:
    lines = "".join(f"{i},{1 + i % 5},{i % 30}\n" for i in range(300))
    (folder / "flights.csv").write_text(f"dist,air_time,y\n{lines}")
    file = folder / "project.yaml"
    file.write_text(PROJECT.format(folder=folder, speed=speed))
    return file


def test_a_check_shows_the_result_of_every_step(tmp_path: Path) -> None:
    found = {f.what: f for f in try_out(load(file_of(tmp_path, "distance / air_time")))}
    shown = found["steps"].saw.splitlines()
    assert shown[0].startswith("sources.rows.derive.late: y > 15 -> bool: False, False")
    assert "sources.rename.dist: distance -> int64: 0, 1, 2" in shown
    assert (
        "sources.derive.speed: distance / air_time -> double: 0.0, 0.5, 0.6666666666666666" in shown
    )
    assert "sources.filter: distance > 30 -> 269 of 300 rows" in shown
    assert shown[-1] == "sources.select: speed -> speed (double)"
    assert "learns from speed" in found["encoder"].saw


def test_a_check_names_the_place_of_a_mistake(tmp_path: Path) -> None:
    last = try_out(load(file_of(tmp_path, "distanc / air_time")))[-1]
    assert not last.ok
    assert "sources.derive.speed: `distanc / air_time`: there is no column `distanc`" in last.saw
    assert "did you mean `distance`?" in last.saw
