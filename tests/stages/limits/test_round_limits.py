"""What would stop rounds, or leave them nothing to do, is found before anything is computed."""

import json

import pytest

from fusion.stages.context import RunContext
from fusion.stages.limits.lengths import long_answers
from fusion.stages.limits.refuse import no_prompts, no_whole_batch
from tests.helpers import runs

ROUNDS = {
    "prompts": 5, "num_generations": 2, "replay": 0.2, "objectives": [{"kind": "forward_kl"}, {"kind": "cross_entropy"}]
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("limits")


def context(folder, rounds=None, **changes):
    return RunContext(runs.config(folder, rounds=ROUNDS | (rounds or {}), **changes))


def test_answers_that_the_pivot_has_no_room_for_are_said(folder):
    context_length = 2048
    long = context(folder, {"max_completion_length": context_length}, data=data(folder, max_length=context_length))
    found = list(long_answers(long))
    assert len(found) == 1
    assert "16 of 16 training prompts rounds.max_completion_length = 2048 leaves no room" in found[0]
    assert not list(long_answers(context(folder, {"max_completion_length": 64})))


def data(folder, **changes):
    return runs.raw(folder)["data"] | changes


def test_texts_without_a_prompt_are_named(folder):
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": f"only text {number}"}) for number in range(3)))
    train = [*data(folder)["train"], {"path": str(folder / "texts.jsonl"), "domain": "d0"}]
    (found,) = no_prompts(context(folder, data=data(folder, train=train)))
    assert "3 of 19 examples have none: the first" in found
    assert "texts.jsonl, line 1" in found
    assert not list(no_prompts(context(folder)))


def test_a_batch_that_a_round_cannot_fill_is_said(folder):
    training = {"dataloader_drop_last": True, "per_device_train_batch_size": 4}
    (found,) = no_whole_batch(context(folder, {"training": {"per_device_train_batch_size": 16}}, training=training))
    assert "the pivot writes 10 texts, 12 examples with those that are replayed, and a batch has 16" in found
    assert not list(no_whole_batch(context(folder, training=training)))
