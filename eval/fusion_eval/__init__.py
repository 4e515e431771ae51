"""Evaluation of a model folder: `results` is what was measured, sample by sample; `statistics` what may be said of it."""
