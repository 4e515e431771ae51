"""Suites of benchmark tasks, and the configuration and documents that lm-eval gets for each task."""
