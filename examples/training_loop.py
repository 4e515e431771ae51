"""One loss in a loop of your own: a source reads the texts once, then the pivot is pulled towards what it said.

python examples/training_loop.py
"""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import fusion
from fusion.objectives import CrossEntropy, ForwardKL
from fusion.quickstart import MODELS

pivot = AutoModelForCausalLM.from_pretrained(MODELS["pivot"], dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(MODELS["pivot"])

# Rows with a prompt and a response each: a list of dictionaries, a dataset, or a file.
examples = fusion.read_examples("builtin:sums", split="fusion", limit=128)

# The source reads every example once. Its rows (the ten likeliest tokens at each position of the response, in its own
# vocabulary) are kept in a temporary folder; with folder=... they are kept for good.
cache = fusion.extract("quickstart:sums", examples, top_k=10)

# Batches of the pivot's tokens, with the source's rows matched to them by the bytes both models have read.
collator = fusion.FusionCollator(tokenizer, examples, {"sums": cache}, {"sums": "quickstart:sums"})
batches = torch.utils.data.DataLoader(collator.dataset(), batch_size=16, shuffle=True, collate_fn=collator)

loss = fusion.FusionLoss([CrossEntropy(weight=0.5), ForwardKL(weight=0.5)], vocabulary=len(tokenizer))
optimizer = torch.optim.AdamW(pivot.parameters(), lr=3e-4)
pivot.train()
for step, batch in enumerate(batches):
    targets = batch.pop("targets")
    output = loss(pivot(**batch).logits, targets)
    output.loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in output.terms.items()))
