"""A tour in small pieces: rows of two models, where they meet, a loss and its gradient, a cache, a few steps, a merge."""

# %% [markdown]
# # Fusion, step by step
#
# What a run does, in small pieces: a source and a pivot read the same text with two tokenizers, their rows are matched by
# bytes, one loss and its gradient are computed, the pivot is trained for a few steps, and two models are merged. Everything
# runs offline on a CPU within a minute, with the package's own models of half a million parameters.
#
# This notebook is made from [tour.py](tour.py) by `make notebook`, and a test runs it again.

# %%
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from transformers import AutoModelForCausalLM, AutoTokenizer

import fusion
from fusion.objectives import CrossEntropy, ForwardKL
from fusion.quickstart import MODELS

torch.manual_seed(0)
folder = Path(tempfile.mkdtemp())  # what is written here is of no use afterwards

# %% [markdown]
# ## A configuration
#
# A recipe of the package, with a value changed by its place. `fusion.run(config)` would now do the whole thing, in some
# minutes; below are its parts.

# %%
config = fusion.load_config("noisy_references", {"training.max_steps": 100})
print("the pivot, which learns: ", Path(config.pivot.path).name)
print("its sources, which teach:", *(source.name for source in config.sources))
print("terms of the loss:       ", *(objective.kind for objective in config.objectives))
print("steps:                   ", config.training["max_steps"])

# %% [markdown]
# ## What two models say of one text
#
# `extract` lets a model read each example once and keeps, at every position of the response, its likeliest tokens. A row
# says where it stands (`prefix`, in bytes of the response), which tokens were kept (`ids`, `logprobs`), and what the token
# that really follows has (`gold`).

# %%
prompt, response = "47 + 38 =", " eighty-five"
(example,) = fusion.read_examples([{"prompt": prompt, "response": response}])
names = ["pivot", "sums"]
tokenizers = {name: AutoTokenizer.from_pretrained(MODELS[name]) for name in names}
rows = {name: fusion.extract(f"quickstart:{name}", [example], top_k=10).rows([example.id]) for name in names}


def text_of(name: str, ids: torch.Tensor) -> list[str]:
    """Each token as it is written."""
    return [tokenizers[name].decode([token]) or "(end)" for token in ids.tolist()]


for name in names:
    print(f"\n{name}: {len(rows[name])} rows of {rows[name].ids.shape[-1]} entries")
    for prefix, ids, logprobs, gold in zip(
        rows[name].prefix.tolist(), rows[name].ids, rows[name].logprobs, rows[name].gold, strict=True
    ):
        likeliest = ", ".join(
            f"{token!r} {probability:.2f}"
            for token, probability in zip(text_of(name, ids[:3]), logprobs[:3].exp().tolist(), strict=True)
            if probability > 0.01
        )
        rest = response.encode()[prefix:].decode()
        print(f"  before {rest!r:15} the text's next token has {gold.exp():.2f}; likeliest: {likeliest}")

# %% [markdown]
# ## Where they meet
#
# The two tokenizers cut the text at other places. Rows belong together where both models have read the same bytes.

# %%
pairs = fusion.align(rows["pivot"], rows["sums"])
shared = rows["pivot"].prefix[pairs.pivot].tolist()
print(f"{len(pairs)} of {len(rows['pivot'])} rows of the pivot meet one of the source, after {shared} bytes")

# %% [markdown]
# One lane for each model, a box for each token: the darker, the more of its probability the model gave to what follows.
# A dashed line is a place where both have read the same.

# %%
figure, axes = plt.subplots(figsize=(7, 1.8), layout="constrained")
length = len(response.encode())
for lane, name in enumerate(names):
    starts = rows[name].prefix.tolist()
    for (start, end), gold in zip(pairwise([*starts, length + 2]), rows[name].gold.exp().tolist(), strict=True):
        axes.broken_barh(
            [(start, end - start)], (lane - 0.35, 0.7), facecolor=plt.cm.Blues(0.15 + 0.7 * gold), edgecolor="white"
        )
        token = response.encode()[start:end].decode() or "end"
        style = {"ha": "center", "va": "center", "fontsize": 8, "color": "white" if gold > 0.5 else "black"}
        axes.text((start + end) / 2, lane, f"{token}\n{gold:.2f}", **style)
for place in shared:
    axes.axvline(place, color="black", linestyle="--", linewidth=0.6)
axes.set_yticks(range(len(names)), names)
axes.set_xlabel("bytes of the response that were read")
axes.spines[["top", "right", "left"]].set_visible(False)
plt.show()

# %% [markdown]
# ## One loss, and its gradient
#
# The source's tokens are not the pivot's: `map_to_pivot` says what the source's rows mean in the pivot's tokens, as far as
# they have one. `ForwardKL` then compares two distributions over the same entries.

# %%
model = AutoModelForCausalLM.from_pretrained(MODELS["pivot"], dtype=torch.float32)
vocabulary_map = fusion.vocabulary_map(tokenizers["sums"], tokenizers["pivot"], kind="exact")
print(f"{int((vocabulary_map >= 0).sum())} of the source's {len(vocabulary_map)} tokens are tokens of the pivot, too")

collator = fusion.FusionCollator(tokenizers["pivot"], [example], {}, {})  # the pivot's tokens, and where they stand
batch = collator([0])
positions, predicted_at = (targets := batch.pop("targets")).positions, targets.hidden_index
pairs = fusion.align(positions, rows["sums"])
numbers, mapped = fusion.map_to_pivot(positions, rows["sums"], pairs, vocabulary_map)
index = pairs.pivot[numbers]

logits = model(**batch).logits.flatten(0, 1)[predicted_at[index]].detach().requires_grad_()
pivot = fusion.logit_rows(logits, positions.select(index), ids=mapped.ids)
loss = ForwardKL()(pivot, mapped)
print("KL(source || pivot) of each pair, in nats:", *(f"{value:.3f}" for value in loss.tolist()))
loss.mean().backward()

# %% [markdown]
# The gradient says what a step does: it raises (a negative gradient) the tokens to which the source gives more, and lowers
# the others. At the pair with the largest divergence:

# %%
pair = int(loss.argmax())
gradient = logits.grad[pair]
moved = gradient.abs().topk(3).indices
labels = [repr(token) for token in text_of("pivot", moved)]
figure, axes = plt.subplots(figsize=(6, 1.6), layout="constrained")
axes.barh(
    range(len(moved)),
    (-gradient[moved]).tolist(),
    color=["tab:orange" if g > 0 else "tab:blue" for g in gradient[moved]],
)
axes.set_yticks(range(len(moved)), labels)
axes.invert_yaxis()
axes.locator_params(axis="x", nbins=5)
axes.set_xlabel("less probable  ←  minus the gradient of the loss  →  more probable")
plt.show()
rest = response.encode()[int(positions.prefix[index[pair]]) :].decode()
print(f"before {rest!r}, a step raises {labels[int(gradient[moved].argmin())]} most")

# %% [markdown]
# ## What a cache holds
#
# With `folder=` the rows are kept on disk, and serve any number of trainings: the source need not be in memory again.

# %%
skills = ("sums", "lumi")
examples = {skill: fusion.read_examples(f"builtin:{skill}", domain=skill, split="fusion", limit=12) for skill in skills}
cache = fusion.extract("quickstart:sums", examples["sums"], top_k=10, folder=folder / "cache")
of_all = cache.rows([each.id for each in examples["sums"]])
kept = of_all.logprobs.exp().sum(-1).mean()
print(f"{len(examples['sums'])} examples, {len(of_all)} rows, {cache.size_in_bytes / len(of_all):.0f} bytes each")
print(f"{cache.entries} entries of {len(tokenizers['sums'])} hold {100 * kept:.1f}% of the probability on average")

# %% [markdown]
# ## A few steps
#
# The collator brings the source's rows along with the pivot's tokens; the rest is a loop like any other. Twelve examples,
# and the same in every step: enough to see both terms fall, and nothing to learn a skill from.

# %%
caches, of_sources = {"sums": cache}, {"sums": "quickstart:sums"}
collator = fusion.FusionCollator(tokenizers["pivot"], examples["sums"], caches, of_sources)
terms = fusion.FusionLoss([CrossEntropy(weight=0.5), ForwardKL(weight=0.5)], vocabulary=len(tokenizers["pivot"]))
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
history: list[dict[str, float]] = []
for _ in range(12):
    batch = collator(range(12))
    targets = batch.pop("targets")
    output = terms(model(**batch).logits, targets)
    output.loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    history.append(dict(output.terms))

figure, axes = plt.subplots(figsize=(5, 2.2), layout="constrained")
for name in history[0]:
    axes.plot([step[name] for step in history], label=name)
axes.set_xlabel("step")
axes.set_ylabel("nats")
axes.legend(frameon=False)
plt.show()
for name in history[0]:
    print(f"{name:18} from {history[0][name]:.2f} to {history[-1][name]:.2f}")

# %% [markdown]
# ## Merging
#
# Models that grew from one base can be merged. Here: the pivot after these steps, and the pivot after as many on the texts
# of another skill.

# %%
other = AutoModelForCausalLM.from_pretrained(MODELS["pivot"], dtype=torch.float32)
collator = fusion.FusionCollator(tokenizers["pivot"], examples["lumi"], {}, {})  # no sources: the text alone
optimizer = torch.optim.AdamW(other.parameters(), lr=5e-4)
for _ in range(12):
    batch = collator(range(12))
    batch.pop("targets")
    other(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()

for each, name in ((model, "fused"), (other, "other")):
    each.save_pretrained(folder / name)
    tokenizers["pivot"].save_pretrained(folder / name)
weights = {str(folder / "fused"): 0.8, str(folder / "other"): 0.8}
merged = fusion.merge("task_arithmetic", MODELS["pivot"], weights, folder / "merged")

# %% [markdown]
# Each is better at what it was trained on, and the merged model at both. So it is on these very texts; whether it is on
# others is what held-out examples are for, which `fusion.run` measures with intervals.

# %%
print("bits per byte on the texts that they were trained on; less is better")
for path in (MODELS["pivot"], folder / "fused", folder / "other", merged):
    scores = fusion.summarise(fusion.evaluate(path, [*examples["sums"], *examples["lumi"]]))
    bits = {domain: scores[domain]["bits_per_byte"].value for domain in (*skills, "mean")}
    print(f"  {path.name:8}" + "".join(f"  {domain} {value:.2f}" for domain, value in bits.items()))

# %% [markdown]
# `fusion.run("quickstart")` does all of this for any number of sources, and writes a report with the evidence: see
# [the quickstart, line by line](../docs/quickstart.md). Upload what came of it with `fusion.push`.
