"""A tiny model with its texts, and the rows that transformers gives for them."""

import pytest

from fusion.data.encode import encode
from fusion.models.loading import ModelRef, load_tokenizer
from fusion.quickstart import MODELS
from fusion.sources import SourceRequest, Transformers
from tests.helpers import listed_rows, tiny


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory):
    """Folder, what to open, texts, rows: of a model whose head has no padded ids, so that all backends agree."""
    folder = tiny.folder("gpt_neox", tmp_path_factory.mktemp("served") / "neox", padding=0)
    tokenizer = load_tokenizer(ModelRef(str(folder)))
    wanted = SourceRequest(ModelRef(str(folder)), tokenizer, k=6)
    words = ["the lazy dog", "naïve café 北京 🙂", "def double(x):\n    return 2 * x", "12 + 30 is 42"]
    texts = [encode(tokenizer, [{"role": "user", "content": f"number {i}"}], word) for i, word in enumerate(words)]
    return folder, wanted, texts, Transformers().open(wanted).rows(texts)


@pytest.fixture(scope="session")
def trained():
    """What a model that was trained a little on all of these questions says of them."""
    return listed_rows.said(MODELS["pivot"], listed_rows.questions())


@pytest.fixture(scope="session", params=["llama", "qwen2"])
def untrained(request, tmp_path_factory):
    """What a random model says: its text is no likelier than any other, and its rows are nearly uniform."""
    folder = tiny.folder(request.param, tmp_path_factory.mktemp("untrained") / request.param)
    return listed_rows.said(folder, listed_rows.questions(6))
