"""The sentence tokenizer of IFEval: NLTK's `punkt_tab`, or where that is not installed, a small offline fallback."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ABBREVIATIONS = (
    "dr", "mr", "mrs", "ms", "prof", "st", "vs", "etc", "e.g", "i.e", "jr", "sr", "no", "fig", "vol", "inc", "ltd", "co",
    "u.s", "u.k", "a.m", "p.m", "ph.d",
)  # fmt: skip
"""Words whose full stop ends no sentence, for the fallback."""


def punkt_is_installed() -> bool:
    """Whether NLTK's own model is there; it tells abbreviations from sentence ends more finely than the fallback."""
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        return False
    return True


@contextmanager
def nltk_tokenizer() -> Iterator[None]:
    """Let NLTK find a sentence tokenizer inside the context, while IFEval's files are loaded and read it once."""
    import nltk

    if punkt_is_installed():
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "tokenizers/punkt_tab/english"
        model.mkdir(parents=True)
        for name in ("collocations.tab", "sent_starters.txt", "ortho_context.tab"):
            (model / name).write_text("")
        (model / "abbrev_types.txt").write_text("\n".join(ABBREVIATIONS) + "\n")
        nltk.data.path.insert(0, folder)
        try:
            yield
        finally:
            nltk.data.path.remove(folder)
