"""Objectives that compare token by token, in the pivot's vocabulary."""
