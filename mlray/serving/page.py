"""The page at /docs: what the model needs, a real example to change and send. No network needed."""

from __future__ import annotations

import html as escape
import json
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from mlray.serving.served import Served

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ margin-bottom: 0 }} .quiet {{ opacity: .7 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884 }}
textarea, pre {{ width: 100%; box-sizing: border-box; font: 14px/1.4 ui-monospace, monospace;
  padding: .75rem; border: 1px solid #8886; border-radius: .4rem; background: #8881 }}
textarea {{ min-height: 16rem }} pre {{ min-height: 4rem; white-space: pre-wrap }}
button {{ font: inherit; padding: .4rem 1.2rem; border-radius: .4rem; border: 0; cursor: pointer;
  background: #2563eb; color: #fff }}
</style></head><body>
<h1>{name} <span class="quiet">version {version}</span></h1>
<p>Predicts <b>{target}</b> ({task}). Machine-readable: <a href="openapi.json">openapi.json</a>.</p>
<h2>Try it</h2>
<p><code>POST /v1/models/{name}/predict</code>, a row of the training data's golden rows:</p>
<textarea id="body" spellcheck="false" aria-label="Request body">{example}</textarea>
<p><button id="send">Send</button> <span id="status" class="quiet" role="status"></span></p>
<pre id="answer" aria-label="Answer"></pre>
<h2>Columns</h2>
<table><thead><tr><th>column</th><th>type</th><th>example</th></tr></thead>
<tbody>{columns}</tbody></table>
<p class="quiet">Every column is needed; null stands for a missing value. A category that the model
never saw is fine. Numbers must be finite.</p>
<script>
const at = id => document.getElementById(id);
at("send").onclick = async () => {{
  const started = performance.now();
  try {{
    const answer = await fetch("predict", {{method: "POST",
      headers: {{"content-type": "application/json"}}, body: at("body").value}});
    const text = await answer.text();
    at("status").textContent =
      answer.status + " in " + (performance.now() - started).toFixed(1) + " ms";
    try {{ at("answer").textContent = JSON.stringify(JSON.parse(text), null, 2); }}
    catch {{ at("answer").textContent = text; }}
  }} catch (error) {{ at("status").textContent = String(error); }}
}};
</script></body></html>
"""


def html(served: Served) -> str:
    """The whole page, self-contained."""
    example = served.example()
    rows = [
        f"<tr><td><code>{_text(f.name)}</code></td><td>{_kind(f.type)}</td>"
        f"<td><code>{_text(json.dumps(example.get(f.name)))}</code></td></tr>"
        for f in served.predictor.schema
    ]
    return _TEMPLATE.format(
        name=_text(served.name),
        version=_text(served.version),
        target=_text(served.manifest.target),
        task=_text(served.manifest.task),
        example=_text(json.dumps({"rows": [example]}, indent=2, ensure_ascii=False)),
        columns="".join(rows),
    )


def _text(value: str) -> str:
    return escape.escape(value, quote=True)


def _kind(kind: pa.DataType) -> str:
    """A column's type in everybody's words.

    >>> _kind(pa.int64()), _kind(pa.timestamp("us")), _kind(pa.string())
    ('whole number', 'time (ISO 8601)', 'text')
    """
    if pa.types.is_boolean(kind):
        return "true or false"
    if pa.types.is_integer(kind):
        return "whole number"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time (ISO 8601)"
    return "text"
