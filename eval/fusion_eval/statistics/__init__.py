"""Metrics of results, bootstrap intervals, comparisons, the gap to the best source, and the guard against regressions."""
