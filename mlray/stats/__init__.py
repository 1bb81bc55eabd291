"""Numbers in, numbers out: profiles of tables, bins, drift and scores. No Ray, no files, no clock.

Legend for all files: N rows, B bins, S slots of a feature, K classes.
"""
