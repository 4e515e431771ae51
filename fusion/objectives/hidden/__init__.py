"""Objectives that compare hidden states.

Each is a `HiddenObjective` (states.py: what is read) and of a base class of `objectives.base_classes` (what `__call__` gets),
in this order: `class HiddenProjector(HiddenObjective, ModuleObjective, PairObjective)`. `states` gives the vectors of a pair.
"""
