"""What trained and untrained models say of some texts, and other numbers that a program might have written instead."""

import math
from dataclasses import dataclass

import torch

from fusion.data.encode import encode
from fusion.models.loading import ModelRef, load_model, load_tokenizer, vocabulary_size
from fusion.quickstart import skills
from fusion.sources.listed import ListedRows


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
    return [
        (row["prompt"], row["response"]) for skill in skills.SKILLS for row in skills.make_questions(skill, count, 5)
    ]


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
