"""A whole run: three sources, each with its own tokenizer, teach a fourth model, and everything is measured.

python examples/run.py [FOLDER]
"""

import sys

import fusion

folder = sys.argv[1] if len(sys.argv) > 1 else "runs"

# A recipe of the package, with some values changed by their place; a YAML file or a dictionary does as well.
# These values make it short. Without them it takes some minutes, and the fused model is worth looking at.
run = fusion.run(
    "quickstart",
    {
        "runs": folder,
        "name": "example",
        "training.max_steps": 12,
        **{f"data.train.{n}.limit": 24 for n in range(10)},
        **{f"data.heldout.{n}.limit": 16 for n in range(5)},
    },
)

# Rows that pandas.DataFrame takes: model, domain, metric, value, the ends of its 95% interval, number of examples.
for row in run.table():
    if row["domain"] == "mean" and row["metric"] == "bits_per_byte":
        print(
            f"{row['model']:12} {row['value']:.3f} bits per byte ({row['low']:.3f} to {row['high']:.3f}, n = {row['n']})"
        )

# The fused model is a folder like any other.
print(f"AutoModelForCausalLM.from_pretrained({str(run.fused)!r})")
