"""Evaluation of a model folder: `results` is what was measured, item by item; `statistics` what may be said of it."""
