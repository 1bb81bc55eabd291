"""A model judged on rows that it did not learn from."""

from mlray.evaluation.evaluation import Evaluation, evaluate, headline
from mlray.evaluation.rows import Scorer

__all__ = ["Evaluation", "Scorer", "evaluate", "headline"]
