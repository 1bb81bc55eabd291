"""Registered versions: which one is champion, why, and the way back.

This room is the only one that talks to the MLflow registry.
"""

from mlray.registry.gate import Decision, check_rules, decide, default_rules
from mlray.registry.journal import Entry, Journal
from mlray.registry.listing import render_versions
from mlray.registry.registered import Registry
from mlray.registry.version import CHAMPION, Version

__all__ = [
    "CHAMPION",
    "Decision",
    "Entry",
    "Journal",
    "Registry",
    "Version",
    "check_rules",
    "decide",
    "default_rules",
    "render_versions",
]
