"""Studies: the same pivot trained in several ways from several seeds, each as well tuned as the other, and compared."""

from fusion.study.grid import Grid
from fusion.study.outcome import Outcome
from fusion.study.settings import Study, Tuning, load
from fusion.study.story import run

__all__ = ["Grid", "Outcome", "Study", "Tuning", "load", "run"]
