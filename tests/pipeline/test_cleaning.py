"""The quality stage over real files through Ray: what is clean, what is set aside, what is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mlray import storage
from mlray.config import load
from mlray.errors import ConfigError, InputError, QualityError
from mlray.pipeline.cleaning import clean_rows
from mlray.pipeline.stages import Work
from mlray.sources.fingerprint import Content
from mlray.stats.profile import Profile

ROWS = 6000
FUNCTION = """
import pyarrow.compute as pc

def even(table):
    return pc.equal(pc.bit_wise_and(table["n"], 1), 0)
"""


def rows() -> pa.Table:
    random = np.random.default_rng(0)
    keys = random.integers(0, 5000, ROWS)
    return pa.table({
        "key": pa.array([f"k{k}" if k else None for k in keys]),
        "part": random.integers(0, 2, ROWS),
        "x": random.normal(size=ROWS),
        "n": np.arange(ROWS) * 2,
        "at": pa.array(datetime(2026, 1, 1) + timedelta(minutes=i) for i in range(ROWS)),
        "shop": pa.array(random.integers(0, 40, ROWS)),
    })  # fmt: skip


@pytest.fixture
def clean(tmp_path: Path, ray_cluster: None) -> Any:
    """Writes files and a project, runs the stage, and returns (result, work, clean rows, aside)."""
    table = rows()
    (tmp_path / "rows").mkdir()
    for number in range(4):
        part = table.slice(number * 1500, 1500)
        pq.write_table(part, tmp_path / "rows" / f"{number}.parquet", row_group_size=500)
    pq.write_table(pa.table({"id": pa.array(range(1, 40), pa.int32())}), tmp_path / "shops.parquet")
    (tmp_path / "judges_in_cleaning.py").write_text(FUNCTION)

    def run(*rules: dict[str, Any], **sources: Any) -> tuple[Any, ...]:
        project = {
            "name": "shop",
            "sources": {"rows": {"path": "rows"}, "shops": {"path": "shops.parquet"}, **sources},
            "quality": {"rules": list(rules), "max_quarantined": 1.0},
            "model": {"target": "part"},
        }
        file = tmp_path / "shop.yaml"
        file.write_text(yaml.safe_dump(project))
        for folder in ("out", "scratch", "run"):
            (tmp_path / folder).mkdir(exist_ok=True)
        home, out, scratch = (str(tmp_path / f) for f in ("home", "out", "scratch"))
        services = {"folder": str(tmp_path / "run")}
        work = Work(load(file), home, "0" * 16, out, scratch, {}, lambda text: None, services)
        result = clean_rows(work)
        files = [Path(out) / "clean" / name for name in storage.read_json(f"{out}/files.json")]
        kept = pa.concat_tables([pq.read_table(file) for file in files])
        aside = sorted(Path(result["quarantine"] or out).glob("*.parquet"))
        held = pa.concat_tables([pq.read_table(f) for f in aside]) if aside else None
        return result, work, kept, held

    return run


def test_the_first_row_of_a_key_stays_wherever_the_others_lie(clean: Any) -> None:
    result, work, kept, aside = clean(
        {"columns": ["key", "part"], "unique": True, "name": "one each"},
        {"column": "x", "range": [-2, 2]},
    )
    table = rows().to_pylist()
    seen, repeats, outside = set(), [], []
    for number, row in enumerate(table):
        if not -2 <= row["x"] <= 2:
            outside.append(number)
            continue
        key = (row["key"], row["part"])
        if row["key"] is not None and key in seen:
            repeats.append(number)
        seen.add(key)
    gone = set(repeats) | set(outside)
    assert kept["n"].to_pylist() == [2 * i for i in range(ROWS) if i not in gone]
    told = {row["n"] // 2: row for row in aside.to_pylist()}
    assert set(told) == gone
    assert {told[i]["_rule"] for i in repeats} == {"one each"}
    assert {told[i]["_rule"] for i in outside} == {"x: range"}
    for number in repeats[:20]:
        assert told[number]["_source"].endswith(f"{number // 1500}.parquet")
        assert told[number]["_position"] == number % 1500
        assert told[number]["key"] == table[number]["key"]
    assert len({row["_id"] for row in told.values()}) == len(gone)
    report = storage.read_json(work.path("report.json"))
    assert report["quarantined"] == len(gone)
    assert [rule["broken"] for rule in report["rules"]] == [len(repeats), len(outside)]
    assert (
        result["clean"]
        == ROWS - len(gone)
        == Profile.from_json(storage.read_bytes(work.path("profile.json")).decode()).rows
    )
    assert result["content"] == Content.of(kept).text
    assert len(list(Path(work.path("clean")).iterdir())) == len(
        storage.read_json(work.path("files.json"))
    )


def test_keys_are_found_in_many_ranges_of_hashes(clean: Any, monkeypatch: Any) -> None:
    whole = clean({"column": "key", "unique": True})[2]
    monkeypatch.setattr("mlray.sources.repeats._RANGE_ROWS", 700)
    assert clean({"column": "key", "unique": True})[2].equals(whole)


def test_a_repeat_that_is_only_warned_about_stays(clean: Any) -> None:
    result, _, kept, aside = clean({"column": "key", "unique": True, "severity": "warn"})
    assert kept.num_rows == ROWS
    assert aside is None
    assert "key: unique: broken by" in result["findings"][0]


def test_values_are_looked_up_in_another_source(clean: Any) -> None:
    rule = {"column": "shop", "exists_in": {"source": "shops", "column": "id"}}
    _, _, kept, aside = clean(rule, {"function": "judges_in_cleaning:even"})
    assert set(aside["shop"].to_pylist()) == {0}
    assert 0 not in kept["shop"].to_pylist()
    assert aside["_reason"][0].as_py() == "shop: 0 is not in id of shops"


def test_a_source_that_is_not_there_is_named(clean: Any, tmp_path: Path) -> None:
    from mlray.sources import find

    with pytest.raises(InputError, match=r"has no column: idd"):
        clean({"column": "shop", "exists_in": {"source": "shops", "column": "idd"}})
    clean()
    file = tmp_path / "shop.yaml"
    told = yaml.safe_load(file.read_text())
    rule = {"column": "shop", "exists_in": {"source": "shop", "column": "id"}}
    file.write_text(yaml.safe_dump({**told, "quality": {"rules": [rule]}}))
    with pytest.raises(ConfigError, match="did you mean `shops`"):
        find(load(file))


def test_a_source_that_values_are_looked_up_in_is_part_of_the_fingerprint(
    clean: Any, tmp_path: Path
) -> None:
    from mlray.sources import find

    clean({"column": "shop", "exists_in": {"source": "shops", "column": "id"}})
    project = load(tmp_path / "shop.yaml")
    before = find(project).fingerprint
    pq.write_table(pa.table({"id": [1]}), tmp_path / "shops.parquet")
    assert find(project).fingerprint != before


def test_what_stops_a_run_can_be_read_on_its_page(clean: Any, tmp_path: Path) -> None:
    with pytest.raises(QualityError, match="x: range: broken by"):
        clean({"column": "x", "range": [-2, 2], "severity": "stop"})
    page = (tmp_path / "run" / "quality.html").read_text()
    assert "The run was stopped" in page
    assert "x: range" in page


def test_rules_about_the_whole_table_see_all_blocks(clean: Any, tmp_path: Path) -> None:
    reference = rows().set_column(2, "x", pa.array(np.random.default_rng(1).normal(3, 1, ROWS)))
    (tmp_path / "before.json").write_text(Profile.of(reference).to_json())
    result, _, _, _ = clean(
        {"column": "at", "monotonic": "strictly increasing"},
        {"column": "at", "fresh": "1d", "severity": "warn"},
        {"rows": [ROWS, ROWS]},
        {"column": "key", "nulls": 0.01},
        {"column": "x", "like": "before.json", "severity": "warn"},
    )
    newest, drifted = result["findings"]
    assert "is " in newest
    assert "old; 1d may be" in newest
    assert "x drifted: values moved down" in drifted
    with pytest.raises(InputError, match="reference of a `like` rule is not there"):
        clean({"column": "x", "like": "gone.json"})


def test_memory_is_told(clean: Any) -> None:
    result, *_ = clean()
    assert result["memory"]["peak_bytes"] > 30e6
    assert result["memory"]["spilled_bytes"] >= 0
    assert "a task" in result["summary"]
    assert result["findings"] == []


def test_rows_that_are_unchanged_are_looked_at_again_when_they_may_have_grown_old() -> None:
    from mlray.config.quality import Quality, Rule
    from mlray.pipeline import line

    class Aged:
        quality = Quality(rules=[Rule(column="at", fresh="1d")])

    assert line._periods(Aged) == [int(datetime.now(UTC).timestamp() // 86_400)]  # type: ignore[arg-type]
