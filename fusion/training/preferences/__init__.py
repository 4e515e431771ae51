"""Training on right and wrong answers to one prompt.

data     which examples are the answers of a pair, and what models said of each before
sums     log-probabilities of whole answers, from a cache
"""

from fusion.training.preferences.data import PreferenceData, PreferencePair
from fusion.training.preferences.sums import AnswerSums, read_answer_sums

__all__ = ["AnswerSums", "PreferenceData", "PreferencePair", "read_answer_sums"]
