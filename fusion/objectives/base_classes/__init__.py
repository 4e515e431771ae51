"""Base classes of objectives: what a formula is called with, what its values count, and how they are averaged.

RowObjective          each row of the pivot alone (the text itself)
PairObjective         matched rows, each in its own vocabulary
MappedObjective       matched rows entry by entry, both in the pivot's vocabulary
AllSourcesObjective   each row of the pivot against all sources at once
SpanObjective         log-probabilities of spans of text between shared boundaries
RelationObjective     how the matched rows of an example stand to each other
ExampleObjective      all rows of an example, unmatched
"""

from fusion.objectives.base_classes.all_sources import AllSourcesObjective
from fusion.objectives.base_classes.by_matched_row import MappedObjective, MatchedObjective, PairObjective
from fusion.objectives.base_classes.by_row import RowObjective
from fusion.objectives.base_classes.by_text import ExampleObjective, RelationObjective, SpanObjective
from fusion.objectives.base_classes.sourcewise import SourcewiseObjective

__all__ = [
    "AllSourcesObjective",
    "ExampleObjective",
    "MappedObjective",
    "MatchedObjective",
    "PairObjective",
    "RelationObjective",
    "RowObjective",
    "SourcewiseObjective",
    "SpanObjective",
]
