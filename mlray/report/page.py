"""From a RunReport to one HTML file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from mlray.report import plots, words
from mlray.report.content import RunReport
from mlray.report.drawings import evaluation_drawings, headline, training_drawings
from mlray.report.reading import column_rows, metric_rows, quality_facts, reference_rows, slice_rows
from mlray.report.summary import summary

_HERE = Path(__file__).parent


def render(report: RunReport) -> str:
    """See `mlray.report.render`."""
    with plots.style():
        return template("page.html.jinja").render(
            report=report,
            style=Markup((_HERE / "page.css").read_text("utf-8")),
            summary=summary(report),
            headline=headline(report),
            columns=column_rows(report),
            quality=quality_facts(report.quality, _learned(report)),
            metrics=metric_rows(report),
            slices=slice_rows(report),
            training_drawings=training_drawings(report),
            evaluation_drawings=evaluation_drawings(report),
            reference=reference_rows(report.reference),
            training_facts=_lines({"network": dict(report.network)} | dict(report.training)),
            provenance=_lines(report.provenance),
        )


@cache
def template(name: str) -> jinja2.Template:
    """A page of this folder, with the filters of `words`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for word in ("count", "precise", "short", "share", "seconds", "size", "moment", "metric_name"):
        environment.filters[word] = getattr(words, word)
    return environment.get_template(name)


def _learned(report: RunReport) -> set[str]:
    """Columns whose values may show as examples: what the model learned from, and the target."""
    return {str(c["name"]) for c in report.columns if c.get("role") != "left out"}


def _lines(facts: Any, above: str = "") -> list[tuple[str, Any]]:
    """Nested facts as (name, value) lines in their order."""
    lines: list[tuple[str, Any]] = []
    for name, value in dict(facts).items():
        label = f"{above}{str(name).replace('_', ' ')}"
        if isinstance(value, dict):
            lines += _lines(value, f"{label}: ")
        elif isinstance(value, (list, tuple)):
            lines.append((label, ", ".join(map(str, value))))
        elif name == "seconds":
            lines.append((label.replace("seconds", "time"), words.seconds(value)))
        else:
            lines.append((label, value))
    return lines
