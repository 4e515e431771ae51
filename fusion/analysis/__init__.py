"""A look at a run: before it costs anything, and at what its models have in them."""

from fusion.analysis.concept_units import Dissected, Units, concepts_all
from fusion.analysis.overlays import overlays
from fusion.analysis.overview import Overview, audit_all, overview
from fusion.analysis.source_effects import classes_all, rescaling_all

__all__ = [
    "Dissected", "Overview", "Units", "audit_all", "classes_all", "concepts_all", "overlays", "overview", "rescaling_all",
]  # fmt: skip
