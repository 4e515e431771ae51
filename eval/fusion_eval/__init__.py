"""Evaluation of models: suites of tasks, runners that write a `Result` a model and suite, and statistics of results."""
