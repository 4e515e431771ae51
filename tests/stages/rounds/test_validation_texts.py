"""Answers to validation prompts are read as those to training prompts: without the space that belongs to the prompt."""

from types import SimpleNamespace

from fusion.data.chat_tokens import Prompt
from fusion.data.example import Example
from fusion.stages.rounds import guard


def test_the_space_of_the_prompt_is_no_part_of_an_answer(monkeypatch):
    read = []
    monkeypatch.setattr(guard, "read_rollout", lambda tokenizer, ids, ends, stop, lead: read.append((ids, lead)))
    monkeypatch.setattr(guard, "declared_ends", lambda *_: [0])
    monkeypatch.setattr(guard, "prompt_formats", lambda *_: lambda *_: SimpleNamespace(stop_texts=()))
    example = Example(({"role": "user", "content": "?"},), "yes", "d")
    context = SimpleNamespace(validation_examples=[example], tokenizers={"pivot": None})
    inner = getattr(guard._rollouts, "__wrapped__", guard._rollouts)  # without the checks of types
    inner(context, example.prompt_id, [[5, 0]], Prompt([1], lead=" "))
    assert read == [([5, 0], " ")]
