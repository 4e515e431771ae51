"""Training on texts that the pivot wrote: what a batch knows of them, and how loud each source's signal is.

data     which examples the pivot wrote, how they did, and what it said when it wrote them
signal   means and spreads of what sources say of them, by domain
"""

from fusion.training.rollouts.data import RolloutData, WeakerRelative
from fusion.training.rollouts.signal import Signal, SignalScales, signal_scales

__all__ = ["RolloutData", "Signal", "SignalScales", "WeakerRelative", "signal_scales"]
