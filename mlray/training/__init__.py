"""Ray Train: shards, the loop each worker runs, checkpoints, and `fit` that starts it all.

Nothing is imported here, so that a job can be described without torch or Ray.
"""
