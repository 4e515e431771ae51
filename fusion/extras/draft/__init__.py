"""A draft model for speculative decoding: it proposes tokens, the fused model verifies all of them in one pass."""

from fusion.extras.draft.generate import Acceptance, acceptance, generate
from fusion.extras.draft.model import Draft, DraftShape, load, save
from fusion.extras.draft.train import DraftSettings, train
from fusion.extras.draft.verify import Verification, verify_greedy, verify_sampled

__all__ = [
    "Acceptance", "Draft", "DraftSettings", "DraftShape", "Verification", "acceptance", "generate", "load", "save", "train",
    "verify_greedy", "verify_sampled",
]  # fmt: skip
