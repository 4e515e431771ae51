"""Artifacts on disk and their keys, distributed ranks, progress bars, the shared store and run.json."""
