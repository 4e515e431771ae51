"""Objectives that compare hidden states.

Each derives from `HiddenObjective` (states.py: what is read) and then from a class of `objectives.base_classes` (what
`__call__` gets), as `class HiddenProjector(HiddenObjective, ModuleObjective, PairObjective)` does. `states` gives the vectors
of a pair. How to add one stands at the head of `fusion.objectives`.
"""
