"""A tiny model with its texts, and the rows that transformers gives for them."""

import pytest

from fusion.data.encode import encode
from fusion.models.loading import ModelRef, load_tokenizer
from fusion.sources import SourceRequest, Transformers
from tests.helpers import tiny


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory):
    """Folder, what to open, texts, rows: of a model whose head has no padded ids, so that all backends agree."""
    folder = tiny.folder("gpt_neox", tmp_path_factory.mktemp("served") / "neox", padding=0)
    tokenizer = load_tokenizer(ModelRef(str(folder)))
    wanted = SourceRequest(ModelRef(str(folder)), tokenizer, k=6)
    words = ["the lazy dog", "naïve café 北京 🙂", "def double(x):\n    return 2 * x", "12 + 30 is 42"]
    texts = [encode(tokenizer, [{"role": "user", "content": f"number {i}"}], word) for i, word in enumerate(words)]
    return folder, wanted, texts, Transformers().open(wanted).rows(texts)
