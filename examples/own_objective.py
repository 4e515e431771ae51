"""An objective of your own: settings, what it reads, and a formula with one value for each pair of rows.

python examples/own_objective.py
"""

from typing import Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import fusion
from fusion.objectives import CrossEntropy
from fusion.objectives.base_classes import MappedObjective
from fusion.quickstart import MODELS


class Hellinger(MappedObjective):
    """Squared Hellinger distance between source and pivot on the source's entries: bounded, and blind to no side."""

    kind: Literal["hellinger"] = "hellinger"

    def __call__(self, pivot, source):
        """Compare M rows with K entries each: `pivot.logprobs` and `source.logprobs` are [M, K] and about the same ids.

        An id of -1 is an empty entry, whatever the pivot has there.
        """
        there = source.ids >= 0
        roots = (pivot.logprobs / 2).exp() - (source.logprobs / 2).exp()
        return 0.5 * roots.masked_fill(~there, 0).square().sum(-1)


pivot = AutoModelForCausalLM.from_pretrained(MODELS["pivot"], dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(MODELS["pivot"])
examples = fusion.read_examples("builtin:sort", split="fusion", limit=32)
cache = fusion.extract("quickstart:sort", examples, top_k=10)
collator = fusion.FusionCollator(tokenizer, examples, {"sort": cache}, {"sort": "quickstart:sort"})

loss = fusion.FusionLoss([Hellinger(weight=1.0), CrossEntropy(weight=0.1)], vocabulary=len(tokenizer))
optimizer = torch.optim.AdamW(pivot.parameters(), lr=3e-4)
for step in range(4):
    batch = collator(range(len(examples)))
    targets = batch.pop("targets")
    output = loss(pivot(**batch).logits, targets)
    output.loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: hellinger {output.terms['hellinger/sort']:.4f}")
