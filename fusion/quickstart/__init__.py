"""The built-in example: three small specialist models, a pivot with a little of every skill, and their questions.

The models were made by `python -m fusion.quickstart.make`; a folder loads with `AutoModelForCausalLM.from_pretrained`.
"""

from pathlib import Path

SOURCES = ("sums", "sort", "lumi")
"""Names of the specialist source models, each that of its skill."""
PIVOT = "pivot"
"""Name of the pivot, the model to be improved."""
MODELS = {name: Path(__file__).parent / "models" / name for name in (*SOURCES, PIVOT)}
"""Model folders that come with the package, by name."""
