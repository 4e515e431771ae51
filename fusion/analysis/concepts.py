"""Units that stand for something people have a word for: network dissection of a language model. An analysis, and no loss.

A unit is active where its activation is among its own q largest; a concept is a set of places in the text, determined from
bytes, so that models with different tokenizers are comparable. A unit detects the concept with which its places agree best, if
the intersection over the union exceeds a threshold. No unit can agree better with a concept of prevalence c than
min(q, c) / max(q, c): concepts that are too rare or too common for the threshold are found by no unit, and the table says so.

Source: Han et al. 2023 (impact of distillation on interpretability, ICML), after Bau et al. 2017 (network dissection), of
pixels there, of tokens here; q = 0.005 and the threshold 0.05 are theirs.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ACTIVE_SHARE = 0.005
"""Share of the positions at which a unit counts as active: those of its largest activations."""
IOU_THRESHOLD = 0.05
"""Intersection over union above which a unit detects a concept."""
WINDOW = 400  # bytes before a place that are looked at
_WORD = re.compile(r"\w+\Z")

CONCEPTS: dict[str, Callable[[str, str], bool]] = {
    "digit": lambda before, _: before[-1].isdigit(),
    "upper case": lambda before, _: before[-1].isupper(),
    "white space": lambda before, _: before[-1].isspace(),
    "line break": lambda before, _: before[-1] == "\n",
    "punctuation": lambda before, _: not before[-1].isalnum() and not before[-1].isspace(),
    "not Latin": lambda before, _: before[-1].isalpha() and ord(before[-1]) > 0x24F,
    "code keyword": lambda before, after: _word(before, after) in keyword.kwlist,
    "first word of a sentence": lambda before, _: re.search(r"(\A|[.!?\n])\s*\w+\Z", before) is not None,
    "end of a sentence": lambda before, _: before[-1] in ".!?",
}
"""What may be true where `before` has been read (at least a character) and `after` comes."""


@dataclass(frozen=True)
class ConceptDetection:
    """How well the units of a model detect one concept; agreement is intersection over union."""

    concept: str
    prevalence: float
    """Share of places where it holds."""
    max_iou: float
    """The agreement that no unit can exceed at this prevalence."""
    detecting_units: int
    """Number of units that agree with it best of all concepts, and above the threshold."""
    best_iou: float
    """The greatest agreement (intersection over union) of any unit."""


class LargestActivations:
    """The largest values of each unit over many places, and where they were; places come in batches."""

    def __init__(self, units: int, places: int, share: float = ACTIVE_SHARE):
        self.count, self.seen = int(share * places), 0
        self.values = torch.full((units, self.count + 1), -torch.inf)
        self.places = torch.zeros(units, self.count + 1, dtype=torch.long)

    def add(self, activations: Float[Tensor, "N units"]) -> None:
        """Add the activations of all units at the next N positions."""
        here = torch.arange(self.seen, self.seen + len(activations)).expand(activations.shape[1], -1)
        values, places = torch.cat([self.values, activations.T.float()], dim=1), torch.cat([self.places, here], dim=1)
        self.values, chosen = values.topk(self.count + 1, dim=1)
        self.places, self.seen = places.gather(1, chosen), self.seen + len(activations)

    @property
    def active(self) -> Bool[Tensor, "units k"]:
        """Which of `places` are above the threshold, the largest value that is left out: at most the share of them."""
        return (self.values > self.values[:, -1:]) & self.values.isfinite()


def label_concepts(text: str, prefixes: Sequence[int]) -> Bool[Tensor, "places C"]:
    """Which concepts hold after each number of bytes of a text; none at its start and within a character."""
    raw = text.encode()
    held = torch.zeros(len(prefixes), len(CONCEPTS), dtype=torch.bool)
    for row, at in enumerate(prefixes):
        before, after = raw[max(0, at - WINDOW) : at].decode(errors="ignore"), raw[at : at + 4].decode(errors="ignore")
        if before and before.encode()[-1] == raw[at - 1]:
            held[row] = torch.tensor([holds(before, after) for holds in CONCEPTS.values()])
    return held


def dissect(
    largest: LargestActivations, concepts: Bool[Tensor, "N C"], names: Sequence[str], threshold: float = IOU_THRESHOLD
) -> list[ConceptDetection]:
    """How the units agree with each concept, `concepts` at the same places in the same order."""
    agreement = intersection_over_union(largest.places, largest.active, concepts)
    best, which = agreement.max(1) if agreement.numel() else (agreement.new_zeros(0), torch.zeros(0, dtype=torch.long))
    detects = torch.bincount(which[best > threshold], minlength=len(names))
    prevalence = concepts.double().mean(0)
    share = largest.count / max(1, len(concepts))
    return [
        ConceptDetection(
            name, c, bound(share, c), int(detects[n]), agreement[:, n].max().item() if len(agreement) else 0.0
        )
        for n, (name, c) in enumerate(zip(names, prevalence.tolist(), strict=True))
    ]


def intersection_over_union(
    places: Int[Tensor, "units k"], active: Bool[Tensor, "units k"], concepts: Bool[Tensor, "N C"]
) -> Float[Tensor, "units C"]:
    """Places where a unit is on and a concept holds, over those where either is so; 0 where there are none."""
    both = torch.stack(
        [(concepts[row] & is_active[:, None]).sum(0) for row, is_active in zip(places, active, strict=True)]
    )
    either = active.sum(1, keepdim=True) + concepts.sum(0) - both
    return both.double() / either.clamp(min=1)


def bound(share: float, prevalence: float) -> float:
    """The greatest agreement of a unit that is on at this share of places with a concept of that prevalence."""
    return min(share, prevalence) / max(share, prevalence) if share and prevalence else 0.0


def _word(before: str, after: str) -> str:
    """The word that ends here, if one does."""
    found = _WORD.search(before)
    return "" if found is None or re.match(r"\w", after) else found[0]
