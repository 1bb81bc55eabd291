"""Secrets come from the environment or a file, and are in nothing that people read."""

from __future__ import annotations

import pickle
import sqlite3
from pathlib import Path

import pytest

import mlray
from mlray import secrets
from mlray.config import explain_section, load, whole_file
from mlray.errors import ConfigError

CANARY = "can4ry/p@ss"


def project_file(folder: Path, url: str, **sections: str) -> Path:
    file = folder / "p.yaml"
    lines = {
        "name": "churn",
        "sources": f'{{rows: {{kind: sql, url: "{url}", table: rows}}}}',
        "model": "{target: y}",
    }
    file.write_text("".join(f"{k}: {v}\n" for k, v in (lines | sections).items()))
    return file


def test_a_file_gives_its_text_without_the_line_break_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "pw").write_bytes(b"hunter2\r\n")
    assert secrets.filled("x${file:pw}y", str(tmp_path)) == ("xhunter2y", [])
    assert secrets.filled(f"${{file:{tmp_path}/pw}}", "/") == ("hunter2", [])


def test_every_missing_secret_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    url = "${file:none}${env:NO_SUCH_NAME}${file:bytes}"
    with pytest.raises(ConfigError) as caught:
        load(project_file(tmp_path, url))
    message = str(caught.value)
    assert "p.yaml:2:" in message
    assert "sources.rows.url: the secret's file" in message
    assert "none cannot be read (No such file or directory)" in message
    assert "environment variable NO_SUCH_NAME is not set" in message
    assert "is not text in UTF-8" in message


def test_what_is_recorded_keeps_the_names_of_secrets(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text(CANARY)
    project = load(project_file(tmp_path, "postgresql://ann:${file:pw}@db/shop"))
    assert CANARY in project.sources.rows.url.get_secret_value()
    assert project.document["sources"]["rows"]["url"] == "postgresql://ann:${file:pw}@db/shop"
    explained = whole_file(project, {})
    assert "${file:pw}" in explained
    assert "can4ry" not in explained + repr(project) + str(project.model_dump())


def test_a_secret_that_was_written_out_is_hidden_in_what_is_recorded(tmp_path: Path) -> None:
    file = project_file(tmp_path, f"postgresql://ann:{CANARY}@db/shop")
    pii = ["sources.pii_key=0123456789abcdef0123456789abcdef", "prediction.options={key: can4ry}"]
    project = load(file, pii)
    written = str(project.document)
    assert "can4ry" not in written
    assert "0123456789abcdef" not in written
    assert project.document["sources"]["rows"]["url"] == "postgresql://***@db/shop"
    assert project.document["model"] == {"target": "y"}


def test_a_mistake_beside_a_secret_does_not_show_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(project_file(tmp_path, f"sqlite:///{CANARY}"), ["sources.rows.query=select 1"])
    assert "give `table` or `query`" in str(caught.value)
    assert "can4ry" not in str(caught.value)


def test_messages_are_redacted_in_every_form_of_a_secret() -> None:
    url = "postgresql://ann:can4ry%2Fp%40ss@db/shop?sslpassword=other"
    said = f"cannot parse {url}; {CANARY}; other; ss@db"
    clean = secrets.redacted(said, secrets.of_address(url))
    assert not any(part in clean for part in ("can4ry", "p@ss", "p%40ss", "other"))
    assert secrets.redacted("a login a1", ["a"]) == "*** login a1"
    assert secrets.redacted("text", [""]) == "text"


def test_no_trace_of_a_secret_is_in_what_a_run_leaves_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: None
) -> None:
    """Real rows behind an address with a password, through all stages; then every file is read."""
    home = tmp_path / "home"
    monkeypatch.setenv("MLRAY_HOME", str(home))
    connection = sqlite3.connect(tmp_path / "shop.db")
    connection.execute("create table rows (a integer, b real, y text)")
    rows = [(i % 7, i / 10, "yes" if i % 3 == 0 else "no") for i in range(600)]
    connection.executemany("insert into rows values (?, ?, ?)", rows)
    connection.commit()
    monkeypatch.setenv("SHOP_URL", f"sqlite+pysqlite:///{tmp_path}/shop.db?secret_key={CANARY}")
    file = project_file(tmp_path, "${env:SHOP_URL}", training="{budget: 1 epochs}")
    dry = mlray.run(file, dry_run=True)
    run = mlray.run(file)
    texts = [dry.summary(), run.summary(), repr(run), explain_section("sql"), repr(run.project)]
    assert "can4ry" not in "".join(texts)
    left = [p for p in home.rglob("*") if p.is_file()]
    assert any(p.name == "report.html" for p in left)
    assert [p for p in left if b"can4ry" in p.read_bytes()] == []


def test_errors_travel_without_secrets() -> None:
    from mlray.sources.kinds.sql.troubles import complaint

    url = "postgresql://ann:can4ry@db/shop"
    error = complaint("rows", "postgresql://db/shop", f"bad: {url}", secrets.of_address(url))
    assert b"can4ry" not in pickle.dumps(error)
