"""A look at a run: before it costs anything, and at what its models have in them."""

from fusion.inspect.overlays import overlays
from fusion.inspect.overview import Overview, audit_all, overview
from fusion.inspect.taught import classes_all, rescaling_all
from fusion.inspect.units import Dissected, Units, concepts_all

__all__ = [
    "Dissected", "Overview", "Units", "audit_all", "classes_all", "concepts_all", "overlays", "overview", "rescaling_all",
]  # fmt: skip
