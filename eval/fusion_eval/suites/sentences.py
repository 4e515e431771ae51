"""What IFEval needs to count sentences: NLTK's `punkt_tab`, or where that is not installed, a small stand-in without a net."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ABBREVIATIONS = (
    "dr", "mr", "mrs", "ms", "prof", "st", "vs", "etc", "e.g", "i.e", "jr", "sr", "no", "fig", "vol", "inc", "ltd", "co",
    "u.s", "u.k", "a.m", "p.m", "ph.d",
)  # fmt: skip
"""Words whose full stop ends no sentence, in the stand-in."""


def installed() -> bool:
    """Whether NLTK's own model is there; it tells abbreviations from sentence ends more finely than the stand-in."""
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        return False
    return True


@contextmanager
def tokenizer() -> Iterator[None]:
    """While IFEval's files are loaded, which look for the model and read it once."""
    import nltk

    if installed():
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tokenizers/punkt_tab/english"
        place.mkdir(parents=True)
        for name in ("collocations.tab", "sent_starters.txt", "ortho_context.tab"):
            (place / name).write_text("")
        (place / "abbrev_types.txt").write_text("\n".join(ABBREVIATIONS) + "\n")
        nltk.data.path.insert(0, folder)
        try:
            yield
        finally:
            nltk.data.path.remove(folder)
