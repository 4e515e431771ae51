"""A small draft model for a fused one: it guesses the next tokens, the fused model checks them all at once."""

from fusion.draft.generate import Acceptance, acceptance, generate
from fusion.draft.model import Draft, Shape, load, save
from fusion.draft.train import DraftSettings, train
from fusion.draft.verify import Verdict, verify_greedy, verify_sampled

__all__ = [
    "Acceptance", "Draft", "DraftSettings", "Shape", "Verdict", "acceptance", "generate", "load", "save", "train",
    "verify_greedy", "verify_sampled",
]  # fmt: skip
