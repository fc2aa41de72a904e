"""Benchmarks: our way against ceilings and baselines, in one run on one database, as ratios."""
