"""From answers that pass to examples: whose are taken, in which order, and what becomes of the rest."""

import json

import pytest

from fusion.data.example import Example
from fusion.responses import (
    TOO_LONG,
    BestSource,
    EverySource,
    PivotFit,
    PromptResponses,
    Response,
    choose_examples,
    count_responses,
    example_from_json,
    example_to_json,
    placeholder_examples,
)

SOURCES = ["a", "b"]


def question(number, domain, *answers):
    """Answers as (source, text, whether it passes)."""
    example = Example(({"role": "user", "content": f"{domain} {number}"},), f"reference {number}", domain)
    return PromptResponses(example, [Response(s, text, True) for s, text, _ in answers], [good for *_, good in answers])


QUESTIONS = [
    question(0, "sums", ("a", "wrong", False), ("b", "right", True)),
    question(1, "sums", ("a", "also right", True), ("b", "right", True)),
    question(2, "sums", ("a", "right", True), ("b", "wrong", False)),
    question(3, "sums", ("a", "bad", False), ("b", "worse", False)),
    question(4, "sums", ("b", "wrong", False), ("b", "right at last", True)),
    question(5, "prose", ("a", "once", True), ("b", "once", True)),
    question(6, "prose", ("a", "upon", True)),
]


def texts(how, questions=QUESTIONS):
    return [(wrote, example.response) for example, wrote in choose_examples(questions, how, SOURCES)]


def test_the_best_source_of_a_domain_answers_and_the_next_where_it_fails():
    assert texts(BestSource()) == [
        ("b", "right"), ("b", "right"), ("a", "right"), ("b", "right at last"), ("a", "once"), ("a", "upon"),
    ]  # fmt: skip


def test_with_all_kept_the_best_source_answers_everything_it_can():
    assert texts(BestSource(keep="all")) == [
        ("b", "right"), ("b", "right"), ("b", "wrong"), ("b", "worse"), ("b", "wrong"), ("a", "once"), ("a", "upon"),
    ]  # fmt: skip


def fitting(*answers, domain="d"):
    """Answers as (source, text, whether it passes, what the pivot makes of it)."""
    example = Example(({"role": "user", "content": "?"},), "reference", domain)
    given = [Response(source, text, True, pivot_fit=PivotFit(*fit)) for source, text, _, fit in answers]
    return PromptResponses(example, given, [passes for _, _, passes, _ in answers])


FITS = [
    fitting(("a", "first", True, (-0.5, 2.0)), ("a", "likely", True, (-0.1, 3.0)), ("b", "wrong", False, (-0.01, 0.1))),
    fitting(("a", "mine", True, (-0.4, 2.0)), ("b", "better", True, (-0.3, 1.0)), ("b", "equal", True, (-0.3, 1.0))),
    fitting(("a", "no", False, (-0.1, 0.1)), ("b", "nor this", False, (-0.1, 0.1))),
]


@pytest.mark.parametrize(("settings", "expected"), [
    ({}, ["first", "mine"]),
    ({"prefer": "likeliest"}, ["likely", "better"]),
    ({"prefer": "least_rsr"}, ["first", "better"]),
    ({"prefer": "likeliest", "keep": "all"}, ["likely", "mine", "no"]),
])  # fmt: skip
def test_of_all_that_pass_the_best_fit_is_taken_and_of_equals_the_first_of_the_best_source(settings, expected):
    assert [text for _, text in texts(BestSource(**settings), FITS)] == expected


def test_an_answer_that_is_too_long_for_the_pivot_fits_least_and_is_taken_where_there_is_no_other():
    long = fitting(("a", "long", True, TOO_LONG), ("b", "short", True, (-5.0, 90.0)))
    for prefer in ("likeliest", "least_rsr"):
        assert texts(BestSource(prefer=prefer), [long]) == [("b", "short")]
        assert texts(BestSource(prefer=prefer), [fitting(("a", "long", True, TOO_LONG))]) == [("a", "long")]


def test_with_all_kept_a_source_that_never_passes_in_a_domain_answers_nothing_there():
    lost = [question(0, "d", ("a", "x", False), ("b", "y", False))]
    assert texts(BestSource(keep="all"), lost) == []
    assert texts(BestSource(keep="all", fallback="reference"), lost) == [(None, "reference 0")]
    found = [*lost, question(1, "d", ("b", "z", True)), question(2, "d", ("a", "w", False))]
    assert texts(BestSource(keep="all"), found) == [("b", "y"), ("b", "z")]


def test_every_source_gives_an_example_and_equal_texts_one():
    assert texts(EverySource()) == [
        ("b", "right"), ("a", "also right"), ("b", "right"), ("a", "right"), ("b", "right at last"),
        ("a", "once"), ("a", "upon"),
    ]  # fmt: skip


@pytest.mark.parametrize("how", [BestSource, EverySource])
def test_prompts_without_an_answer_keep_the_reference_where_that_is_wanted(how):
    assert (None, "reference 3") in texts(how(fallback="reference"))
    assert len(texts(how(fallback="reference"))) == len(texts(how())) + 1
    unlabelled = PromptResponses(Example(QUESTIONS[3].example.messages, "", "sums"), [], [])
    assert texts(how(fallback="reference"), [unlabelled]) == []


def test_the_first_of_equally_good_sources_is_the_first_of_the_configuration():
    tie = [question(0, "d", ("b", "x", True), ("a", "y", True))]
    assert texts(BestSource(), tie) == [("a", "y")]
    assert [wrote for _, wrote in choose_examples(tie, BestSource(), ["b", "a"])] == ["b"]


def test_all_but_the_response_stays():
    for example, _ in choose_examples(QUESTIONS, BestSource(), SOURCES):
        assert example.prompt_id in {q.example.prompt_id for q in QUESTIONS}
        assert example.domain in ("sums", "prose")


def test_counts_add_up():
    ids = [question.example.prompt_id for question in QUESTIONS]
    chosen = choose_examples(QUESTIONS, BestSource(), SOURCES)
    found = count_responses(QUESTIONS, chosen, dict.fromkeys(SOURCES, ids))
    assert [(c.source, c.domain, c.prompts, c.answers, c.passed, c.chosen) for c in found] == [
        ("a", "sums", 5, 4, 2, 1),
        ("a", "prose", 2, 2, 2, 2),
        ("b", "sums", 5, 6, 3, 3),
        ("b", "prose", 2, 1, 1, 0),
    ]
    some = count_responses(QUESTIONS, chosen, {"a": ids[:3], "b": ids}, judged=ids[:1])
    first = {source: QUESTIONS[0].of_source(source) for source in SOURCES}
    assert [(c.source, c.prompts, c.passed, c.judged) for c in some if c.domain == "sums"] == [
        ("a", 3, sum(passed for _, passed in first["a"]), len(first["a"])),
        ("b", 5, sum(passed for _, passed in first["b"]), len(first["b"])),
    ]


def test_what_is_saved_comes_back():
    ahead = ({"role": "user", "content": "richer"},)
    example = Example(({"role": "user", "content": "?\u2028"},), "a\x85 🙂", "d", "plain", ahead, "assert f()")
    assert example_from_json(json.loads(json.dumps(example_to_json(example, "a")))) == example
    bare = Example((), "x", "d")
    assert example_from_json(json.loads(json.dumps(example_to_json(bare, None)))) == bare


def test_expected_examples_are_as_many_and_as_long_as_they_may_get():
    asked = [
        Example(({"role": "user", "content": "?"},), "", "d"),
        Example(({"role": "user", "content": "!"},), "yes", "d"),
    ]
    best, every = (placeholder_examples(asked, how(max_new_tokens=5), SOURCES) for how in (BestSource, EverySource))
    assert [e.response for e in best] == [" the the the the the a", "yes a"]
    assert len({e.id for e in every}) == 4
    assert [e.prompt_id for e in every] == [asked[0].prompt_id] * 2 + [asked[1].prompt_id] * 2
