"""The built-in example: three small specialists, a pivot that knows a little of everything, and what they are asked.

The models were made by `python -m fusion.quickstart.make`; a folder loads with `AutoModelForCausalLM.from_pretrained`.
"""

from pathlib import Path

SOURCES = ("sums", "sort", "lumi")
"""The specialists, each named after the one skill it has."""
PIVOT = "pivot"
"""The model to be improved."""
MODELS = {name: Path(__file__).parent / "models" / name for name in (*SOURCES, PIVOT)}
"""Model folders that come with the package, by name."""
