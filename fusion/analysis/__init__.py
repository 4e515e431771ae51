"""A look at a run: before it costs anything, and at what its models have in them."""

from fusion.analysis.concept_units import Dissection, UnitKind, dissect_models
from fusion.analysis.graph_distances import graph_distances_by_source
from fusion.analysis.overlays import example_overlays
from fusion.analysis.overview import Overview, audit_by_source, overview
from fusion.analysis.source_effects import rescaling_by_source, token_classes_by_source

__all__ = [
    "Dissection",
    "Overview",
    "UnitKind",
    "audit_by_source",
    "dissect_models",
    "example_overlays",
    "graph_distances_by_source",
    "overview",
    "rescaling_by_source",
    "token_classes_by_source",
]  # fmt: skip
