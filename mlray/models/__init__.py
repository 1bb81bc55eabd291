"""Columns in, predictions out: encoder, tasks, networks, bundle, predictor.

Nothing is imported here, so that `mlray.models.inputs` costs no torch.
"""
