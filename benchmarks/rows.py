"""All quality rules and the profile over 5 million rows, beside merely reading the same files.

Run: python benchmarks/rows.py [--rows 5000000] [--rounds 5] [--no-stage] [--no-peer]
Writes benchmarks/results/rows.json

The files: 30 columns (20 numbers, 6 texts, 2 times, 2 identifiers) in 8 Parquet files; some 0.1 %
of the rows break a rule. `scan` reads all columns with pyarrow's dataset scanner, in two threads,
and throws them away. The engine reads the same files and checks them in two processes, block by
block, as Ray's tasks do, without Ray's own start. The sides take turns; a value is the ratio of
medians of wall time, and CPU time stands beside it. `stage` is the whole quality stage through Ray:
rules, profile, fingerprint, and writing what is clean.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import yaml
from _claims import Claim, save

from mlray import quality
from mlray.config.quality import Rule
from mlray.quality.keys import KeySet, hashes_of
from mlray.sources import repeats
from mlray.stats.profile import Profile

FILES, GROUP_ROWS, PROCESSES = 8, 1 << 17, 2
CARRIERS = [f"{a}{b}" for a in "ABCDEFGHIJ" for b in "XYZ"]
STATES = ["new", "paid", "sent", "returned", "lost"]
CUSTOMERS = 100_000
START = np.datetime64("2025-01-01T00:00:00", "us")


CHECKS = """\
import pyarrow as pa
import pyarrow.compute as pc


def cheap(table):
    return pc.less_equal(table["price1"], pa.scalar(1e6))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stage", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mlray-rows-"))
    try:
        generate(folder, arguments.rows)
        claims = compare(folder, arguments.rounds)
        claims += beside_a_scan(folder, "pandera", peer) if arguments.peer else []
        if arguments.stage:
            claims += beside_a_scan(folder, "stage", stage)
        packages = ["pyarrow", "numpy", "polars", "ray", "pandera"]
        save("rows", claims, packages, rows=arguments.rows, columns=30, rules=len(RULES))
    finally:
        shutil.rmtree(folder)


# --- measuring ----------------------------------------------------------------------------------


def compare(folder: Path, rounds: int) -> list[Claim]:
    """Scan, rules and profile in turns."""
    engine = Engine(folder)
    sides: dict[str, Callable[[], float]] = {
        "scan": partial(scan, folder / "rows"),
        "quality": engine.check,
        "profile": engine.profile,
    }
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            began = time.perf_counter()
            used = side()
            if number:  # the first round warms up
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(used)
    engine.close()
    walls, cpus = ({n: median(v) for n, v in held.items()} for held in (wall, cpu))
    claims = []
    for name, goal in (("quality", 2.5), ("profile", None)):
        ratio = walls[name] / walls["scan"]
        claims.append(Claim(f"{name}_vs_scan", ratio, goal, "x", "lower"))
        ratio = cpus[name] / cpus["scan"]
        claims.append(Claim(f"{name}_vs_scan_cpu", ratio, None, "x", "lower"))
    claims += [Claim(f"{name}_s", value, None, "s", "lower") for name, value in walls.items()]
    claims += [Claim(f"{name}_cpu_s", value, None, "s", "lower") for name, value in cpus.items()]
    return claims


def beside_a_scan(folder: Path, name: str, side: Callable[[Path], float]) -> list[Claim]:
    """What takes long is measured once, between two scans: machines are shared and busy."""

    def scan_s() -> float:
        began = time.perf_counter()
        scan(folder / "rows")
        return time.perf_counter() - began

    before, seconds, after = scan_s(), side(folder), scan_s()
    ratio = 2 * seconds / (before + after)
    return [
        Claim(f"{name}_s", seconds, None, "s", "lower"),
        Claim(f"{name}_vs_scan", ratio, None, "x", "lower"),
    ]


def scan(folder: Path) -> float:
    """CPU seconds of reading all columns of all files."""
    began = time.process_time()
    rows = sum(batch.num_rows for batch in pads.dataset(folder).to_batches())
    assert rows
    return time.process_time() - began


def peer(folder: Path) -> float:
    """Pandera on Polars, for the rules that it has: no keys of another source, no order, no age,
    no distribution, no function on Arrow. Once, since it takes long."""
    import polars as pl

    schema = pandera_schema()
    began = time.perf_counter()
    frame = pl.read_parquet(folder / "rows" / "*.parquet")
    from pandera.errors import SchemaErrors

    found = 0
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        found = errors.failure_cases.height
    seconds = time.perf_counter() - began
    assert found
    return seconds


def pandera_schema() -> Any:
    import pandera.polars as pandera

    named: dict[str, list[Any]] = {}
    required, unique = set(), []
    for each in RULES:
        columns = each.get("columns") or [each.get("column")]
        required |= set(columns) if each.get("required") else set()
        unique += [columns] if each.get("unique") else []
        for column in columns:
            named.setdefault(column, []).extend(pandera_checks(each))
    return pandera.DataFrameSchema(
        {
            name: pandera.Column(checks=checks, nullable=name not in required)
            for name, checks in named.items()
            if name
        },
        unique=unique[1],
        checks=[
            pandera.Check(
                lambda data: data.lazyframe.select(pl_col("arrived") >= pl_col("ordered"))
            ),
        ],
    )


def pl_col(name: str) -> Any:
    import polars as pl

    return pl.col(name)


def pandera_checks(rule: dict[str, Any]) -> list[Any]:
    from datetime import datetime

    import pandera.polars as pandera

    checks = []
    if "range" in rule:
        low, high = (datetime.fromisoformat(v) if isinstance(v, str) else v for v in rule["range"])
        checks.append(pandera.Check.in_range(low, high))
    if "allowed" in rule:
        checks.append(pandera.Check.isin(rule["allowed"]))
    if "matches" in rule:
        checks.append(pandera.Check.str_matches(f"^{rule['matches']}$"))
    if "length" in rule:
        checks.append(pandera.Check.str_length(*rule["length"]))
    return checks


def stage(folder: Path) -> float:
    """The whole stage through Ray, in a cluster that is up."""
    import mlray

    project = mlray.load(folder / "orders.yaml", f"storage.path={folder}/home")
    with mlray.connected(project):
        import ray

        warm = ray.remote(lambda: bool(__import__("mlray.pipeline.blocks")))
        ray.get([warm.remote() for _ in range(PROCESSES)])
        done = mlray.run(project, until="quality").stage("quality")
    print(f"stage: {done.result['summary']}")
    return done.seconds


# --- the rows -----------------------------------------------------------------------------------


def generate(folder: Path, rows: int) -> None:
    """The files, the source that `exists_in` asks, a reference profile, and the project file."""
    (folder / "rows").mkdir()
    random = np.random.default_rng(0)
    size = -(-rows // FILES)
    for number in range(FILES):
        first = number * size
        table = some_rows(random, first, min(size, rows - first))
        pq.write_table(table, folder / "rows" / f"{number}.parquet", row_group_size=GROUP_ROWS)
    (folder / "reference.json").write_text(Profile.of(table).to_json())
    pq.write_table(pa.table({"id": np.arange(CUSTOMERS)}), folder / "customers.parquet")
    (folder / "checks.py").write_text(CHECKS)
    project = {
        "name": "orders",
        "sources": {"rows": {"path": "rows"}, "customers": {"path": "customers.parquet"}},
        "quality": {"rules": RULES},
        "model": {"target": "state"},
    }
    (folder / "orders.yaml").write_text(yaml.safe_dump(project))


def some_rows(random: np.random.Generator, first: int, rows: int) -> pa.Table:
    row = np.arange(first, first + rows)
    columns: dict[str, Any] = {f"x{i}": random.normal(size=rows) for i in range(10)}
    columns |= {f"price{i}": random.gamma(2, 50, rows).round(2) for i in range(5)}
    columns |= {f"count{i}": random.poisson(4 + i, rows) for i in range(5)}
    columns["carrier"] = np.array(CARRIERS)[random.integers(0, len(CARRIERS), rows)]
    columns["state"] = np.array(STATES)[random.choice(5, rows, p=[0.1, 0.5, 0.3, 0.09, 0.01])]
    columns["city"] = np.array([f"city {i}" for i in range(500)])[random.integers(0, 500, rows)]
    columns["code"] = np.char.add("C-", random.integers(1000, 10000, rows).astype(str))
    columns["note"] = np.array(["", "fragile", "call before", "leave at door"])[
        random.integers(0, 4, rows)
    ]
    columns["country"] = np.array(["DE", "FR", "US", "JP"])[random.integers(0, 4, rows)]
    columns["ordered"] = START + row * np.timedelta64(5, "s")
    columns["arrived"] = columns["ordered"] + random.integers(1, 10**6, rows).astype("m8[s]")
    columns["order"] = row
    columns["customer"] = random.integers(0, CUSTOMERS, rows)
    spoil(random, columns, rows)
    table = pa.table(columns)
    gaps = pa.array(random.random(rows) < 0.02)
    for name in ("x8", "x9", "note"):
        field_ = table.schema.get_field_index(name)
        held = pc.if_else(gaps, pa.scalar(None, table[name].type), table[name])
        table = table.set_column(field_, name, held)
    return table


def spoil(random: np.random.Generator, columns: dict[str, Any], rows: int) -> None:
    """About one row in a thousand breaks one of the rules."""
    few = max(1, rows // 5000)
    columns["x0"][random.integers(0, rows, few)] = 1e9
    columns["price0"][random.integers(0, rows, few)] = -1.0
    columns["carrier"][random.integers(0, rows, few)] = "??"
    columns["arrived"][random.integers(0, rows, few)] = START - np.timedelta64(1, "D")
    columns["customer"][random.integers(0, rows, few)] = CUSTOMERS + 7
    columns["order"][random.integers(1, rows, 20)] = columns["order"][0]


# --- the rules: each kind at least once ---------------------------------------------------------

NUMBERS, PRICES = [f"x{i}" for i in range(10)], [f"price{i}" for i in range(5)]
COUNTS = [f"count{i}" for i in range(5)]
RULES: list[dict[str, Any]] = [
    {"columns": [*NUMBERS[:8], *PRICES, *COUNTS, "order", "customer"], "required": True},
    {"columns": ["carrier", "state", "city", "code", "country"], "required": True},
    {"columns": NUMBERS, "range": [-10, 10]},
    {"columns": PRICES, "range": [0, 100_000]},
    {"columns": COUNTS, "range": [0, 1000]},
    {"columns": ["ordered", "arrived"], "range": ["2025-01-01", "2027-12-31"]},
    {"columns": ["x8", "x9", "note"], "nulls": 0.1},
    {"column": "carrier", "allowed": CARRIERS},
    {"column": "state", "allowed": STATES},
    {"column": "count0", "allowed": list(range(100))},
    {"column": "country", "matches": "[A-Z]{2}"},
    {"column": "code", "matches": "C-[0-9]{4}"},
    {"column": "city", "length": [1, 20]},
    {"column": "note", "length": [0, 20]},
    {"column": "order", "type": "int64"},
    {"column": "count1", "type": "float64"},
    {"column": "order", "unique": True},
    {"columns": ["customer", "ordered"], "unique": True},
    {"holds": "arrived >= ordered"},
    {"holds": "price0 >= 0 and count0 + count1 < 1000"},
    {"column": "customer", "exists_in": {"source": "customers", "column": "id"}},
    {"function": "checks:cheap"},
    {"column": "ordered", "monotonic": "increasing"},
    {"column": "ordered", "fresh": "520w"},
    {"rows": [1, None]},
    {"columns": ["x1", "city"], "like": "reference.json"},
]
"""Every kind at least once; 70 checks once the columns are counted."""


# --- the engine ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """A row group to read, and where hashes of its keys go."""

    file: str
    group: int
    beside: str = ""

    def read(self, columns: list[str] | None = None) -> pa.Table:
        return pq.ParquetFile(self.file).read_row_group(self.group, columns, use_threads=False)


class Engine:
    """What Ray's tasks do, without Ray: blocks in processes that stay."""

    def __init__(self, folder: Path) -> None:
        self.groups = [
            Group(str(file), group)
            for file in sorted((folder / "rows").glob("*.parquet"))
            for group in range(pq.ParquetFile(file).num_row_groups)
        ]
        self.pool = ProcessPoolExecutor(
            PROCESSES, multiprocessing.get_context("spawn"), _set_up, (str(folder),)
        )

    def check(self) -> float:
        """All rules over all rows, repeated keys looked at again; CPU seconds."""
        began = time.process_time()
        with tempfile.TemporaryDirectory() as beside:
            groups = [Group(g.file, g.group, f"{beside}/{n}") for n, g in enumerate(self.groups)]
            checked = list(self.pool.map(_check, groups))
            report = reduce(quality.QualityReport.merge, [report for report, _ in checked])
            found = list(self.pool.map(_repeats, [groups] * 2, range(2)))
        assert report.quarantined
        assert found[0][0]
        used = sum(seconds for _, seconds in [*checked, *found])
        return used + time.process_time() - began

    def profile(self) -> float:
        """The profile of all rows; CPU seconds."""
        began = time.process_time()
        parts = list(self.pool.map(_profile, self.groups))
        assert Profile.merged(profile for profile, _ in parts).rows
        return sum(seconds for _, seconds in parts) + time.process_time() - began

    def close(self) -> None:
        self.pool.shutdown()


_RULES: list[quality.CompiledRule] = []


def _set_up(folder: str) -> None:
    pa.set_cpu_count(1)
    keys = KeySet.of([hashes_of(pa.chunked_array([np.arange(CUSTOMERS)]), pa.int64())])
    schema = pads.dataset(f"{folder}/rows").schema
    _RULES[:] = quality.compile_rules(
        [Rule(**rule) for rule in RULES], schema, folder=folder,
        keys={("customers", "id", "int64"): keys},
    )  # fmt: skip


def _unique() -> list[quality.CompiledRule]:
    return [rule for rule in _RULES if rule.check == "unique"]


def _check(group: Group) -> tuple[quality.QualityReport, float]:
    began = time.process_time()
    checked = quality.check(group.read(), _RULES)
    for number, rule in enumerate(_unique()):
        repeats.write_hashes(f"{group.beside}.{number}.npy", checked.clean, rule.columns)
    if checked.kept is not None:
        np.save(f"{group.beside}.kept.npy", checked.kept)
    return checked.report, time.process_time() - began


def _repeats(groups: list[Group], number: int) -> tuple[int, float]:
    """Rows that repeat a key, by the keys themselves."""
    began = time.process_time()
    columns = list(_unique()[number].columns)

    def keys(place: int) -> pa.Table:
        kept = Path(f"{groups[place].beside}.kept.npy")
        table = groups[place].read(columns)
        return table.filter(pa.array(np.load(kept))) if kept.exists() else table

    files = [f"{group.beside}.{number}.npy" for group in groups]
    found = repeats.repeated_rows(files, keys)
    return sum(map(len, found.values())), time.process_time() - began


def _profile(group: Group) -> tuple[Profile, float]:
    began = time.process_time()
    return Profile.of(group.read()), time.process_time() - began


if __name__ == "__main__":
    main()
