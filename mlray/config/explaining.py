"""The project file explained: one section, the JSON schema, or a whole file with every value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mlray import secrets
from mlray.config.loading import known_keys, section_at
from mlray.config.rows import SOURCE_CLASSES, SourceBase, source_tag
from mlray.config.sections import Project
from mlray.errors import ConfigError

_WIDTH = 88


def explain_section(name: str) -> str:
    """Every field of a section with its type, default and explanation.

    Args:
        name: `training`, or dotted such as `sources.rows`, or a single field `training.budget`, or
            a kind of source: `sql`, `rest`, `kafka`, `delta`, `iceberg`, `images`.

    Raises:
        ConfigError: there is no such section.
    """
    place = tuple(name.split("."))
    section = _of_kind(name) or section_at(place)
    if section is None and len(place) > 1 and place[-1] in known_keys(place[:-1]):
        owner = section_at(place[:-1])
        assert owner is not None
        field = {f.alias or n: f for n, f in owner.model_fields.items()}[place[-1]]
        return _field_text(name, field)
    if section is None:
        known = ", ".join(known_keys(place[:-1]) or known_keys(()))
        raise ConfigError("the project file has no such section", value=name, allowed=known)
    lines = [f"{name}: {' '.join((section.__doc__ or '').split())}", ""]
    for field_name, field in section.model_fields.items():
        lines.append(_field_text(field.alias or field_name, field))
    return "\n".join(lines)


def _of_kind(name: str) -> type[BaseModel] | None:
    tag = source_tag({"kind": name})
    return None if tag == "files" else SOURCE_CLASSES[tag]


def schema() -> dict[str, Any]:
    """JSON schema of the project file; an editor completes and checks the YAML with it."""
    made = Project.model_json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "mlray project file"
    return made


def whole_file(project: Project, reasons: Mapping[str, str]) -> str:
    """The project file with every value written out, each under its explanation.

    Args:
        project: the project, derived values filled in.
        reasons: why a value was derived, by dotted field (`split.by`).
    """
    lines: list[str] = []
    for name, field in Project.model_fields.items():
        value = getattr(project, name)
        lines += ["", *_comment(field.description or "", 0)] if lines else []
        if isinstance(value, BaseModel):
            lines.append(f"{name}:")
            lines += _section_lines(value, name, reasons, project.document.get(name, {}))
        else:
            lines.append(f"{name}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _section_lines(
    section: BaseModel, path: str, reasons: Mapping[str, str], written: Mapping[str, Any]
) -> list[str]:
    lines: list[str] = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        key = field.alias or name
        lines += _comment(field.description or "", 2)
        if reason := reasons.get(f"{path}.{key}"):
            lines += _comment(f"derived: {reason}", 2)
        lines += [f"  {line}" for line in _value_lines(key, value, written.get(key))]
    for name, source in (section.__pydantic_extra__ or {}).items():
        lines += [f"  {line}" for line in _value_lines(name, source, written.get(name))]
    return lines


def _value_lines(key: str, value: Any, written: Any) -> list[str]:
    if secrets.named_in(str(written)):  # never the value itself: it may be a secret
        return [f"{key}: {_flow(written)}"]
    if isinstance(value, SourceBase):
        given = json.loads(value.model_dump_json(exclude_defaults=True))
        return [f"{key}:", *(f"  {k}: {_flow(v)}" for k, v in given.items())]
    return [f"{key}: {_flow(value)}"]


def _flow(value: Any) -> str:
    """A value as one line of YAML."""
    text: str = yaml.safe_dump(
        _plain(value), default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return json.loads(value.model_dump_json(by_alias=True, exclude_defaults=True))
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _field_text(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"default {_flow(field.get_default())}"
    if field.default_factory is not None or isinstance(field.default, BaseModel):
        default = "a section"
    body = "\n".join(_wrapped(field.description or "", "      "))
    return f"  {name}  ({default})\n{body}"


def _comment(text: str, indent: int) -> list[str]:
    return _wrapped(text, " " * indent + "# ")


def _wrapped(text: str, start: str) -> list[str]:
    import textwrap

    return textwrap.wrap(
        " ".join(text.split()), _WIDTH, initial_indent=start, subsequent_indent=start
    )
