"""Why an architecture cannot be used, in words: from the exception in which the chain ended."""

from __future__ import annotations

import re
import traceback

UNEXPLAINED = "unexplained: "
"""What a reason begins with that nobody has put into words."""

REASONS: dict[str, str] = {
    r"does not keep packed texts apart": "no",
    r"is no causal language model": "its states see the tokens that follow; such a model cannot be a language model here",
    r"inputs_embeds and shared_kv_states cannot be None": "drafts for another model, whose keys and values it reads",
    r"output layer (gives|was called)": "does not call its output layer once with one state for every position",
    r"sets the logits of some ids": "sets the logits of some ids to the smallest number",
    r"requires the (\w+) library": r"needs the library \1, which is not installed",
    r"could not load it again": "a source only: transformers saves its text model under a configuration that it cannot load",
    r"'Musicgen\w*Config' object has no attribute": "writes sounds; transformers cannot build it as a language model",
    r"'BltConfig' object has no attribute 'num_hidden_layers'": "transformers' `generate` fails with it",
    r"(same dtype|same scalar type|expected scalar type|dtypes match)": (
        "transformers' own code of it mixes types in this precision"
    ),
}
"""By what the exception says, and the reason; the first that is found is taken."""


def explain(error: Exception) -> str:
    """Return the reason, or `UNEXPLAINED` and the exception with where it was raised."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    for pattern, reason in REASONS.items():
        if found := re.search(pattern, text):
            return found.expand(reason)
    raised = traceback.extract_tb(error.__traceback__)[-6:]
    places = " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in reversed(raised))
    return f"{UNEXPLAINED}{text[:400]} ({places})"
