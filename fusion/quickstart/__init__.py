"""The built-in examples: tiny source models that each know something, pivots that know a little, and their questions.

The recipe `quickstart` fuses `numbers`, `lumi` and `storyteller` into `student`; `noisy_references`, on which methods are
compared, fuses `sums`, `sort` and `lumi` into `pivot`. The models were made by `python -m fusion.quickstart.make`; a folder
loads with `AutoModelForCausalLM.from_pretrained`.
"""

from pathlib import Path

SOURCES = ("sums", "sort", "lumi")
"""Names of the specialist source models, each that of its skill."""
PIVOT = "pivot"
"""Name of the pivot of `noisy_references`, the model to be improved there."""
NUMBERS = "numbers"
"""Name of a source that says numbers in words."""
STORYTELLER = "storyteller"
"""Name of a source that tells tales in Lumi."""
STUDENT = "student"
"""Name of the pivot of `quickstart`, the model to be improved there."""
MODELS = {name: Path(__file__).parent / "models" / name for name in (*SOURCES, PIVOT, NUMBERS, STORYTELLER, STUDENT)}
"""Model folders that come with the package, by name."""
