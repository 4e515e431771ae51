"""What trained and untrained models say of some texts, and other numbers that a program might have written instead."""

import math
from dataclasses import dataclass

import torch

from fusion.data.encode import encode
from fusion.models.loading import ModelRef, load_model, load_tokenizer, vocabulary_size
from fusion.quickstart import SOURCES, skills
from fusion.sources.listed import ListedRows
from tests.helpers import dump_writers


@dataclass
class Said:
    """Log-probabilities [T - 1, V] of a model along texts, in float64."""

    texts: list
    whole: list
    vocabulary: int

    def dump(self, change=None):
        """The same as the writers of `dump_writers` take it: texts by id, and `top(id, k)` of all rows of a text."""
        said = self

        class Dump:
            texts = {f"{number}": text for number, text in enumerate(said.texts)}  # noqa: RUF012
            vocabulary = said.vocabulary

            def top(self, id, k):
                whole = said.whole[int(id)]
                values, ids = whole.topk(k)
                return (values if change is None else change(whole, values)), ids

        return Dump()

    def rows(self, k, change=None, moved=0, order=None):
        """The k likeliest of every response row of each text, after a change of all log-probabilities of a text."""
        listed = []
        for number, text in enumerate(self.texts):
            whole = self.whole[number if order is None else order[number]]
            values, ids = whole.topk(k)
            if change is not None:
                values = change(whole, values)
            start, end = text.start - 1, min(len(text.input_ids) - 1, len(whole) - max(0, moved))
            at = slice(start + moved, end + moved)
            listed.append(
                ListedRows(text.input_ids, values[at], ids[at], text.start, origin=f"dump.jsonl, line {number + 1}")
            )
        return listed


def said(folder, pairs):
    tokenizer, model = load_tokenizer(ModelRef(str(folder))), load_model(ModelRef(str(folder)))
    texts = [encode(tokenizer, [{"role": "user", "content": prompt}], response) for prompt, response in pairs]
    with torch.no_grad():
        whole = [model(torch.tensor([t.input_ids])).logits[0, :-1].double().log_softmax(-1) for t in texts]
    return Said(texts, whole, vocabulary_size(tokenizer))


def questions(count=12):
    return [(row["prompt"], row["response"]) for skill in SOURCES for row in skills.make_questions(skill, count, 5)]


def constant(whole):
    """What a model adds to the log-probabilities of a row, which makes them logits: another number at each row."""
    return 3 * torch.sin(torch.arange(len(whole)).double())[:, None]


CORRUPTED = {
    "probabilities": (lambda whole, top: top.exp(), "look like probabilities"),
    "-log p": (lambda whole, top: -top, "look like -log p"),
    "base 10": (lambda whole, top: top / math.log(10), "look like logarithms to base 10"),
    "base 2": (lambda whole, top: top / math.log(2), "look like logarithms to base 2"),
    "bits": (lambda whole, top: -top / math.log(2), "look like -log2 p"),
    "logits": (lambda whole, top: top + 20 + constant(whole), "look like logits"),
    "negative logits": (lambda whole, top: top - 30 + constant(whole), "look like logits"),
    "logits less their mean": (lambda whole, top: top - whole.mean(-1, keepdim=True), "look like logits"),
    "logits less the highest": (lambda whole, top: top - whole.amax(-1, keepdim=True), "look like logits"),
    "normalised over the entries": (lambda whole, top: top.log_softmax(-1), "normalised over the entries alone"),
}
"""What a program may have written instead, and what the message must say."""

ROUNDED = {
    "float64": lambda values: values,
    "float32": lambda values: values.float(),
    "bfloat16": lambda values: values.bfloat16().double(),
    "float16": lambda values: values.half().double(),
    "three digits": lambda values: (values * 1000).round() / 1000,
    "one digit": lambda values: (values * 10).round() / 10,
}
"""How a program may have rounded right numbers."""

K = 10
EXACT = {"k": K, "exact_k": K, "exact_dtype": "float32", "delta_encoding": False}
CODECS = {
    "exact": EXACT,
    "bfloat16": EXACT | {"exact_dtype": "bfloat16"},
    "deltas in float16": EXACT | {"exact_dtype": "float16", "delta_encoding": True},
    "a curve": EXACT | {"exact_k": 2, "polynomial_terms": [0, 1, "sqrt"], "term_dtype": "float16"},
    "a rough curve": EXACT | {"exact_k": 0, "polynomial_terms": [0, 1]},
    "a curve and bins": EXACT | {"exact_k": 1, "polynomial_terms": [0, 1, 2], "residual_bins": [
        {"scale_dtype": "bfloat16", "element_bits": 3, "num_elements": 4},
        {"scale_dtype": "bfloat16", "element_bits": 1, "num_elements": 5},
    ]},
    "deltas in bins": EXACT | {"exact_k": 1, "delta_encoding": True, "residual_bins": [
        {"scale_dtype": "float32", "element_bits": 6, "num_elements": 9}]},
}  # fmt: skip
"""Settings of DistillKit's compression, from none lost to nearly all."""


def own_lines(said, file, change=None, moved=0):
    """Our own format: all rows of a text, from token 1 + moved on."""
    rows = []
    for id, text in said.dump().texts.items():
        values, ids = said.dump(change).top(id, K)
        values, ids = values[moved:], ids[moved:]
        rows.append({"input_ids": text.input_ids, "ids": ids.tolist(), "logprobs": values.tolist()})
    return dump_writers.lines(file, rows)


def megatron_dump(said, folder, dtype=torch.float16, change=None, padding=torch.nan, length=100):
    """Archives whose rows end with padding, and the file of their tokens."""
    rows, tokens = [], []
    for id, text in said.dump().texts.items():
        values, ids = said.dump(change).top(id, K)
        pad = length - len(values)
        values = torch.cat([values.float(), torch.full((pad, K), padding)])
        rows.append((values, torch.cat([ids, torch.arange(K).expand(pad, K)])))
        tokens.append({"input_ids": text.input_ids})
    made = dump_writers.megatron(folder / "cache", rows, version=2, dp=1, mbs=4, micro=1, dtype=dtype)
    return sorted(made.glob("*.tar")), dump_writers.lines(folder / "tokens.jsonl", tokens)
