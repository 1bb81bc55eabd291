"""Marked values are nowhere after a full run: every file, log, answer and metric is searched.

One word stands in every value of the columns that are marked, another in those of a column that is
not. The second one must be found, or the search proves nothing.
"""

from __future__ import annotations

import base64
import bz2
import contextlib
import csv
import gzip
import io
import json
import os
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlray
from mlray.errors import MlrayError
from mlray.sources.personal import reveal
from tests.end_to_end.test_line import free_port

pytestmark = pytest.mark.usefixtures("ray_cluster")

CANARY, CONTROL = "QXpersonalXQ", "QXplainvalueXQ"
SECRET = "9c1185a5c5e9fc54612808977ee8f548b2258d31"
ROWS = 600
QUICK = "training.budget=1 epochs"


@dataclass
class Told:
    """All that a person or a program was told."""

    texts: list[str] = field(default_factory=list)

    def add(self, what: object) -> None:
        self.texts.append(str(what))

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """A block that must fail; its error and all that led to it are noted."""
        with pytest.raises(MlrayError) as caught:
            yield
        error: BaseException | None = caught.value
        while error is not None:
            self.texts.append(f"{error} {error!r} {error.args!r}")
            shown = None if error.__suppress_context__ else error.__context__
            error = error.__cause__ or shown  # as Python prints them


def written(folder: Path, bad_lines: bool) -> Path:
    """Rows and accounts; some lines cannot be read, and hold marked values where they break."""
    random = np.random.default_rng(3)
    folder.mkdir()
    with (folder / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["row", "mail", "city", "ssn", "phone", "account", "shop", "amount", "y"])
        for i in range(ROWS):
            city, amount = int(random.integers(4)), random.normal()
            y = int(random.random() < 1 / (1 + np.exp(-(city - 1.5 + amount))))
            table.writerow(
                [i, f"{CANARY}{i}@x.org", f"{CANARY}-city-{city}", f"{CANARY}-ssn-{i}",
                 f"{CANARY}-phone-{i}", f"{CANARY}-{i % 50}", f"{CONTROL}-{i % 3}",
                 f"{amount:.3f}", y]
            )  # fmt: skip
            if bad_lines and i in (20, 410):
                table.writerow([i, f"{CANARY}, broken", 1, 2, 3, CANARY, CANARY, CANARY, 0, 1, 2])
                table.writerow([i, 1, 2, 3, 4, 5, 6, f"{CANARY}-shifted", 0])
    with (folder / "accounts.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["account", "holder", "tier"])
        table.writerows([f"{CANARY}-{i}", f"{CANARY} holder {i % 5}", i % 4] for i in range(45))
    return folder


def project_file(folder: Path, name: str, **lines: str) -> Path:
    given = {
        "name": name,
        "sources": f"""
  rows:
    path: {folder}/rows.csv
    types: {{amount: float64}}
    unreadable: quarantine
    pii: {{mail: hash, city: hash, ssn: drop, phone: token, account: hash}}
  accounts: {{path: {folder}/accounts.csv, pii: {{account: hash, holder: token}}}}
  join: [{{with: accounts, on: account}}]
  pii_key: ${{env:CANARY_KEY}}""",
        "quality": "{rules: [{column: amount, range: [-1.5, 1.5]}, {column: city, allowed: [a]"
        ", severity: warn, at_most: 1.0}, {columns: [mail, phone], unique: true}]"
        ", max_quarantined: 0.5}",
        "model": "{target: y}",
        "monitoring": "{flush: 1s}",
    }
    file = folder.parent / f"{name}.yaml"
    file.write_text("".join(f"{k}: {v}\n" for k, v in (given | lines).items()))
    return file


def test_marked_values_are_found_nowhere_after_a_full_run(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("CANARY_KEY", SECRET)
    started, told = time.time() - 1, Told()
    inputs = written(tmp_path / "inputs", bad_lines=True)
    file = project_file(inputs, "canaries")
    told.add(mlray.check(file))
    run = mlray.run(file, [QUICK])
    told.add(run.summary())
    quality = run.stage("quality").result
    assert quality["protected"]["holder"] == "token"
    assert pq.read_table(quality["quarantine"]).num_rows >= 4
    clean = pa.concat_tables(run.rows("test"))
    assert clean["tier"].null_count < clean.num_rows / 2
    assert CANARY in reveal(clean, ["phone"], SECRET)["phone"][0].as_py()
    roles = {role["column"] for role in run.stage("encode").result["roles"]}
    assert {"city", "shop", "holder", "tier"} <= roles
    assert not {"ssn", "mail", "phone"} & roles

    failing_runs(inputs, told, monkeypatch)
    raw = written(tmp_path / "inputs" / "new", bad_lines=False)
    told.add(mlray.predict(file, rows=str(raw / "rows.csv"), out=str(tmp_path / "scored")))
    asked(file, run, clean, told)
    told.add(mlray.explain(str(file)))
    told.texts += capfd.readouterr()

    found = searched((CANARY, SECRET), places(started, everywhere(tmp_path), inputs))
    assert found == [], "\n".join(found)
    for word in (CANARY, SECRET):
        assert [text for text in told.texts if word in text] == []
    assert_the_search_finds(started, tmp_path, inputs, told)


def failing_runs(inputs: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything goes wrong once, and says so."""
    (inputs.parent / "canary_steps.py").write_text(
        "def fail(table):\n    raise ValueError(str(table.to_pylist()[:3]))\n"
    )
    sources = project_file(inputs, "canaries").read_text().split("sources:")[1]
    sources = sources.split("quality:")[0]
    stopping = {
        "unreadable": sources.replace("unreadable: quarantine", "unreadable: stop"),
        "transform": sources + "  transform: canary_steps:fail\n",
        "steps": sources.replace("    types:", "    transform: canary_steps:fail\n    types:"),
    }
    for name, changed in stopping.items():
        with told.failing():
            mlray.run(project_file(inputs, f"canaries-{name}", sources=changed), [QUICK])
    for rule in ("column: mail, matches: 'x+'", "columns: [city, account], unique: true"):
        strict = f"{{rules: [{{{rule}, severity: stop}}], max_quarantined: 0.0}}"
        with told.failing():
            mlray.run(project_file(inputs, "canaries-strict", quality=strict), [QUICK])
    with monkeypatch.context() as other:
        other.setenv("CANARY_KEY", SECRET[::-1])
        with told.failing():
            mlray.serve(project_file(inputs, "canaries"), [f"serving.port={free_port()}"])
    assert "another key of personal data" in told.texts[-1]


def asked(file: Path, run: mlray.Run, clean: pa.Table, told: Told) -> None:
    """Requests with raw values score as the pipeline's hashed rows do; bad ones are refused."""
    port = free_port()
    rows = clean.select(run.request_columns).slice(0, 40)
    raw = raw_requests(rows)
    with mlray.serve(file, [f"serving.port={port}"]) as service:
        scores = [p["score"] for p in service.predict(raw)]
        assert scores == [p["score"] for p in service.predict(rows.to_pylist())]
        assert len(set(scores)) > 4
        told.add(scores)
        bad = [
            {"rows": [{**raw[0], "amount": f"{CANARY}"}]},
            {"rows": [{**raw[0], "holder": [CANARY]}]},
            {"rows": [{k: v for k, v in raw[0].items() if k != "city"}]},
            {"rows": CANARY},
        ]
        for body in [*map(json.dumps, bad), f"{{{CANARY}"]:
            told.add(http(f"{service.url}/predict", body.encode()))
        for path in ("/", "/docs", "/openapi.json", "/health/ready", "/health/live"):
            told.add(http(service.url + path))
        told.add(http(f"{service.url}/v1/models/canaries"))
        told.add(mlray.monitor(file, since="1h"))
        told.add(metrics())


def raw_requests(rows: pa.Table) -> list[dict[str, Any]]:
    """The rows as a client has them: names and cities, no hashes."""
    from mlray.sources.personal import Keys

    hashed = Keys.of(SECRET).hashed
    cities = {hashed(f"{CANARY}-city-{i}"): f"{CANARY}-city-{i}" for i in range(4)}
    accounts = {hashed(f"{CANARY}-{i}"): f"{CANARY}-{i}" for i in range(50)}
    table = reveal(rows, ["holder"], SECRET).to_pylist()
    known = cities | accounts
    return [{k: known.get(v, v) if isinstance(v, str) else v for k, v in r.items()} for r in table]


def http(url: str, body: bytes | None = None) -> str:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return f"{answer.headers} {answer.read().decode()}"
    except urllib.error.HTTPError as error:
        return f"{error.headers} {error.read().decode()}"


def metrics() -> str:
    """What Prometheus would see of every node."""
    import ray

    texts = []
    for node in ray.nodes():
        with contextlib.suppress(OSError):
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            texts.append(http(url))
    return "\n".join(texts)


# --- the search ---------------------------------------------------------------------------------


def searched(words: Iterable[str], files: Iterable[Path]) -> list[str]:
    """Files that hold a word: as text, hexadecimal or base64, packed or not."""
    wanted = [form for word in words for form in forms(word)]
    return [
        f"{path} {name}"
        for path in files
        for name, content in contents(path)
        if any(form in content for form in wanted)
    ]


def forms(word: str) -> list[bytes]:
    text = word.encode()
    inner = (base64.b64encode(b"x" * shift + text)[4:-4] for shift in range(3))
    return [text, text.hex().encode(), word.encode("utf-16-le"), *inner]


def everywhere(tmp_path: Path) -> list[Path]:
    """Storage and outputs of this test, the logs of Ray's session, and all temporary files."""
    import ray

    session = ray._private.worker._global_node.get_session_dir_path()
    return [tmp_path, Path(session), Path(tempfile.gettempdir())]


def places(started: float, roots: list[Path], inputs: Path) -> Iterator[Path]:
    """Files that changed since the test started, but for its inputs and for other tests' files."""
    seen: set[Path] = set()
    for root in roots:
        for folder, inner, names in os.walk(root):
            own = Path(folder)
            skipped = root == roots[-1] and len(roots) > 1
            inner[:] = [n for n in inner if own / n != inputs and own / n not in seen]
            inner[:] = [n for n in inner if not (skipped and n.startswith("pytest-of"))]
            for path in (own / name for name in names):
                with contextlib.suppress(OSError):  # sockets, and files that are gone already
                    if path.is_file() and path.stat().st_mtime >= started:
                        yield path
        seen.add(root)


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """The bytes of a file, and what is packed in them."""
    try:
        held = path.read_bytes()
    except OSError:
        return  # gone, or a socket
    yield "", held
    if held[:4] == b"PAR1":
        with contextlib.suppress(pa.ArrowInvalid, OSError):
            yield "rows", plain(pq.read_table(io.BytesIO(held)))
    elif held[:6] == b"ARROW1":
        with contextlib.suppress(pa.ArrowInvalid, OSError):
            yield "rows", plain(pa.ipc.open_file(held).read_all())
    elif held[:2] == b"PK":
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(held)) as packed:
            for name in packed.namelist():
                yield name, packed.read(name)
    elif held[:2] == b"\x1f\x8b":
        with contextlib.suppress(OSError, EOFError):
            yield "unpacked", gzip.decompress(held)
    elif held[:3] == b"BZh":
        with contextlib.suppress(OSError, EOFError):
            yield "unpacked", bz2.decompress(held)


def plain(table: pa.Table) -> bytes:
    return repr(table.to_pydict()).encode()


def assert_the_search_finds(started: float, tmp_path: Path, inputs: Path, told: Told) -> None:
    """The column that is not marked is found where marked ones would be."""
    found = searched([CONTROL], places(started, [tmp_path], inputs))
    for kind in ("/quality/", "/quarantine/", "profile.json", "report.html", "golden.arrow",
                 "/artifacts/", "/scored/", "encoder.json"):  # fmt: skip
        assert any(kind in place for place in found), kind
    assert CONTROL in "".join(told.texts)
    file = tmp_path / "packed.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.txt", CANARY * 50)
    assert searched([CANARY], [file]) == [f"{file} a.txt"]
