"""What two models with two tokenizers say of one sentence, side by side, and where they disagree.

python examples/two_tokenizers.py [PICTURE]
"""

import sys
from itertools import pairwise

import matplotlib
from transformers import AutoTokenizer

import fusion
from fusion.quickstart import MODELS

matplotlib.use("agg")
from matplotlib import pyplot as plt

prompt, response = "47 + 38 =", " eighty-five"
(example,) = fusion.read_examples([{"prompt": prompt, "response": response}])

# One cache for each model. A row stands at a place in the text, counted in bytes of the response: that both models share.
names = ["pivot", "sums"]
rows = {name: fusion.extract(f"quickstart:{name}", [example]).rows([example.id]) for name in names}
tokenizers = {name: AutoTokenizer.from_pretrained(MODELS[name]) for name in names}

for name in names:
    print(f"\n{name}: {len(rows[name])} rows")
    for prefix, ids, logprobs, gold in zip(
        rows[name].prefix.tolist(), rows[name].ids, rows[name].logprobs, rows[name].gold, strict=True
    ):
        likeliest = ", ".join(
            f"{tokenizers[name].decode([token])!r} {probability:.2f}"
            for token, probability in zip(ids[:3].tolist(), logprobs[:3].exp().tolist(), strict=True)
        )
        rest = response.encode()[prefix:].decode(errors="replace")
        print(f"  before {rest!r:16} what follows has {gold.exp():.2f}; likeliest: {likeliest}")

# Pairs of rows before which both models have read the same bytes.
pairs = fusion.align(rows["pivot"], rows["sums"])
shared = rows["pivot"].prefix[pairs.pivot].tolist()
print(f"\n{len(pairs)} rows belong together, after {shared} bytes")

# Where they disagree: bits that each needs for the text between two shared places (the last is the end of the answer).
edges = [*shared, len(response.encode()) + 1]
labels = [response.encode()[a:b].decode(errors="replace") or "end" for a, b in pairwise(edges)]
figure, axes = plt.subplots(figsize=(6, 2.5), layout="constrained")
for offset, name in enumerate(names):
    prefix, bits = rows[name].prefix, -rows[name].gold / 0.6931
    needed = [bits[(prefix >= a) & (prefix < b)].sum().item() for a, b in pairwise(edges)]
    axes.bar([place + 0.4 * offset for place in range(len(labels))], needed, width=0.38, label=name)
axes.set_xticks([place + 0.2 for place in range(len(labels))], [repr(label) for label in labels])
axes.set_ylabel("bits")
axes.legend(frameon=False)
picture = sys.argv[1] if len(sys.argv) > 1 else "two_tokenizers.png"
figure.savefig(picture, dpi=150)
print(f"the picture: {picture}")
