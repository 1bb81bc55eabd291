"""Whether a candidate may become champion: a pure function of rules and two sets of numbers."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mlray.errors import ConfigError

GRAMMAR = "`at least 0.7`, `at most 0.3`, `at least champion`, `at least champion - 0.002`"
_NUMBER = r"\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?"
_RULE = re.compile(
    rf"at\s+(least|most)\s+(?:(champion)(?:\s*([+-])\s*({_NUMBER}))?|([+-]?(?:{_NUMBER})))", re.I
)
_SLACK = 1e-12
"""Relative: what floating-point arithmetic, not a model, may make of a bound."""


@dataclass(frozen=True)
class Decision:
    """Whether the candidate is promoted; each rule's outcome as one sentence with its numbers."""

    promote: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Rule:
    """`metric >= bound` or `metric <= bound`; the bound is `amount`, or champion + `amount`."""

    metric: str
    least: bool
    champion: bool
    amount: float

    @property
    def word(self) -> str:
        return "at least" if self.least else "at most"

    def bound(self, champion: float) -> float:
        return champion + self.amount if self.champion else self.amount

    def bound_text(self, champion: float) -> str:
        if not self.champion:
            return f"{self.amount:.6g}"
        if not self.amount:
            return f"the champion's {champion:.6g}"
        sign, bound = "-" if self.amount < 0 else "+", self.bound(champion)
        return f"the champion's {champion:.6g} {sign} {abs(self.amount):g} = {bound:.6g}"

    def holds(self, value: float, champion: float) -> bool:
        bound = self.bound(champion)
        slack = _SLACK * max(1.0, abs(bound))
        return value >= bound - slack if self.least else value <= bound + slack


def default_rules(metric: str, *, greater_is_better: bool) -> dict[str, str]:
    """The rule of a project that gives none: `metric` no worse than the champion's.

    >>> default_rules("rmse", greater_is_better=False)
    {'rmse': 'at most champion'}
    """
    return {metric: f"at {'least' if greater_is_better else 'most'} champion"}


def check_rules(rules: Mapping[str, str], metrics: Collection[str]) -> None:
    """Refuse rules that `decide` could not judge, before anything is trained.

    Args:
        rules: `registry.promote` of the project file.
        metrics: names of the metrics that the evaluation will give.

    Raises:
        ConfigError: with every rule that is malformed or about an unknown metric.
    """
    problems = [p for name, text in rules.items() for p in _problems(name, text, metrics)]
    if problems:
        raise ConfigError(
            "\n  ".join(["registry.promote has rules that cannot be judged:", *problems]),
            allowed=f"{GRAMMAR}; metrics: {', '.join(sorted(metrics))}",
        )


def decide(
    rules: Mapping[str, str],
    candidate: Mapping[str, float],
    champion: Mapping[str, float] | None,
    metric: str,
    greater_is_better: bool = True,
) -> Decision:
    """Judge a candidate.

    Args:
        rules: metric -> rule; empty means that `metric` must be no worse than the champion's.
        candidate: the candidate's metrics by name.
        champion: the champion's metrics on the SAME rows; None when there is no champion, and
            then rules about it pass.
        metric: the metric that the default rule is about.
        greater_is_better: of that metric.

    Returns:
        A promotion only if every rule holds. A metric that is NaN, or that the champion lacks,
        breaks its rule: what cannot be compared does not replace what works.

    Raises:
        ConfigError: a rule is malformed or about a metric that the candidate does not have.

    >>> decide({"roc_auc": "at least champion + 0.01"}, {"roc_auc": 0.72}, {"roc_auc": 0.70}, "")
    Decision(promote=True, reasons=("roc_auc 0.72 is at least the champion's 0.7 + 0.01 = 0.71",))
    """
    rules = rules or default_rules(metric, greater_is_better=greater_is_better)
    check_rules(rules, candidate)
    outcomes = [_judge(_parse(n, t), float(candidate[n]), champion) for n, t in rules.items()]
    return Decision(all(held for held, _ in outcomes), tuple(reason for _, reason in outcomes))


def _judge(rule: _Rule, value: float, champion: Mapping[str, float] | None) -> tuple[bool, str]:
    name = rule.metric
    if math.isnan(value):
        return False, f"{name} of the candidate is not a number"
    other = math.nan
    if rule.champion:
        if champion is None:
            return True, f"{name} {value:.6g}: there is no champion to compare with"
        other = float(champion.get(name, math.nan))
        if math.isnan(other):
            return False, f"{name} of the champion could not be measured on these rows"
    held = rule.holds(value, other)
    verb = "is" if held else "is not"
    return held, f"{name} {value:.6g} {verb} {rule.word} {rule.bound_text(other)}"


def _problems(name: str, text: str, metrics: Collection[str]) -> list[str]:
    problems = []
    if name not in metrics:
        near = difflib.get_close_matches(name, list(metrics), n=1)
        problems.append(f"{name}: no such metric" + (f", did you mean {near[0]}?" if near else ""))
    if _RULE.fullmatch(text.strip()) is None:
        problems.append(f"{name}: `{text}` is no rule")
    return problems


def _parse(metric: str, text: str) -> _Rule:
    match = _RULE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{metric}: `{text}` is no rule", allowed=GRAMMAR)
    word, champion, sign, distance, number = match.groups()
    amount = float(number or distance or 0)
    least = word.lower() == "least"
    return _Rule(metric, least, champion is not None, -amount if sign == "-" else amount)
