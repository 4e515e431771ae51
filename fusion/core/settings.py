"""The base of everything a user may set: frozen, and strict about names."""

import difflib

from pydantic import BaseModel, ConfigDict

from fusion.core.renamed_keys import new_name


class Settings(BaseModel):
    """A group of settings. Unknown keys are errors, values are checked, and nothing changes after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


def suggest(key: str, allowed: set[str]) -> str:
    """`; did you mean ...?` for a misspelt key, its new name for one that was renamed, or what is allowed."""
    if renamed := new_name(key, allowed):
        return f"; it is called {renamed} now"
    close = difflib.get_close_matches(key, allowed, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; allowed are {', '.join(sorted(allowed))}" if 0 < len(allowed) <= 20 else ""
