"""Runs as MLflow keeps them: who ran what on which rows, and what came of it."""

from mlray.tracking.tracker import Tracker

__all__ = ["Tracker"]
