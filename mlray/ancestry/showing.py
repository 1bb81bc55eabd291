"""A lineage for people: one block of lines for each link of the chain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlray.ancestry.lineage import Lineage

if TYPE_CHECKING:
    from rich.table import Table

_FILES = 8
_SHORT = 12
PACKAGES = ("mlray", "ray", "torch", "onnxruntime", "pyarrow", "mlflow")
"""Packages that are shown; the record holds them all."""


def render(lineage: Lineage) -> Table:
    """A rich table of two columns: the link's name, and its lines."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    for link, lines in links(lineage):
        shown.add_row(link, Text("\n".join(lines)))
        shown.add_row()
    return shown


def links(lineage: Lineage) -> list[tuple[str, list[str]]]:
    """The chain as names and lines; a link of which nothing is known is left out."""
    made = {
        "version": _version(lineage),
        "data": _data(lineage.part("data")),
        "features": _features(lineage.part("features")),
        "code": _code(lineage.part("code")),
        "environment": _environment(lineage.part("environment")),
        "run": _run(lineage.part("run")),
        "model": _model(lineage),
        "deployment": _deployment(lineage),
    }
    return [(name, found) for name, lines in made.items() if (found := list(lines))]


def size(count: float) -> str:
    """
    >>> size(512), size(2_500_000)
    ('512 B', '2.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def short(text: str | None) -> str:
    """The beginning of a hash or commit, its kind kept: `sha256:ab12...`.

    >>> short("sha256:0123456789abcdef"), short("version 7")
    ('sha256:0123456789ab', 'version 7')
    """
    kind, colon, digest = str(text or "").rpartition(":")
    is_hash = len(digest) >= 2 * _SHORT - 8 and set(digest) <= set("0123456789abcdef")
    return f"{kind}{colon}{digest[:_SHORT]}" if is_hash else str(text or "")


def _version(lineage: Lineage) -> Iterator[str]:
    version = lineage.version
    state = ", ".join(version.aliases) or "no alias"
    yield f"{version.name} version {version.number} ({state}), registered {version.created_at}"
    if not lineage.record:
        yield "it has no record of its origin: it was not registered by `mlray run`"


def _data(data: Mapping[str, Any]) -> Iterator[str]:
    if not data:
        return
    aside = f", {data['quarantined']:,} in quarantine" if data["quarantined"] else ""
    out = f", {data['filtered']:,} filtered out" if data.get("filtered") else ""
    yield f"{data['rows']:,} rows read, {data['clean']:,} clean{aside}{out}"
    if data.get("left_out"):
        yield f"{data['left_out']:,} rows left out of training for suspected labels"
    yield "parts: " + ", ".join(f"{n:,} {part}" for part, n in data["parts"].items() if n)
    yield f"content of the clean rows: {data['content'] or 'not known'}"
    if data.get("personal"):
        told = ", ".join(f"{column} ({how})" for column, how in data["personal"].items())
        key = f", by key {data['pii_key']}" if data.get("pii_key") else ""
        yield f"personal data: {told}{key}"
    for source in data["sources"]:
        held = [item for item in data["inputs"] if item.get("source") == source["name"]]
        yield from _source(source, held)


def _source(source: Mapping[str, Any], inputs: list[Mapping[str, Any]]) -> Iterator[str]:
    alone = len(inputs) == 1 and inputs[0]["path"] == source["where"]
    about = f", {held(inputs[0])}" if alone else ""
    yield f"source {source['name']}: {source['kind']} {source['where']}{about}"
    for name in ("table", "topic", "query"):
        if name in source and source[name] != source["where"]:
            yield f"  {name}: {source[name]}"
    for item in [] if alone else inputs[:_FILES]:
        yield f"  {item['path']}, {held(item)}"
    if len(inputs) > _FILES:
        yield f"  and {len(inputs) - _FILES:,} more"


def held(item: Mapping[str, Any]) -> str:
    """Size and state of an input in words."""
    large = f"{size(item['size_bytes'])}, " if item["size_bytes"] else ""
    return f"{large}{state(item['modified'])}"


def state(modified: str) -> str:
    """The number of a table's version without the table's id, the beginning of a hash.

    >>> state("version 7 of ed85820e-e616-4842-a77e-c25951a70116")
    'version 7'
    """
    return short(modified.partition(" of ")[0] if modified.startswith("version ") else modified)


def _features(features: Mapping[str, Any]) -> Iterator[str]:
    if not features:
        return
    used = [f"{column} ({kind})" for column, kind in features["used"].items()]
    yield f"{len(used)} used: {', '.join(used)}"
    if features["left"]:
        yield f"{len(features['left'])} left out: {', '.join(features['left'])}"


def _code(code: Mapping[str, Any]) -> Iterator[str]:
    if not code:
        return
    if code.get("commit"):
        state = {"true": ", with changes that were not committed", "false": ""}
        yield f"commit {code['commit'][:_SHORT]}{state.get(str(code['dirty']), '')}"
    else:
        yield "the project is in no git repository"
    for path, digest in code["functions"].items():
        yield f"{path}, {short(digest)}"


def _environment(environment: Mapping[str, Any]) -> Iterator[str]:
    if not environment:
        return
    packages = environment["packages"]
    known = ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages)
    yield f"Python {environment['python']}, {known}; {len(packages)} packages in all"
    yield f"{environment['platform']}"
    yield f"lock file: {environment.get('lock') or 'none was found'}"


def _run(run: Mapping[str, Any]) -> Iterator[str]:
    if not run:
        return
    yield f"MLflow run {run['id']}, started {run['started_at']} by {run['who']} on {run['host']}"
    seconds = sum(run["seconds"].values())
    workers = f"{run['workers']} worker{'s' if run['workers'] != 1 else ''}"
    yield f"{workers} on {run['device']}, seed {run['seed']}, {seconds:,.0f} s in all"


def _model(lineage: Lineage) -> Iterator[str]:
    version, model = lineage.version, lineage.part("model")
    if model:
        yield f"{model['network']} for {model['target']} ({model['task']})"
    if version.metrics:
        told = ", ".join(f"{name} {value:.4f}" for name, value in version.metrics.items())
        yield f"on the test rows: {told}"
    yield f"bundle sha256:{version.digest[:_SHORT]}" if version.digest else "no bundle of mlray"
    if model:
        against = model["compared_with"]
        beside = f"against version {against}" if against else "without a champion to beat"
        said = "promote" if model["promote"] else "do not promote"
        yield f"the gate, {beside}: {said}; {'; '.join(model['reasons'])}"


def _deployment(lineage: Lineage) -> Iterator[str]:
    for event in lineage.deployment:
        when = f"{event['when']} " if event["when"] else ""
        who = f" by {event['who']}" if event["who"] else ""
        yield f"{when}{_moved(event, lineage.version.number)}{who}: {'; '.join(event['why'])}"
    yield "it is the champion" if lineage.is_champion else "it is not the champion"


def _moved(event: Mapping[str, Any], number: int) -> str:
    """
    >>> _moved({"what": "promoted", "from": 3, "to": 4}, 3)
    'followed by version 4, promoted'
    """
    if "to" not in event:
        return str(event["what"])
    if event["to"] == number:
        before = f" after version {event['from']}" if event["from"] else ""
        return f"{event['what']}{before}"
    return f"followed by version {event['to']}, {event['what']}"
