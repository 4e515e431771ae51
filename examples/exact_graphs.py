"""How far the closed forms for graphs on logits lie from POT's solvers, on two models' rows of twelve examples.

python examples/exact_graphs.py [PICTURE]        (needs: pip install 'logit-fusion[gw]')
"""

import sys
from importlib.util import find_spec

import torch

import fusion
from fusion.analysis.graph_distances import EXACT, LOWER, UPPER, compare_graphs
from fusion.objectives import GLD, GromovWasserstein

if find_spec("ot") is None:
    sys.exit("This example compares with POT, which is not installed: pip install 'logit-fusion[gw]'")

# Two models read the same answers. Their rows need not match: each graph lies within one model.
examples = fusion.read_examples("builtin:sums", split="fusion", limit=12)
ids, count = [example.id for example in examples], len(examples)
pivot, source = (fusion.extract(f"quickstart:{name}", examples, top_k=10).rows(ids) for name in ("pivot", "sums"))

# The graph of an example is Z'Z / rows, where Z are its ten largest logits, standardised. GLD and Gromov-Wasserstein build it
# alike. A node is a rank, or a token of a model's own.
for title, term in {
    "10 ranks": GromovWasserstein(),
    "50 tokens": GromovWasserstein(nodes="token", top_nodes=50),
}.items():
    found = compare_graphs(term, pivot, source, count).values
    gld = GLD(nodes=term.nodes, top_nodes=term.top_nodes)(pivot, source, count)
    print(f"\nNodes: {title}. Gromov-Wasserstein distance of each example, and what gld makes of it:")
    for name, values in {**found, "gld (another scale)": gld}.items():
        print(f"{name:33}" + " ".join(f"{value:5.2f}" for value in values))
    better = int((found[EXACT] < found[UPPER] * (1 - 1e-6)).sum())
    print(f"POT finds a better matching than the sorted one in {better} of {count} examples.")

# The same as a loss: solver: pot searches in every step, and the gradient reaches the pivot's logits.
logprobs = pivot.logprobs.requires_grad_()
loss = GromovWasserstein(solver="pot")(pivot, source, count).mean()
(gradient,) = torch.autograd.grad(loss, logprobs)
print(f"\nAs a loss: {loss:.2f}; its largest gradient: {gradient.abs().max():.3f}")

if len(sys.argv) > 1:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    order = found[EXACT].argsort()
    for name in (LOWER, EXACT, UPPER):
        axes.plot(found[name][order], marker="o", label=name)
    axes.set_xlabel("examples; nodes are tokens")
    axes.set_ylabel("Gromov-Wasserstein distance")
    axes.legend(frameon=False)
    figure.savefig(sys.argv[1], dpi=150)
    print(f"The picture: {sys.argv[1]}")
