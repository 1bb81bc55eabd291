"""Stages in order: what is unchanged is skipped, a killed run is taken up where it stopped."""

from mlray.pipeline.run import Run, run

__all__ = ["Run", "run"]
