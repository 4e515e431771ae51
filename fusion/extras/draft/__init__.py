"""A small draft model for a fused one: it guesses the next tokens, the fused model checks them all at once."""

from fusion.extras.draft.generate import Acceptance, acceptance, generate
from fusion.extras.draft.model import Draft, Shape, load, save
from fusion.extras.draft.train import DraftSettings, train
from fusion.extras.draft.verify import Verdict, verify_greedy, verify_sampled

__all__ = [
    "Acceptance", "Draft", "DraftSettings", "Shape", "Verdict", "acceptance", "generate", "load", "save", "train",
    "verify_greedy", "verify_sampled",
]  # fmt: skip
