"""Models that grew from one base, merged, and compared with their inputs on held-out examples.

python examples/merge.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import fusion
from fusion.quickstart import MODELS

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/merge")


def fine_tuned(skill: str) -> Path:
    """The pivot, trained a little on one skill: two of these share a base and can be merged."""
    model = AutoModelForCausalLM.from_pretrained(MODELS["pivot"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(MODELS["pivot"])
    examples = fusion.read_examples(f"builtin:{skill}", split="fusion", limit=64)
    collator = fusion.FusionCollator(tokenizer, examples, {}, {})  # no sources: the text alone
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for start in range(0, len(examples), 16):
        batch = collator(range(start, start + 16))
        batch.pop("targets")
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder / skill)
    tokenizer.save_pretrained(folder / skill)
    return folder / skill


sums, sort = fine_tuned("sums"), fine_tuned("sort")
merged = fusion.merge("task_arithmetic", MODELS["pivot"], {str(sums): 0.5, str(sort): 0.5}, folder / "merged")

heldout = [
    example
    for skill in ("sums", "sort")
    for example in fusion.read_examples(f"builtin:{skill}", domain=skill, split="heldout", limit=40)
]
results = {path.name: fusion.evaluate(path, heldout) for path in (MODELS["pivot"], sums, sort, merged)}
for name, result in results.items():
    scores = fusion.summarise(result)
    print(f"{name:8}" + "".join(f"  {d} {scores[d]['bits_per_byte'].value:.3f}" for d in ("sums", "sort", "mean")))
difference = fusion.compare(results["merged"], results["pivot"])["mean"]["bits_per_byte"]
print(
    f"merged minus pivot: {difference.value:+.3f} bits per byte (95%: {difference.low:+.3f} to {difference.high:+.3f})"
)
