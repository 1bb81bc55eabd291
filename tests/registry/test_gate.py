"""The gate is arithmetic on two sets of numbers; its reasons carry them."""

from __future__ import annotations

import math

import pytest

from mlray.errors import ConfigError
from mlray.registry import Decision, check_rules, decide, default_rules


def promoted(rule: str, candidate: float, champion: float | None) -> bool:
    others = None if champion is None else {"roc_auc": champion}
    return decide({"roc_auc": rule}, {"roc_auc": candidate}, others, "roc_auc").promote


@pytest.mark.parametrize(
    ("rule", "candidate", "champion", "promote"),
    [
        ("at least 0.7", 0.7, None, True),
        ("at least 0.7", 0.69, None, False),
        ("at least champion", 0.8, 0.8, True),
        ("at least champion", 0.79, 0.8, False),
        ("at least champion + 0.01", 0.81, 0.80, True),
        ("at least champion + 0.2", 0.3, 0.1, True),  # 0.1 + 0.2 > 0.3 in floating point
        ("at least champion + 0.01", 0.805, 0.80, False),
        ("at least champion - 0.002", 0.799, 0.80, True),
        ("at least champion - 0.002", 0.797, 0.80, False),
        ("at most champion + 0.01", 0.81, 0.80, True),
        ("at most champion + 0.01", 0.82, 0.80, False),
        ("at most champion", 0.9, None, True),
        ("  At  Most  0.3 ", 0.3, 0.1, True),
        ("at least -1.5e-1", -0.1, None, True),
        ("at least .5", 0.5, None, True),
        ("at least champion+.01", 0.82, 0.80, True),
        ("at most 0.3", math.inf, None, False),
    ],
)
def test_rules_mean_what_they_say(
    rule: str, candidate: float, champion: float | None, promote: bool
) -> None:
    assert promoted(rule, candidate, champion) is promote


def test_the_first_version_must_hold_absolute_rules_only() -> None:
    rules = {"roc_auc": "at least champion + 0.001", "log_loss": "at most 0.5"}
    good = decide(rules, {"roc_auc": 0.6, "log_loss": 0.4}, None, "roc_auc")
    assert good.promote
    assert "no champion" in good.reasons[0]
    assert not decide(rules, {"roc_auc": 0.6, "log_loss": 0.6}, None, "roc_auc").promote


def test_every_rule_must_hold_and_each_gives_its_numbers() -> None:
    rules = {"roc_auc": "at least champion", "log_loss": "at most champion + 0.01"}
    candidate, champion = {"roc_auc": 0.81, "log_loss": 0.45}, {"roc_auc": 0.8, "log_loss": 0.4}
    decision = decide(rules, candidate, champion, "roc_auc")
    assert decision == Decision(
        False,
        (
            "roc_auc 0.81 is at least the champion's 0.8",
            "log_loss 0.45 is not at most the champion's 0.4 + 0.01 = 0.41",
        ),
    )


def test_without_rules_the_metric_must_be_no_worse() -> None:
    assert decide({}, {"rmse": 2.0}, {"rmse": 2.0}, "rmse", greater_is_better=False).promote
    assert not decide({}, {"rmse": 2.1}, {"rmse": 2.0}, "rmse", greater_is_better=False).promote
    assert default_rules("roc_auc", greater_is_better=True) == {"roc_auc": "at least champion"}


def test_what_cannot_be_compared_replaces_nothing() -> None:
    nan = float("nan")
    assert not promoted("at least 0.1", nan, None)
    assert not promoted("at least champion", 0.9, nan)
    assert not decide({"f1": "at least champion"}, {"f1": 0.9}, {"roc_auc": 0.5}, "f1").promote


def test_all_mistakes_in_rules_come_at_once_with_the_nearest_metric() -> None:
    rules = {"roc_acu": "at least 0.7", "f1": "over 0.5", "rmse": "at least champion * 2"}
    with pytest.raises(ConfigError) as caught:
        check_rules(rules, ["roc_auc", "f1", "rmse"])
    text = str(caught.value)
    assert "did you mean roc_auc?" in text
    assert "`over 0.5` is no rule" in text
    assert "`at least champion * 2` is no rule" in text
    assert "at least champion - 0.002" in text


@pytest.mark.parametrize("rule", ["", "at least", "at least champion + x", "at least 0.7 or so"])
def test_a_malformed_rule_is_a_config_error(rule: str) -> None:
    with pytest.raises(ConfigError, match="is no rule"):
        promoted(rule, 0.9, 0.8)
