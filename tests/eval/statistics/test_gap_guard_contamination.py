"""The gap closed, the guard and the search for test questions: on problems whose answer is known."""

import json
import math

import numpy as np
import pytest

from fusion_eval.results import Result, Sample
from fusion_eval.runners.contamination import find_overlaps, read_texts
from fusion_eval.statistics.gap import gap_closed
from fusion_eval.statistics.guard import regressions


def result(model, scores, domain="sums", nll=None):
    samples = [
        Sample(id=f"{domain}-{i}", domain=domain, bytes=4, score=s, nll=nll and nll[i], prompt="?", target="2")
        for i, s in enumerate(scores)
    ]
    return Result(model=model, suite="s", path=model, provenance={}, samples=samples)


def both(model, sums, words):
    one, other = result(model, sums), result(model, words, "words")
    return one.model_copy(update={"samples": one.samples + other.samples})


def scores(right, n=100):
    return [1.0] * right + [0.0] * (n - right)


def test_the_gap_is_the_share_of_the_way_to_the_best_source():
    fused, tuned = both("f", scores(50), scores(30)), both("t", scores(40), scores(20))
    a, b = both("a", scores(60), scores(10)), both("b", scores(45), scores(60))
    sums, words, mean = gap_closed(fused, tuned, [a, b])
    assert (sums.domain, sums.best_source, words.best_source, mean.domain, mean.best_source) == (
        "sums",
        "a",
        "b",
        "mean",
        "",
    )
    assert sums.closed.value == pytest.approx((0.5 - 0.4) / (0.6 - 0.4))
    assert words.closed.value == pytest.approx((0.3 - 0.2) / (0.6 - 0.2))
    assert mean.closed.value == pytest.approx((0.4 - 0.3) / (0.6 - 0.3))
    assert sums.closed.low < 0.5 < sums.closed.high


def test_a_domain_in_which_no_source_is_better_does_not_count_in_the_mean():
    fused, tuned = both("f", scores(50), scores(95)), both("t", scores(40), scores(94))
    sums, words, mean = gap_closed(fused, tuned, [both("a", scores(60), scores(0))])
    assert words.closed is None
    assert (mean.closed.value, mean.closed.low) == (sums.closed.value, sums.closed.low)
    assert (mean.fused, mean.baseline, mean.source) == (0.5, 0.4, 0.6)


def test_without_a_gap_anywhere_the_mean_has_none():
    found = gap_closed(
        both("f", scores(50), scores(95)), both("t", scores(40), scores(94)), [both("a", scores(9), scores(0))]
    )
    assert [gap.closed for gap in found] == [None] * 3


def test_a_fused_model_as_good_as_the_best_source_has_closed_it_in_every_draw():
    (found, _) = gap_closed(result("f", scores(60)), result("t", scores(20)), [result("s", scores(60))])
    assert (found.closed.value, found.closed.low, found.closed.high) == (1.0, 1.0, 1.0)


def test_the_gap_of_several_runs_is_that_of_their_means_and_less_sure():
    tuned, source = result("t", scores(20)), [result("s", scores(60))]
    (found, _) = gap_closed([result("f", scores(n)) for n in (30, 50)], tuned, source)
    (alike, _) = gap_closed([result("f", scores(40))] * 2, tuned, source)
    assert found.closed.value == pytest.approx(0.5)
    assert found.closed.half > alike.closed.half


def test_the_interval_is_that_of_draws_in_which_a_question_brings_the_answers_of_all():
    rng = np.random.default_rng(0)
    columns = (rng.random((3, 200)) < np.array([[0.5], [0.35], [0.7]])).astype(float)
    fused, tuned, source = (result(name, list(c)) for name, c in zip("fts", columns, strict=True))
    found = gap_closed(fused, tuned, [source], resamples=20_000)[0].closed
    draws = columns[:, np.random.default_rng(1).integers(200, size=(20_000, 200))].mean(-1)
    low, high = np.quantile((draws[0] - draws[1]) / (draws[2] - draws[1]), [0.025, 0.975])
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.02)


def test_where_no_source_is_better_there_is_no_gap():
    (found, _) = gap_closed(result("f", scores(50)), result("t", scores(40)), [result("s", scores(40))])
    assert found.closed is None


def test_a_gap_that_may_not_be_there_has_no_bounds():
    (found, _) = gap_closed(result("f", scores(45)), result("t", scores(40)), [result("s", [0.0] * 58 + [1.0] * 42)])
    assert found.closed.value == pytest.approx(0.05 / 0.02)
    assert (found.closed.low, found.closed.high) == (-math.inf, math.inf)


def test_bits_per_byte_close_the_gap_downwards():
    nats = {"f": [2.0, 2.2], "t": [3.0, 3.0], "s": [1.0, 1.4], "worse": [5.0, 5.0]}
    fused, tuned, source, worse = (result(name, [None, None], nll=values) for name, values in nats.items())
    found = gap_closed(fused, tuned, [worse, source])[0]
    assert found.best_source == "s"
    assert found.closed.value == pytest.approx(1.8 / 3.6)


def test_a_gap_needs_a_source_and_the_same_questions():
    with pytest.raises(ValueError, match="at least one source"):
        gap_closed(result("f", [1.0]), result("t", [1.0]), [])
    with pytest.raises(ValueError, match="f against s in sums: the samples differ: 2 against 3"):
        gap_closed(result("f", [1.0, 0.0]), result("t", [1.0, 0.0]), [result("s", [1.0, 0.0, 0.0])])


def test_the_guard_names_what_got_worse_beyond_the_interval_and_nothing_else():
    pivot, tuned = both("pivot", scores(60), scores(60)), both("sft", scores(30), scores(72))
    fused = both("fused", scores(40), scores(58))
    found = regressions(fused, [pivot, tuned])
    assert [(r.baseline, r.domain, r.metric) for r in found] == [
        ("pivot", "sums", "accuracy"),
        ("sft", "words", "accuracy"),
    ]
    assert str(found[0]).startswith(
        "sums: fused is worse than pivot by 20.0 accuracy % (95% interval of the difference -"
    )


def test_the_guard_lets_a_difference_within_the_interval_pass():
    a, b = [1.0, 0.0] * 50, [0.0, 1.0] * 49 + [1.0, 0.0]
    assert regressions(result("fused", b), [result("pivot", a)]) == []


def test_the_guard_knows_that_fewer_bits_are_better():
    worse, better = (result(name, [None] * 20, nll=[value] * 20) for name, value in [("w", 2.0), ("b", 1.0)])
    assert [r.metric for r in regressions(worse, [better])] == ["bits_per_byte"]
    assert regressions(better, [worse]) == []


LONG = "a train leaves the old station at noon and reaches the far town by the sea at four"


def question(prompt, id="q", domain="d", score=1.0):
    return Sample(id=id, domain=domain, bytes=1, score=score, prompt=prompt, target="4")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Before. {LONG}. After.", True),
        (LONG.upper().replace(" ", ", "), True),
        (" ".join(LONG.split()[:13]), True),
        (" ".join(LONG.split()[:12]) + " elsewhere", False),
        (" ".join(reversed(LONG.split())), False),
        ("", False),
    ],
)
def test_thirteen_words_in_a_row_are_found(text, found):
    (overlap,) = find_overlaps([question(LONG)], ["other", text])
    assert overlap.contaminated_ids == (["q"] if found else [])
    assert (overlap.checked, overlap.too_short) == (1, 0)


def test_a_short_question_is_looked_for_as_a_whole_and_a_very_short_one_not_at_all():
    samples = [
        question("What is the capital of France?", "a"),
        question("What is the capital of Spain?", "b"),
        question("1 + 1?", "c"),
    ]
    (overlap,) = find_overlaps(samples, ["Q: what is the capital of france"])
    assert (overlap.contaminated_ids, overlap.checked, overlap.too_short) == (["a"], 2, 1)


def test_fewer_words_find_more():
    assert find_overlaps([question(LONG)], [" ".join(LONG.split()[3:11])], n=8)[0].contaminated_ids == ["q"]
    with pytest.raises(ValueError, match="Runs of 3 words are found everywhere; take at least 6"):
        find_overlaps([question(LONG)], [], n=3)


def test_instructions_that_all_questions_share_are_no_question():
    end = "think about it step by step and put the final number into a box at the end"
    samples = [
        question(f"how many apples are left of {n} when {n} boys and {n} girls eat {n}? {end}", f"q{n}")
        for n in range(30)
    ]
    (overlap,) = find_overlaps(samples, [f"something else. {end}"])
    assert overlap.contaminated_ids == []
    (overlap,) = find_overlaps(samples, [samples[7].prompt])
    assert overlap.contaminated_ids == ["q7"]


def test_scores_are_told_apart_by_whether_a_question_was_found():
    other = "the second question speaks of quite another thing that no one has ever written about before today"
    (overlap,) = find_overlaps([question(LONG, "a", score=1.0), question(other, "b", score=0.0)], [LONG])
    assert (overlap.contaminated_score.value, overlap.clean_score.value) == (1.0, 0.0)


def test_domains_are_counted_apart():
    found = find_overlaps([question(LONG, "a"), question(LONG, "b", "e")], [LONG])
    assert [(o.domain, o.contaminated_ids) for o in found] == [("d", ["a"]), ("e", ["b"])]


def test_all_strings_of_a_row_are_read(tmp_path):
    row = {"messages": [{"role": "user", "content": LONG}], "n": 3, "more": {"deep": ["x", "y"]}}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    assert list(read_texts([tmp_path / "train.jsonl"])) == [f"user\n{LONG}\nx\ny"]


def test_data_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.jsonl does not exist"):
        list(read_texts([tmp_path / "none.jsonl"]))
