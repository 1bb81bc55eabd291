"""Served traffic, watched: counted per bin, exported, kept, and compared with training.

counters   Counts: rows -> integers per bin, in the replica, off the request's path
exporter   Exporter: counts -> Ray's metrics and the replica's file, every few seconds
windows    files -> counts of any stretch of time and any number of replicas
table      counts -> drift per feature, and the table that `mlray monitor` prints
series     which Prometheus series a reference becomes
promql     the same mathematics as Prometheus rules
"""
