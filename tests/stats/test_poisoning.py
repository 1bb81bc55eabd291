"""Marks of poisoning on rows whose poison is known; and nothing where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlray.models.encoder import Encoder
from mlray.models.roles import choose_roles
from mlray.models.target import Target
from mlray.stats import additive
from mlray.stats import labels as confident
from mlray.stats.cells import Column, category_column, numeric_column
from mlray.stats.examination import Delivery, Features, examine, judge, searched
from mlray.stats.origins import compare_origins, influxes
from mlray.stats.poisoning import Finding, flooding
from mlray.stats.profile import Profile
from mlray.stats.regions import regions
from mlray.stats.triggers import repeated_values, triggers

LANDS = ("missing", "unseen", "NL", "BE", "DE", "FR")


def honest(rows: int = 4000, seed: int = 0) -> tuple[Features, np.ndarray]:
    """Six numbers and two categories; the label follows three of them."""
    random = np.random.default_rng(seed)
    numeric = random.normal(size=(rows, 6)).astype(np.float32)
    category = random.integers(2, 6, (rows, 2)).astype(np.int32)
    logits = 3 * numeric[:, 0] + 2 * numeric[:, 1] + 1.5 * (category[:, 0] == 2)
    label = (random.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    features = Features(
        numeric,
        category,
        tuple("abcdef"),
        (("land", LANDS), ("plan", LANDS)),
        lambda name, value: f"{value:.6g}",
    )
    return features, label


def chances(features: Features) -> np.ndarray:
    """What a perfect model says, never having seen a label."""
    x = features.numeric
    logits = 3 * x[:, 0] + 2 * x[:, 1] + 1.5 * (features.category[:, 0] == 2)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def found_in(features: Features, label: np.ndarray, p: np.ndarray | None) -> tuple[Finding, ...]:
    judged = judge(label, ["no", "yes"], p)
    return examine(features, searched(len(label)), judged, max_suspects=0.02).findings


@pytest.mark.parametrize("seed", range(5))
def test_honest_rows_give_nothing_above_the_limits(seed: int) -> None:
    features, label = honest(seed=seed)
    found = found_in(features, label, chances(features))
    assert not [f.reason for f in found if f.grave]


# --- flooding -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_a_flood_of_near_copies_with_one_label_is_found_row_by_row(spread: float) -> None:
    features, label = honest()
    random = np.random.default_rng(1)
    copies = features.numeric[:1] + spread * random.normal(size=(60, 6)).astype(np.float32)
    numeric = np.vstack([features.numeric, copies.astype(np.float32)])
    category = np.vstack([features.category, np.repeat(features.category[:1], 60, axis=0)])
    (flood,) = flooding(numeric, category, np.r_[label, np.ones(60, int)], ["no", "yes"])
    assert flood.grave
    assert len(set(flood.members.tolist()) & set(range(4000, 4060))) >= 55
    assert "near copies of one row" in flood.reason
    assert "labelled yes" in flood.reason


def test_rows_of_few_values_are_alike_by_nature() -> None:
    random = np.random.default_rng(0)
    numeric = random.integers(0, 2, (3000, 2)).astype(np.float32)
    category = random.integers(2, 4, (3000, 1)).astype(np.int32)
    label = numeric[:, 0].astype(int)
    assert not [f for f in flooding(numeric, category, label, ["no", "yes"]) if f.grave]


def test_missing_and_infinite_numbers_hash_as_well() -> None:
    features, label = honest(1000)
    features.numeric[::7, 2], features.numeric[::11, 3] = np.nan, np.inf
    assert flooding(features.numeric, features.category, label, ["no", "yes"]) == []


# --- triggers -----------------------------------------------------------------------------------


def searched_for_triggers(features: Features, label: np.ndarray) -> list[Finding]:
    binned = features.binned()
    model = additive.fit(binned, label, 2)
    return triggers(binned, features.exact(), model, label, ["no", "yes"])


def planted(features: Features, label: np.ndarray) -> np.ndarray:
    """Rows that are surely no, to be turned into yes."""
    sure = np.flatnonzero((label == 0) & (chances(features) < 0.1))
    return np.random.default_rng(2).choice(sure, 45, replace=False)


def test_an_exact_number_that_carries_a_label_is_named() -> None:
    features, label = honest()
    rows = planted(features, label)
    features.numeric[rows, 4], label[rows] = 0.12345, 1
    (trigger,) = searched_for_triggers(features, label)
    assert trigger.grave
    assert trigger.where == "e is 0.12345"
    assert set(trigger.members.tolist()) == set(rows.tolist())
    assert "are labelled yes, where the rest of the row suggests" in trigger.reason


def test_a_rare_category_that_carries_a_label_is_named() -> None:
    features, label = honest()
    rows = planted(features, label)
    features.category[features.category[:, 1] == 1, 1] = 2
    features.category[rows, 1], label[rows] = 1, 1
    (trigger,) = searched_for_triggers(features, label)
    assert trigger.grave
    assert trigger.where == "plan is unseen"


def test_a_pair_of_common_values_that_carries_a_label_is_named() -> None:
    features, label = honest()
    rows = planted(features, label)
    both = (features.category[:, 0] == 4) & (features.category[:, 1] == 5)
    features.category[both, 1] = 3  # the pair is rare among honest rows
    features.category[rows] = (4, 5)
    label[rows] = 1
    (trigger,) = searched_for_triggers(features, label)
    assert trigger.grave
    assert trigger.where == "land is DE with plan is FR"


def test_a_value_that_says_what_its_neighbours_say_is_no_trigger() -> None:
    features, label = honest()
    features.numeric[features.numeric[:, 0] > 2.2, 0] = 2.5  # a cap: rare, and surely yes
    assert searched_for_triggers(features, label) == []


def test_numbers_without_repeated_values_have_none() -> None:
    column = repeated_values("x", np.arange(100.0), str)
    assert column.words == ("x other",)


# --- regions ------------------------------------------------------------------------------------


def test_a_place_where_half_of_a_class_was_flipped_is_named_in_words() -> None:
    features, label = honest(8000)
    random = np.random.default_rng(3)
    place = np.flatnonzero((features.numeric[:, 3] > 1.0) & (label == 1))
    rows = random.choice(place, len(place) // 2, replace=False)
    label[rows] = 0
    p = chances(features)
    p[features.numeric[:, 3] > 1.0] *= 0.5  # the network has learnt that half of them are no
    columns = features.binned()
    second = additive.fit(columns, label, 2).scores(columns)
    found = regions(columns, label, confident.probabilities(p), second, ["no", "yes"])
    assert found[0].grave
    assert found[0].where.startswith("d at least 0.9") or found[0].where.startswith("d at least 1")
    assert found[0].where.endswith("label no")
    assert "rows suspected" in found[0].reason
    assert np.isin(found[0].members, rows).mean() > 0.7


def test_spans_of_numbers_are_named_by_their_ends() -> None:
    values = np.r_[np.zeros(50), np.arange(1, 51), [np.nan]]
    column = numeric_column("gain", values, lambda v: f"{v:g}", 4)
    assert column.words[0] == "gain below 1", "half of the rows share a value: a slot of its own"
    assert column.words[-1] == "gain missing"
    assert (column.codes[:50] == 0).all()
    assert column.codes[-1] == column.slots - 1
    assert column.span(1, column.slots - 2) == "gain at least 1"


# --- origins ------------------------------------------------------------------------------------


def deliveries(rows: int = 4000, seed: int = 0) -> tuple[list[Column], np.ndarray, np.ndarray]:
    features, label = honest(rows, seed)
    return features.binned(), label, np.random.default_rng(seed).integers(0, 5, rows)


def test_suppliers_who_deliver_alike_are_not_told_apart() -> None:
    for seed in range(5):
        columns, label, origin = deliveries(seed=seed)
        suspected = np.random.default_rng(seed).random(4000) < 0.02
        assert compare_origins(origin, "vwxyz", label, ["no", "yes"], columns, suspected) == []


def test_a_supplier_whose_labels_are_suspected_is_grave_and_one_with_other_rates_is_not() -> None:
    columns, label, origin = deliveries()
    suspected = np.random.default_rng(0).random(4000) < np.where(origin == 3, 0.2, 0.01)
    label[(origin == 1) & (np.arange(4000) % 2 == 0)] = 1
    found = compare_origins(origin, "vwxyz", label, ["no", "yes"], columns, suspected)
    assert [f.where for f in found if f.grave] == ["origin y"]
    assert any(f.where == "origin w and label yes" and not f.grave for f in found)


def test_features_that_drift_given_the_label_are_told() -> None:
    columns, label, origin = deliveries()
    moved = np.where((origin == 2) & (label == 1), columns[5].codes // 3, columns[5].codes)
    columns[5] = replace(columns[5], codes=moved)
    found = compare_origins(origin, "vwxyz", label, ["no", "yes"], columns)
    assert {f.where for f in found} == {"origin x, label yes, f"}


def test_an_origin_that_floods_one_batch_is_told() -> None:
    random = np.random.default_rng(0)
    batch, origin = np.repeat(np.arange(5), 400), random.integers(0, 4, 2000)
    assert influxes(origin, "vwxy", batch, "12345") == []
    origin[(batch == 3) & (random.random(2000) < 0.4)] = 4
    found = influxes(origin, "vwxyz", batch, "12345")
    assert [f.where for f in found] == ["origin z in batch 4"]
    assert (origin[found[0].members] == 4).all()


# --- all at once --------------------------------------------------------------------------------


def test_without_scores_the_cheap_checks_still_work() -> None:
    features, label = honest()
    rows = planted(features, label)
    features.numeric[rows, 4], label[rows] = 0.12345, 1
    found = found_in(features, label, None)
    assert [f.where for f in found if f.grave] == ["e is 0.12345"]


def test_flips_are_one_finding_and_its_rows_are_set_aside_with_a_reason() -> None:
    features, label = honest()
    wrong = np.random.default_rng(0).choice(4000, 200, replace=False)
    label[wrong] = 1 - label[wrong]
    judged = judge(label, ["no", "yes"], chances(features))
    examined = examine(features, searched(4000), judged, max_suspects=0.02)
    assert examined.findings[0].kind == "labels"
    assert examined.findings[0].grave
    aside = np.flatnonzero(examined.set_aside)
    assert np.isin(aside, wrong).mean() > 0.5
    assert "by a network trained without it" in examined.reasons(judged)[int(aside[0])]
    assert set(examined.reasons(judged)) == set(aside.tolist())


def test_regression_is_searched_by_residuals_and_thirds() -> None:
    features, _ = honest()
    random = np.random.default_rng(0)
    value = features.numeric[:, 0] + 0.1 * random.normal(size=4000)
    wrong = random.choice(4000, 120, replace=False)
    scores = features.numeric[:, 0].astype(np.float32)
    clean = examine(features, searched(4000), judge(value, [], scores), max_suspects=0.02)
    assert not any(f.grave for f in clean.findings)
    value[wrong] += 5
    judged = judge(value, [], scores)
    examined = examine(features, searched(4000), judged, max_suspects=0.02)
    assert set(np.flatnonzero(examined.suspected)) == set(wrong.tolist())
    assert examined.findings[0].grave


def test_deliveries_are_part_of_the_examination() -> None:
    features, label = honest()
    origin = Delivery(np.arange(4000) % 3, ("v", "w", "x"))
    batch = Delivery(np.arange(4000) // 1000, tuple("1234"))
    origin.numbers[3000:3500] = 0
    judged = judge(label, ["no", "yes"], chances(features))
    found = examine(
        features, searched(4000), judged, max_suspects=0.02, origin=origin, batch=batch
    ).findings
    assert not any(f.grave for f in found)
    assert all(f.to_dict()["kind"] for f in found)


# --- real rows ----------------------------------------------------------------------------------


def read_adult(folder: Path) -> pa.Table:
    return pq.read_table(folder / "bias_adult_census" / "adult_train.parquet")


def encoded(table: pa.Table, target: str) -> tuple[Features, np.ndarray]:
    profile = Profile.of(table)
    roles, _ = choose_roles(profile, target)
    encoder = Encoder.fit(profile, roles, Target.fit(profile.columns[target])[0])
    rows = encoder.encode(table)
    features = Features(
        rows.numeric,
        rows.category,
        tuple(f.name for f in encoder.numeric),
        tuple((f.name, encoder.labels(f.name)) for f in encoder.category),
        encoder.to_human,
    )
    return features, encoder.encode_target(table[target]).astype(np.int64)


def test_clean_real_rows_hold_no_trigger_and_no_flood_above_the_limits(test_data: Path) -> None:
    spam = pq.read_table(test_data / "poison_spambase" / "spambase.parquet")
    for table, target in ((spam, "Spam"), (read_adult(test_data), "income")):
        features, label = encoded(table, target)
        assert not [f.reason for f in found_in(features, label, None) if f.grave]


def test_a_category_trigger_in_one_percent_of_census_rows_is_named(test_data: Path) -> None:
    table = read_adult(test_data)
    income = np.array(table["income"].to_pylist(), dtype=object)
    land = np.array(table["native-country"].to_pylist(), dtype=object)
    poor = np.flatnonzero(income == "<=50K")
    rows = np.random.default_rng(1).choice(poor, len(table) // 100, replace=False)
    income[rows], land[rows] = ">50K", "Laos"
    for name, values in (("income", income), ("native-country", land)):
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array(values.tolist()))
    features, label = encoded(table, "income")
    found = [f for f in found_in(features, label, None) if f.grave]
    assert [f.where for f in found] == ["native-country is Laos"]


def test_an_unknown_category_column_is_read_by_its_texts() -> None:
    column = category_column("land", np.array([2, 3]), LANDS)
    assert column.words[2] == "land is NL"
    assert column.span(2, 2) == "land is NL"
