from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mlray.errors import ConfigError
from mlray.models.roles import choose_roles
from mlray.stats.profile import Profile

N = 2000


def profile() -> Profile:
    random = np.random.default_rng(0)
    return Profile.of(
        pa.table(
            {
                "late": random.random(N) < 0.3,
                "row": np.arange(N),
                "ticket": random.integers(0, 10**12, N),
                "uuid": [f"{random.integers(1 << 62):x}" for _ in range(N)],
                "comment": [" ".join(map(str, random.integers(0, 99, 25))) for _ in range(N)],
                "country": ["US"] * N,
                "nothing": pa.nulls(N, pa.float64()),
                "sometimes": pa.array([1.0 if i % 10 == 0 else None for i in range(N)]),
                "grade": random.integers(1, 6, N),
                "salary": random.integers(20_000, 200_000, N),
                "height": random.normal(170, 10, N),
                "tailnum": random.choice([f"N{i}" for i in range(500)], N),
                "jet": random.random(N) < 0.5,
                "blob": pa.array([b"x"] * N),
                "decided_at": pa.array(np.arange(N) * 10**9, pa.timestamp("us")),
                "built_on": pa.array(random.integers(0, 9999, N).astype("int32"), pa.date32()),
            }
        )
    )


def test_columns_get_the_roles_that_their_values_suggest() -> None:
    roles, _ = choose_roles(profile(), "late", times=["decided_at"])
    assert {r.column: r.kind for r in roles} == {
        "sometimes": "numeric",
        "grade": "numeric",
        "salary": "numeric",
        "height": "numeric",
        "tailnum": "category",
        "jet": "numeric",
        "built_on": "time",
    }


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("late", "the target"),
        ("row", "an id: whole numbers"),
        ("ticket", "an id: whole numbers"),
        ("uuid", "an id: "),
        ("comment", "free text"),
        ("country", "constant"),
        ("nothing", "no row has a value"),
        ("blob", "constant"),
        ("decided_at", "became known"),
    ],
)
def test_what_says_nothing_is_left_out_with_its_reason(column: str, reason: str) -> None:
    _, left = choose_roles(profile(), "late", times=["decided_at"])
    assert reason in {item.column: item.reason for item in left}[column]


def test_every_column_is_either_used_or_left_out() -> None:
    roles, left = choose_roles(profile(), "late")
    names = [r.column for r in roles] + [item.column for item in left]
    assert sorted(names) == sorted(profile().columns)
    assert all(r.reason for r in roles)


def test_declared_kinds_and_features_are_obeyed() -> None:
    kinds = {"grade": "category", "row": "numeric"}
    roles, _ = choose_roles(profile(), "late", kinds=kinds)  # type: ignore[arg-type]
    chosen = {r.column: r.kind for r in roles}
    assert chosen["grade"] == "category"
    assert chosen["row"] == "numeric"
    roles, left = choose_roles(profile(), "late", features=["height", "ticket"])
    assert [r.column for r in roles] == ["ticket", "height"]
    assert "not named" in {item.column: item.reason for item in left}["salary"]


def test_ignored_columns_are_left_out() -> None:
    _, left = choose_roles(profile(), "late", ignore=["height"])
    assert {item.column: item.reason for item in left}["height"] == "named in model.ignore"


def test_a_name_that_does_not_exist_is_refused() -> None:
    for options in ({"features": ["hight"]}, {"ignore": ["hight"]}, {"kinds": {"hight": "time"}}):
        with pytest.raises(ConfigError, match="hight"):
            choose_roles(profile(), "late", **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="target"):
        choose_roles(profile(), "latte")


def test_nothing_left_to_learn_from_is_an_error_that_says_why() -> None:
    small = Profile.of(pa.table({"y": [0, 1], "c": ["x", "x"]}))
    with pytest.raises(ConfigError, match="constant"):
        choose_roles(small, "y")
