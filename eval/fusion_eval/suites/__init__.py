"""Suites of benchmark tasks, and what lm-eval is given for each."""
