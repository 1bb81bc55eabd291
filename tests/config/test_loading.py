from __future__ import annotations

from pathlib import Path

import pytest

from mlray.config import explain_section, load, schema, whole_file
from mlray.errors import ConfigError

LEAST = "name: x\nsources: {rows: {path: a.csv}}\nmodel: {target: y}\n"


def write(folder: Path, text: str) -> Path:
    file = folder / "p.yaml"
    file.write_text(text)
    return file


def error(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), overrides)
    return str(caught.value)


def test_three_lines_are_a_project(tmp_path: Path) -> None:
    project = load(write(tmp_path, LEAST))
    assert project.sources.rows.path == str(tmp_path / "a.csv")
    assert project.split.by == "auto"
    assert project.document == {
        "name": "x",
        "sources": {"rows": {"path": "a.csv"}},
        "model": {"target": "y"},
    }


def test_five_mistakes_are_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    text = (
        "name: 3 bad\n"
        "sources:\n  rows: {path: a.csv, pth: q}\n  join: [{with: planes}]\n"
        "model: {task: binry}\n"
        "training:\n  epohcs: 3\n  budget: lots\n"
        "serving: {port: 99999}\n"
    )
    message = error(tmp_path, text)
    for expected in [
        "p.yaml:1:1: name:",
        "p.yaml:3:23: sources.rows.pth: unknown key; did you mean `path`?",
        "p.yaml:4:10: sources.join[0].on: missing; Key column or columns",
        "p.yaml:5:9: model.task: `auto`, `binary`, `multiclass` or `regression`, not 'binry'",
        "p.yaml:5:1: model.target: missing; Column to predict.",
        "p.yaml:7:3: training.epohcs: unknown key",
        "p.yaml:8:3: training.budget: a budget is an amount and a unit",
        "p.yaml:9:11: serving.port: input should be less than or equal to 65535, not 99999",
    ]:
        assert expected in message
    assert "8 mistakes" in message


def test_a_value_that_fits_no_type_of_a_union_is_one_mistake(tmp_path: Path) -> None:
    message = error(tmp_path, LEAST, "training.workers=two")
    assert "1 mistake\n" in message
    assert (
        "override `training.workers=two`: training.workers: a whole number or `auto`, not 'two'"
        in message
    )


def test_overrides_are_yaml_and_reach_any_depth(tmp_path: Path) -> None:
    project = load(write(tmp_path, LEAST), ["serving.replicas=[1, 4]", "training.budget=2 epochs"])
    assert project.serving.replicas == (1, 4)
    assert project.training.budget == "2 epochs"


def test_an_override_without_equals_is_refused(tmp_path: Path) -> None:
    assert "section.field=value" in error(tmp_path, LEAST, "training.workers")


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    assert "p.yaml:4:1: name: given twice, first at" in error(tmp_path, LEAST + "name: z\n")


def test_broken_yaml_names_line_and_column(tmp_path: Path) -> None:
    assert "p.yaml:1:12: not YAML" in error(tmp_path, "name: {a: b: c}")


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert "a project file is a mapping of sections" in error(tmp_path, "- a\n- b\n")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the project file.*nowhere\.yaml"):
        load(tmp_path / "nowhere.yaml")


def test_environment_values_are_filled_in_and_never_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_PORT", "hunter2")
    text = LEAST + "tracking: {uri: '${env:SECRET_PORT}'}\n"
    project = load(write(tmp_path, text))
    assert project.tracking.uri == "hunter2"
    assert "hunter2" not in str(project.document)
    assert "hunter2" not in whole_file(project, {})
    message = error(tmp_path, LEAST + "serving: {port: '${env:SECRET_PORT}'}\n")
    assert "hunter2" not in message
    assert "not ***" in message


def test_a_missing_environment_variable_is_named_with_its_place(tmp_path: Path) -> None:
    message = error(tmp_path, LEAST + "tracking: {uri: '${env:NO_SUCH_NAME}'}\n")
    assert "p.yaml:4:12: tracking.uri: environment variable NO_SUCH_NAME is not set" in message


def test_an_environment_default_is_used(tmp_path: Path) -> None:
    text = LEAST + "tracking: {uri: '${env:NO_SUCH_NAME:-http://x}'}\n"
    assert load(write(tmp_path, text)).tracking.uri == "http://x"


def test_every_field_of_every_section_is_explained() -> None:
    definitions = schema()["$defs"]
    silent = [
        f"{section}.{field}"
        for section, body in definitions.items()
        for field, told in body.get("properties", {}).items()
        if "description" not in told
    ]
    assert silent == []


def test_an_unknown_section_to_explain_names_the_known_ones() -> None:
    assert "epochs" in explain_section("training.budget")
    with pytest.raises(ConfigError, match="sources"):
        explain_section("trainig")


def test_the_whole_file_is_a_project_file_again(tmp_path: Path) -> None:
    project = load(write(tmp_path, LEAST), ["serving.replicas=[1, 4]"])
    text = whole_file(project, {"split.by": "there is no time column"})
    assert "# derived: there is no time column" in text
    again = load(write(tmp_path, text))
    assert again.model_dump() == project.model_dump()


def test_on_is_a_key_and_a_date_is_text(tmp_path: Path) -> None:
    text = (
        "name: x\nsources:\n  rows: {path: a.csv}\n  planes: {path: b.csv}\n"
        "  join: [{with: planes, on: tailnum}]\n"
        "model: {target: y}\nsplit: {by: time, column: t, validation: 2013-09-15}\n"
    )
    project = load(write(tmp_path, text))
    assert project.sources.join[0].on == "tailnum"
    assert project.split.validation == "2013-09-15"
