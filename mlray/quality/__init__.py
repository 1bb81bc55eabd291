"""Rules over rows: clean rows, quarantined rows with the rule they broke, a report that merges.

`check` looks at one table (a block) in one pass and runs in Ray workers. What needs all rows is
either summed in the report (`nulls`, `monotonic`, `fresh`, `rows`), found afterwards from hashes of
the keys (`unique`, see `mlray.sources.repeats`), or judged on the merged profile (`like`).
"""

from mlray.quality.checking import ABOUT, Checked, check, row_ids
from mlray.quality.keys import KeySet
from mlray.quality.report import QualityReport, RuleReport, breach, decide
from mlray.quality.rules import CompiledRule, compile_rules, wanted_keys
from mlray.quality.settling import settled
from mlray.quality.suggesting import Suggestion, suggest, to_yaml

__all__ = [
    "ABOUT",
    "Checked",
    "CompiledRule",
    "KeySet",
    "QualityReport",
    "RuleReport",
    "Suggestion",
    "breach",
    "check",
    "compile_rules",
    "decide",
    "row_ids",
    "settled",
    "suggest",
    "to_yaml",
    "wanted_keys",
]
