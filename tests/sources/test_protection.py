"""Columns with personal data: dropped, hashed or tokenised before anything else sees them."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlray.config import Project
from mlray.errors import ConfigError, InputError
from mlray.sources import find, open_files, open_rows, sample
from mlray.sources.guarded import without_values
from mlray.sources.personal import Keys, Protection, keys_of, reveal, text_of

SECRET = "a secret that is long enough to be one"
OTHER = "another secret that is long enough too"
KEY = "${env:TEST_PII_KEY}"

Make = Callable[..., Project]


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PII_KEY", SECRET)


@pytest.fixture
def people(tmp_path: Path) -> str:
    file = tmp_path / "people.csv"
    file.write_text(
        "id,mail,born,y\n1,ann@example.org,1990-02-01,0\n2,,1991-03-02,1\n3,bo@x.org,,0\n"
    )
    return str(file)


def test_the_same_value_and_key_give_the_same_hash_in_every_process() -> None:
    code = f"from mlray.sources.personal import Keys; print(Keys.of({SECRET!r}).hashed('ann'))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == Keys.of(SECRET).hashed("ann")
    assert Keys.of(SECRET).hashed("ann") != Keys.of(OTHER).hashed("ann")
    assert Keys.of(SECRET).hashed("ann") != Keys.of(SECRET).hashed("ann ")
    assert len(Keys.of(SECRET).hashed("ann")) == 40


def test_a_hash_is_an_hmac_of_a_key_of_its_own() -> None:
    import hashlib
    import hmac

    keys = Keys.of(SECRET)
    body = hmac.digest(keys.hash, b"ann", hashlib.sha256)[:16]
    assert keys.hashed("ann")[:32] == body.hex()
    assert len({keys.hash, keys.seal, keys.token[:32], keys.token[32:], SECRET.encode()}) == 5


def test_keys_are_never_shown() -> None:
    keys = Keys.of(SECRET)
    shown = f"{keys!r} {Protection({'mail': 'hash'}, keys)!r}"
    assert SECRET not in shown
    assert repr(keys.hash) not in shown
    assert keys.id in shown
    assert pickle.loads(pickle.dumps(keys)) == keys


@pytest.mark.parametrize(
    ("column", "same"),
    [
        (pa.array([5, None]), pa.array(["5", None])),
        (pa.array([5.0, float("nan")]), pa.array(["5", None])),
        (pa.array([0.1, -0.0]), pa.array(["0.1", "0"])),
        (pa.array([Decimal("5.10")]), pa.array(["5.1"])),
        (pa.array([date(2024, 1, 31)]), pa.array(["2024-01-31"])),
        (
            pa.array([datetime(2024, 1, 31, 10, tzinfo=UTC)], pa.timestamp("ms", "Europe/Berlin")),
            pa.array(["2024-01-31T10:00:00Z"]),
        ),
        (pa.array([True, None]), pa.array(["true", None])),
        (pa.array(["a", "a", None]).dictionary_encode(), pa.array(["a", "a", None])),
        (pa.nulls(2), pa.nulls(2, pa.string())),
        (pa.array(["ü", ""], pa.large_string()), pa.array(["ü", ""])),
    ],
    ids=lambda a: str(a.type),
)
def test_a_value_is_hashed_by_its_text_so_that_types_of_two_sources_meet(
    column: pa.Array, same: pa.Array
) -> None:
    for action in ("hash", "token"):
        protection = Protection({"x": action}, Keys.of(SECRET))
        made, wanted = (protection.apply(pa.table({"x": c}))["x"] for c in (column, same))
        assert made.type == pa.string()
        assert made.to_pylist() == wanted.to_pylist()
        assert protection.schema(pa.table({"x": column}).schema).field("x").type == pa.string()
        assert protection.values("x", column.to_pylist()) == made.to_pylist()


def test_protecting_twice_changes_nothing_but_another_keys_hash_is_a_value_like_any() -> None:
    table = pa.table({"a": ["x", "y", None], "b": ["x", "y", ""], "c": [1, 2, 3]})
    protection = Protection({"a": "hash", "b": "token", "c": "drop"}, Keys.of(SECRET))
    once = protection.apply(table)
    assert once.column_names == ["a", "b"]
    assert protection.apply(once).equals(once)
    other = Protection(protection.actions, Keys.of(OTHER)).apply(once)
    assert not set(other["a"].drop_null().to_pylist()) & set(once["a"].to_pylist())


def test_tokens_turn_back_with_the_key_only() -> None:
    table = pa.table({"mail": ["ann@example.org", None, "ann@example.org", ""], "n": [1, 2, 3, 4]})
    hidden = Protection({"mail": "token"}, Keys.of(SECRET)).apply(table)
    assert hidden["mail"][0] == hidden["mail"][2]
    assert "ann" not in str(hidden)
    assert reveal(hidden, ["mail"], SECRET).equals(table)
    with pytest.raises(InputError, match="not a token of this key") as caught:
        reveal(hidden, ["mail"], OTHER)
    assert hidden["mail"][0].as_py() not in str(caught.value)
    with pytest.raises(InputError, match="no column"):
        reveal(hidden, ["male"], SECRET)


def test_a_list_cannot_be_hashed() -> None:
    table = pa.table({"phones": [["1", "2"]]})
    with pytest.raises(ConfigError, match=r"phones.*list.*cannot be hashed"):
        Protection({"phones": "hash"}, Keys.of(SECRET)).apply(table)


def test_rows_are_protected_and_dropped_columns_are_not_there(project: Make, people: str) -> None:
    loaded = project(rows={"path": people, "pii": {"mail": "hash", "born": "drop"}}, pii_key=KEY)
    rows = sample(loaded)
    assert rows.column_names == ["id", "mail", "y"]
    hashed = Keys.of(SECRET).hashed
    assert rows["mail"].to_pylist() == [hashed("ann@example.org"), None, hashed("bo@x.org")]


def test_a_dropped_column_is_never_read(project: Make, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1, 2], "secret": ["x", "y"], "y": [0, 1]}), file)
    damaged = bytearray(file.read_bytes())
    column = pq.ParquetFile(file).metadata.row_group(0).column(1)
    for place in range(column.dictionary_page_offset, column.data_page_offset + 10):
        damaged[place] ^= 0xFF
    file.write_bytes(damaged)
    with pytest.raises((InputError, OSError, pa.ArrowInvalid)):
        sample(project(rows={"path": str(file)}))
    assert sample(project(rows={"path": str(file), "pii": {"secret": "drop"}})).num_rows == 2


@pytest.mark.usefixtures("ray_cluster")
def test_ray_tasks_give_the_same_rows(
    project: Make, people: str, collect: Callable[[Any], pa.Table]
) -> None:
    loaded = project(rows={"path": people, "pii": {"mail": "token", "born": "drop"}}, pii_key=KEY)
    rows = open_rows(loaded)
    assert rows.protected == {"mail": "token", "born": "drop"}
    assert collect(rows.dataset).equals(sample(loaded))
    assert reveal(sample(loaded), ["mail"], SECRET)["mail"][0].as_py() == "ann@example.org"


@pytest.mark.usefixtures("ray_cluster")
def test_rows_that_cannot_be_read_keep_their_place_but_not_their_text(
    project: Make, tmp_path: Path, collect: Callable[[Any], pa.Table]
) -> None:
    (tmp_path / "a.csv").write_text("mail,n\na@x.org,1\ncanary,canary,3\nb@x.org,`canary` `n`\n")
    source = {
        "path": str(tmp_path / "a.csv"), "types": {"n": "int64"}, "unreadable": "quarantine"
    }  # fmt: skip
    marked = {**source, "pii": {"mail": "hash"}}
    rows = collect(open_rows(project(rows=marked, pii_key=KEY), traced=True).dataset)
    assert rows["__position"].to_pylist() == [0, 1, 2]
    assert rows["__unreadable"].null_count == 1
    assert rows["__raw"].null_count == 3
    assert "canary" not in str(rows.to_pylist())
    plain = collect(open_rows(project(rows=source), traced=True).dataset)
    assert "canary" in str(plain.to_pylist())


@pytest.mark.usefixtures("ray_cluster")
def test_rows_of_a_function_are_protected_too(
    project: Make, module: Callable[[str], str], collect: Callable[[Any], pa.Table]
) -> None:
    name = module(
        "import pyarrow as pa, ray\n"
        "def rows(options):\n"
        "    return ray.data.from_arrow(pa.table({'mail': ['ann@x.org'], 'age': [4], 'y': [0]}))\n"
    )
    pii = {"mail": "hash", "age": "drop"}
    loaded = project(rows={"kind": f"{name}:rows", "pii": pii}, pii_key=KEY)
    made = collect(open_rows(loaded).dataset)
    assert made.column_names == ["mail", "y"]
    assert made["mail"].to_pylist() == [Keys.of(SECRET).hashed("ann@x.org")]


def test_an_id_that_is_a_number_here_and_text_there_still_joins(
    project: Make, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"person": [1, 2, 3], "y": [0, 1, 0]}), tmp_path / "rows.parquet")
    pq.write_table(pa.table({"person": ["3", "1"], "age": [30, 10]}), tmp_path / "more.parquet")
    sources = {
        "rows": {"path": str(tmp_path / "rows.parquet"), "pii": {"person": "hash"}},
        "more": {"path": str(tmp_path / "more.parquet"), "pii": {"person": "hash"}},
        "join": [{"with": "more", "on": "person"}],
        "pii_key": KEY,
    }
    assert sample(project(**sources))["age"].to_pylist() == [10, None, 30]
    for theirs, word in (({}, "not marked"), ({"person": "token"}, "tokenised")):
        sources["more"]["pii"] = theirs
        with pytest.raises(ConfigError, match=f"hashed in `rows`, and {word} in `more`"):
            sample(project(**sources))
    sources["more"]["pii"] = {"person": "drop"}
    with pytest.raises(ConfigError, match="dropped in `more`"):
        sample(project(**sources))


def test_marks_follow_a_column_through_renaming_functions_and_joins(
    project: Make, people: str, tmp_path: Path, module: Callable[[str], str]
) -> None:
    from mlray.sources.rows import _prepared

    name = module("def step(t):\n    return t.append_column('copy', t['mail'])\n")
    (tmp_path / "more.csv").write_text("id,mail,phone\n1,z@x.org,5\n")
    loaded = project(
        rows={"path": people, "pii": {"mail": "hash"}, "transform": f"{name}:step"},
        more={"path": str(tmp_path / "more.csv"), "pii": {"mail": "token", "phone": "drop"}},
        join=[{"with": "more", "on": "id"}],
        pii_key=KEY,
    )
    marks = {"mail": "hash", "copy": "hash", "more_mail": "token", "phone": "drop"}
    assert _prepared(loaded)[1].protected == marks


def test_a_function_that_mixes_hashes_with_other_values_is_refused(
    project: Make, people: str, module: Callable[[str], str]
) -> None:
    name = module(
        "import pyarrow.compute as pc\n"
        "def step(t):\n    return t.append_column('who', pc.fill_null(t['mail'], 'nobody'))\n"
    )
    rows = {"path": people, "pii": {"mail": "hash"}, "transform": f"{name}:step"}
    with pytest.raises(ConfigError, match=r"hashes or tokens and other values.*who"):
        sample(project(rows=rows, pii_key=KEY))


def test_a_missing_short_or_written_key_is_one_clear_error(
    project: Make, people: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"path": people, "pii": {"mail": "hash"}}
    with pytest.raises(ConfigError, match=r"no sources.pii_key: rows.mail"):
        find(project(rows=rows))
    with pytest.raises(ConfigError, match="written out in the project file") as caught:
        find(project(rows=rows, pii_key=SECRET))
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("TEST_PII_KEY", "short one")
    with pytest.raises(ConfigError, match=r"too short.*9 characters") as caught:
        find(project(rows=rows, pii_key=KEY))
    assert "short one" not in str(caught.value)
    assert keys_of(project(rows={"path": people, "pii": {"mail": "drop"}})) is None


def test_another_key_gives_other_stage_keys(
    project: Make, people: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlray.pipeline.line import STAGES
    from mlray.pipeline.stages import keys as stage_keys

    sources = {"rows": {"path": people, "pii": {"mail": "hash"}}, "pii_key": KEY}
    first = stage_keys(STAGES, project(**sources), "f")
    assert stage_keys(STAGES, project(**sources), "f") == first
    monkeypatch.setenv("TEST_PII_KEY", OTHER)
    second = stage_keys(STAGES, project(**sources), "f")
    assert not set(first.values()) & set(second.values())


@pytest.mark.parametrize("action", ["drop", "hash"])
def test_a_mark_on_a_column_that_is_not_there_is_an_error(
    project: Make, people: str, action: str
) -> None:
    with pytest.raises(ConfigError, match=r"sources.rows.pii names columns.*maill"):
        sample(project(rows={"path": people, "pii": {"maill": action}}, pii_key=KEY))


def test_a_file_without_a_header_does_not_show_its_first_row(project: Make, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("canary@example.org,1\nother@example.org,2\n")
    rows = {"path": str(tmp_path / "a.csv"), "columns": ["mail"], "pii": {"mail": "hash"}}
    with pytest.raises(ConfigError) as caught:
        sample(project(rows=rows, pii_key=KEY))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("rows", [["canary@x.org,1", "b,canary@x.org"], ["a,1", "canary,1,2,3"]])
def test_a_line_that_cannot_be_read_is_told_without_its_text(
    project: Make, tmp_path: Path, rows: list[str]
) -> None:
    (tmp_path / "a.csv").write_text("\n".join(["mail,n", *rows, ""]))
    source = {"path": str(tmp_path / "a.csv"), "types": {"n": "int64"}}
    with pytest.raises(InputError) as caught:
        sample(project(rows={**source, "pii": {"mail": "hash"}}, pii_key=KEY))
    told = f"{caught.value} {caught.value.__cause__}"
    assert "canary" not in told
    assert "a.csv" in told
    assert "holds personal data" in told


def test_errors_of_other_libraries_are_told_by_name_only() -> None:
    wrong = ValueError("invalid literal: 'canary'")
    assert str(without_values("s", wrong)).startswith("source `s` cannot be read (ValueError)")
    quoted = InputError(
        'rows (source `s`): bad "canary" (line 3) (driver said canary)', value=["c"]
    )
    told = str(without_values("s", quoted, ["c"]))
    assert "canary" not in told
    assert "(line 3)" in told


def test_files_of_raw_rows_are_protected_too(project: Make, people: str, tmp_path: Path) -> None:
    loaded = project(rows={"path": people, "pii": {"mail": "hash", "born": "drop"}}, pii_key=KEY)
    (tmp_path / "new.csv").write_text("mail,born,more\nann@example.org,1990-01-01,5\n")
    table = open_files(str(tmp_path / "new.csv"), loaded).table()
    assert table.column_names == ["mail", "more"]
    assert table["mail"].to_pylist() == [Keys.of(SECRET).hashed("ann@example.org")]


def test_text_of_a_time_says_its_fraction_and_nothing_of_its_unit() -> None:
    assert text_of(datetime(2024, 1, 31, 10, 0, 0, 500_000)) == "2024-01-31T10:00:00.500000"
    assert text_of(float("inf")) == "inf"
    assert text_of(10**20) == str(10**20)
    assert json.dumps(text_of("a\nb"))
