"""From YAML text to a `Project`: positions, overrides, secrets filled in, all mistakes at once."""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from mlray import secrets
from mlray.config.rows import SOURCE_CLASSES, Sources, source_tag
from mlray.config.sections import Project, with_sections
from mlray.errors import ConfigError

Location = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: `on` and `no` are words and not booleans, a date stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"}
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


@dataclass(frozen=True)
class Mark:
    """Where a value stands: `file:line:column`, or the override that gave it."""

    text: str

    def __str__(self) -> str:
        return self.text


def load(file: str | Path, overrides: Iterable[str] = ()) -> Project:
    """Read a project file.

    Args:
        file: path of the YAML file.
        overrides: `section.field=value` texts; the value is read as YAML.

    Raises:
        ConfigError: with every mistake in the file, each as `file:line:column: field: what`.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the project file ({error})", value=str(file), do="check the path"
        ) from error
    document, marks = _parse(text, str(file))
    for override in overrides:
        _apply(document, marks, override)
    raw = copy.deepcopy(document)
    problems: list[tuple[Mark, str]] = []
    secret = _fill_secrets(document, marks, problems, str(path.absolute().parent))
    project = _validate(document, marks, secret, problems, str(file))
    project._file = str(path.absolute())
    project._document = _recordable(raw, project)
    return _with_absolute_paths(project)


def _parse(text: str, name: str) -> tuple[dict[str, Any], dict[Location, Mark]]:
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        where = f"{name}:{at.line + 1}:{at.column + 1}" if at else name
        raise ConfigError(f"{where}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not YAML: {error}") from None
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            f"{name}: a project file is a mapping of sections",
            do="start with `name: ...`, `sources: ...`, `model: ...`",
        )
    marks: dict[Location, Mark] = {}
    repeated: list[str] = []
    _collect(node, (), name, marks, repeated)
    if repeated:
        raise ConfigError("\n".join(repeated))
    return yaml.load(text, Loader=_Loader), marks


def _collect(
    node: yaml.Node, at: Location, name: str, marks: dict[Location, Mark], repeated: list[str]
) -> None:
    marks.setdefault(at, Mark(f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*at, str(key.value))
            mark = Mark(f"{name}:{key.start_mark.line + 1}:{key.start_mark.column + 1}")
            if place in marks:
                repeated.append(f"{mark}: {_dotted(place)}: given twice, first at {marks[place]}")
            marks[place] = mark
            _collect(value, place, name, marks, repeated)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _collect(item, (*at, i), name, marks, repeated)


def _apply(document: dict[str, Any], marks: dict[Location, Mark], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            "an override is section.field=value", value=override, do="e.g. training.workers=2"
        )
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise ConfigError("the value of this override is not YAML", value=override) from None
    *parents, last = key.strip().split(".")
    spot = document
    for parent in parents:
        if not isinstance(spot.setdefault(parent, {}), dict):
            raise ConfigError("this override goes through a value, not a section", value=override)
        spot = spot[parent]
    spot[last] = value
    place: Location = (*parents, last)
    for old in [p for p in marks if p[: len(place)] == place]:
        del marks[old]
    for depth in range(1, len(place) + 1):
        marks.setdefault(place[:depth], Mark(f"override `{override}`"))


def _fill_secrets(
    document: Any, marks: dict[Location, Mark], problems: list[tuple[Mark, str]], folder: str
) -> set[Location]:
    """Fill in what ${env:NAME} and ${file:PATH} name, in place; returns where, since those values
    must never be printed."""
    places: set[Location] = set()

    def fill(value: Any, at: Location) -> Any:
        if isinstance(value, dict):
            return {k: fill(v, (*at, k)) for k, v in value.items()}
        if isinstance(value, list):
            return [fill(v, (*at, i)) for i, v in enumerate(value)]
        if isinstance(value, str) and secrets.named_in(value):
            places.add(at)
            text, missing = secrets.filled(value, folder)
            problems.extend((_mark(marks, at), f"{_dotted(at)}: {what}") for what in missing)
            return text
        return value

    for key in list(document):
        document[key] = fill(document[key], (key,))
    return places


def _recordable(written: Any, filled: Any) -> Any:
    """What the user wrote, with `***` for secrets that stand there in plain text.

    Args:
        written: the document, ${...} as it is.
        filled: the validated section, mapping or value that it became.
    """
    if isinstance(filled, SecretStr):
        return secrets.masked(str(written))
    if isinstance(written, dict):
        return {key: _recordable(value, _inside(filled, key)) for key, value in written.items()}
    if isinstance(written, list):
        return [_recordable(value, _inside(filled, i)) for i, value in enumerate(written)]
    return written


def _inside(filled: Any, step: str | int) -> Any:
    if isinstance(filled, BaseModel):
        names = {f.alias or n: n for n, f in type(filled).model_fields.items()}
        extra = filled.__pydantic_extra__ or {}
        return getattr(filled, names[str(step)]) if step in names else extra.get(str(step))
    return _child(filled, step)


def _validate(
    document: dict[str, Any],
    marks: dict[Location, Mark],
    secret: set[Location],
    problems: list[tuple[Mark, str]],
    name: str,
) -> Project:
    project = None
    try:
        project = Project.model_validate(document)
    except ValidationError as error:
        by_place: dict[Location, list[Any]] = {}
        for detail in error.errors(include_url=False):
            by_place.setdefault(_real_place(detail["loc"], marks), []).append(detail)
        for at, details in by_place.items():
            said = _sentence(details, at, at in secret, document)
            problems.append((_mark(marks, at), said))
    if project is None or problems:
        unique = dict.fromkeys(f"{mark}: {message}" for mark, message in problems)
        lines = sorted(unique, key=_line_order)
        head = f"{name}: {len(lines)} mistake{'s' if len(lines) > 1 else ''}"
        raise ConfigError("\n".join([head, *(f"  {line}" for line in lines)]))
    return project


def _real_place(loc: Sequence[str | int], marks: dict[Location, Mark]) -> Location:
    """Pydantic adds the tried types of a union to a place; keep only steps that are in the file."""
    place: Location = ()
    for i, step in enumerate(loc):
        if (*place, step) in marks or (i == len(loc) - 1 and _is_field(loc, step)):
            place = (*place, step)
    return place


def _is_field(loc: Sequence[str | int], step: str | int) -> bool:
    return (
        isinstance(step, str)
        and re.fullmatch(r"[a-z_]+", step) is not None
        and (step not in {"int", "float", "str", "bool", "list"} or len(loc) == 1)
    )


_TYPE_WORDS = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a section",
}


def _sentence(details: list[Any], at: Location, is_secret: bool, document: Any) -> str:
    """One sentence on what is wrong at a place; several details are the arms of a union."""
    first = details[0]
    if first["type"] == "extra_forbidden":
        known = known_keys(at[:-1], document)
        near = difflib.get_close_matches(str(at[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"allowed: {', '.join(known)}"
        return f"{_dotted(at)}: unknown key; {hint}"
    if first["type"] == "missing":
        return f"{_dotted(at)}: missing; {_explanation(at, document)}"
    shown = secrets.HIDDEN if is_secret else repr(first["input"])
    if isinstance(first["input"], dict):  # it may hold secrets
        shown = "a mapping"
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return f"{_dotted(at)}: {' or '.join(dict.fromkeys(map(_wanted, details)))}, not {shown}"


def _wanted(detail: Any) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "literal_error":
        return str(context["expected"]).replace("'", "`")
    if kind in _TYPE_WORDS:
        return _TYPE_WORDS[kind]
    return str(context.get("error", "")) or detail["msg"][:1].lower() + detail["msg"][1:]


def section_at(place: Location, document: Any = None) -> type[BaseModel] | None:
    """The class of the section at a place of the project file; of a source, by its kind there."""
    model: type[BaseModel] = Project
    for step in place:
        document = _child(document, step)
        if isinstance(step, int):
            continue
        fields = {f.alias or n: f for n, f in model.model_fields.items()}
        field = fields.get(step)
        if model is Sources and (field is None or step == "rows"):
            model = SOURCE_CLASSES[source_tag(document)]
            continue
        found = _model_in(field.annotation) if field else None
        if found is None:
            return None
        model = found
    return model


def _child(document: Any, step: str | int) -> Any:
    if isinstance(document, dict):
        return document.get(step)
    inside = isinstance(document, list) and isinstance(step, int) and step < len(document)
    return document[step] if inside else None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    arguments = getattr(annotation, "__args__", ())
    return next((m for a in arguments if (m := _model_in(a)) is not None), None)


def known_keys(place: Location, document: Any = None) -> list[str]:
    """The keys that may stand at a place of the project file."""
    section = section_at(place, document)
    return [f.alias or n for n, f in section.model_fields.items()] if section else []


def _explanation(at: Location, document: Any) -> str:
    section = section_at(at[:-1], document)
    fields = {f.alias or n: f for n, f in section.model_fields.items()} if section else {}
    field = fields.get(str(at[-1]))
    return " ".join((field.description or "").split()) if field else "it must be given"


def _mark(marks: dict[Location, Mark], at: Location) -> Mark:
    while at and at not in marks:
        at = at[:-1]
    return marks.get(at, Mark("project file"))


def _dotted(at: Location) -> str:
    text = ""
    for step in at:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or "project file"


def _line_order(line: str) -> tuple[int, str]:
    match = re.match(r".*?:(\d+):\d+: ", line)
    return (int(match[1]) if match else 1 << 30, line)


def _with_absolute_paths(project: Project) -> Project:
    """Relative paths in a project file start at the file's folder."""
    tables = {
        name: source.model_copy(update=_absolute_in(source, project.folder))
        for name, source in project.sources.tables.items()
    }
    sources = project.sources.model_copy(update={"rows": tables.pop("rows")})
    object.__setattr__(sources, "__pydantic_extra__", tables)
    storage = project.storage.model_copy(
        update={"path": _absolute(project.storage.path, project.folder)}
    )
    prediction = project.prediction.model_copy(
        update={"path": _absolute(project.prediction.path, project.folder)}
    )
    return with_sections(project, sources=sources, storage=storage, prediction=prediction)


def _absolute_in(source: Any, folder: str) -> dict[str, Any]:
    names = [n for n in ("path", "avro_schema") if hasattr(source, n)]
    return {n: _absolute(getattr(source, n), folder) for n in names}


def _absolute(path: Any, folder: str) -> Any:
    if isinstance(path, list):
        return [_absolute(p, folder) for p in path]
    if path is None or "://" in path:
        return path
    expanded = os.path.expanduser(path)
    return expanded if os.path.isabs(expanded) else os.path.normpath(os.path.join(folder, expanded))
