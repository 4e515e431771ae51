"""Studies: the same pivot trained in several ways from several seeds, each as well tuned as the other, and compared."""

from fusion.study.grid import StudyGrid
from fusion.study.results import StudyResults
from fusion.study.runner import run
from fusion.study.settings import Study, Tuning, load, with_overrides

__all__ = ["Study", "StudyGrid", "StudyResults", "Tuning", "load", "run", "with_overrides"]
