"""Tales: what is told is as likely as is said, everything that may be told adds up to 1, and nothing else is possible."""

import itertools
import math
import random
from collections import Counter

import pytest

from fusion.quickstart import skills, tales

ROWS = skills.make_questions("tales", 400, 0)


def test_a_tale_goes_on_from_its_prompt_and_each_sentence_from_the_one_before():
    for row in ROWS:
        prompt, sentences = row["prompt"].split(), [s.split() for s in row["response"].strip().split(", ")]
        assert row["response"].startswith(" ")
        assert len(sentences) == tales.SENTENCES
        assert sentences[0][1] == skills.NOUNS[prompt[-2]]
        for (_, _, before), (_, doer, _) in itertools.pairwise(sentences):
            assert before == f"{doer}n"


def test_the_probabilities_of_all_tales_after_one_sentence_add_up_to_1():
    verb, noun, total = "vido", "kesa", 0.0
    teller = skills.TELLER

    def told(verb, noun, sentences, length):
        if length == tales.SENTENCES:
            yield " " + ", ".join(sentences)
            return
        for next_verb in teller.next_verbs[verb]:
            for next_noun in teller.next_nouns[next_verb, noun]:
                sentence = f"{next_verb} {noun} {next_noun}n"
                yield from told(next_verb, next_noun, [*sentences, sentence], length + 1)

    total = sum(math.exp(teller.logprob(tale, verb, noun)) for tale in told(verb, noun, [], 0))
    assert total == pytest.approx(1, abs=1e-9)


def test_what_is_told_comes_as_often_as_its_probability_says():
    rng, teller = random.Random(0), skills.TELLER
    first = Counter(tuple(teller.tell("vido", "kesa", rng).split(",")[0].split()) for _ in range(4000))
    for (verb, _, noun), count in first.items():
        share = tales.VERB_CHANCES[teller.next_verbs["vido"].index(verb)]
        share *= tales.NOUN_CHANCES[teller.next_nouns[verb, "kesa"].index(noun.removesuffix("n"))]
        assert abs(count / 4000 - share) < 5 * math.sqrt(share / 4000)


def test_what_the_teller_never_tells_has_no_probability():
    prompt, tale = ROWS[0]["prompt"], ROWS[0]["response"]
    assert -30 < skills.tale_logprob(prompt, tale) < 0
    assert skills.tale_logprob(prompt, tale.rpartition(",")[0]) == -math.inf
    other = next(row["response"] for row in ROWS if row["response"].split()[1] != tale.split()[1])
    assert skills.tale_logprob(prompt, other) == -math.inf


def test_a_wrong_tale_has_the_form_of_a_tale():
    for row in skills.make_questions("tales", 100, 0, label_noise=1.0):
        sentences = [s.split() for s in row["response"].strip().split(", ")]
        assert len(sentences) == tales.SENTENCES
        assert {verb for verb, _, _ in sentences} <= set(skills.TELLER.told)
        assert {doer for _, doer, _ in sentences} <= set(skills.NOUNS.values())
