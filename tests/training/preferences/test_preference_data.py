"""A batch of pairs: its answers stand in it once, and objectives see the numbers of the right ones."""

from __future__ import annotations

import pytest
import torch

from fusion.cache import CacheWriter
from fusion.training.preferences import AnswerSums, PreferenceData, PreferencePair, read_answer_sums
from tests.helpers.rows import random_rows


def data(*pairs):
    said = AnswerSums([-1.0, -2.0, -3.0, -4.0, -5.0], [1, 2, 3, 4, 5])
    other = AnswerSums([-1.5, -2.5, -3.5, -4.5, -5.5], [5, 4, 3, 2, 1])
    return PreferenceData([PreferencePair(*pair) for pair in pairs], [10, 20, 30, 40, 50], said, {"coder": other})


def test_answers_of_several_pairs_stand_in_a_batch_once_and_each_pair_finds_its_own():
    known = data((0, 1), (4, 3), (0, 3))
    answers = known.answers([2, 1])
    assert answers == [0, 3, 4]
    targets = known.targets([2, 1], answers)
    assert targets.chosen.tolist() == [0, 2]
    assert targets.rejected.tolist() == [1, 1]
    assert targets.reference_logprobs.tolist() == [-1, -4, -5]
    assert targets.num_bytes.tolist() == [10, 40, 50]
    assert targets.source_logprobs["coder"].tolist() == [-1.5, -4.5, -5.5]
    assert targets.source_tokens["coder"].tolist() == [5, 2, 1]
    assert targets.source_chosen is None
    assert [known.part(number) for number in answers] == ["chosen", "rejected", "chosen"]


def test_a_right_answer_of_a_source_stands_beside_the_pair():
    known = data((0, 1, 2), (4, 3, 2))
    answers = known.answers([0, 1])
    assert sorted(answers) == [0, 1, 2, 3, 4]
    targets = known.targets([0, 1], answers)
    assert [answers[place] for place in targets.source_chosen] == [2, 2]
    assert known.part(2) == "chosen"


@pytest.mark.parametrize("count", [3, 70])  # fewer and more than are looked at together
def test_sums_of_a_cache_are_those_of_its_rows_and_of_all_ways_to_end(tmp_path, count):
    rows = random_rows(5 * count, 4, 23, seed=3, examples=count)
    ids = [f"e{number}" for number in range(count)]
    writer = CacheWriter(tmp_path / "cache", {"top_k": 4}, ids, 1000, "float32", vocabulary=23)
    place = [ids.index(id) for id in writer.examples(0)]
    order = torch.cat([(rows.example == number).nonzero()[:, 0] for number in place])
    inverse = {number: at for at, number in enumerate(place)}
    written = rows.select(order)
    example = torch.tensor([inverse[int(each)] for each in written.example])
    writer.write(0, type(rows)(**{**vars(written), "example": example, "token": None}))
    cache = writer.finalize()
    found = read_answer_sums(cache, ids)
    for number in range(count):
        gold = rows.gold[rows.example == number]
        assert found.logprobs[number] == pytest.approx(gold.double().sum().item(), rel=1e-5)
        assert found.tokens[number] == len(gold)
    last = int((rows.example == 0).nonzero()[-1])
    ends = rows.ids[last, :2].tolist()
    together = read_answer_sums(cache, ids, ends)
    best = max(rows.logprobs[last, :2].logsumexp(0).item(), rows.gold[last].item())
    assert together.logprobs[0] == pytest.approx(found.logprobs[0] - rows.gold[last].item() + best, rel=1e-5)
