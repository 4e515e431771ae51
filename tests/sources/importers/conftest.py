"""Examples in the tokens of a tiny model, and all of its log-probabilities along them, in float64."""

from dataclasses import dataclass

import pytest
import torch

from fusion.data.encode import Encoded, encode
from fusion.models.loading import ModelRef, load_model, load_tokenizer
from tests.helpers import tiny

WORDS = ["the lazy dog", "naïve café 北京 🙂", "def double(x):\n    return 2 * x", "12 + 30 is 42"]


@dataclass
class Truth:
    """What a model says of some texts."""

    texts: dict[str, Encoded]
    whole: dict[str, torch.Tensor]
    """Log-probabilities [T - 1, V] of every token after the first."""
    vocabulary: int

    def top(self, id, k):
        """The k most likely at every place: values and ids [T - 1, k]."""
        return self.whole[id].topk(k)

    def expected(self, id, k):
        """Values, ids and gold of the response's rows."""
        text = self.texts[id]
        values, ids = self.top(id, k)
        here = slice(text.start - 1, None)
        token = torch.tensor(text.input_ids[text.start :])
        return values[here], ids[here], self.whole[id][here].gather(1, token[:, None])[:, 0]


@pytest.fixture(scope="session")
def truth(tmp_path_factory):
    folder = tiny.folder("gpt_neox", tmp_path_factory.mktemp("dumps") / "neox", padding=0)
    tokenizer, model = load_tokenizer(ModelRef(str(folder))), load_model(ModelRef(str(folder))).double()
    texts = {f"id{i}": encode(tokenizer, [{"role": "user", "content": f"{i}:"}], w) for i, w in enumerate(WORDS)}
    with torch.no_grad():
        whole = {id: model(torch.tensor([text.input_ids])).logits[0, :-1].log_softmax(-1) for id, text in texts.items()}
    return Truth(texts, whole, len(tokenizer))
