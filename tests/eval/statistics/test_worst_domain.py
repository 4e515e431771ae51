"""Where a model stands worst against others: on problems whose answer is known."""

import pytest

from fusion_eval.statistics.comparison import compare, paired_interval
from fusion_eval.statistics.worst_domain import differences_to_best, mean_of, worst_of
from tests.helpers.measured_results import result, sample, some_samples


def two_domains(model, sums, words):
    return result(model, some_samples(1, shift=sums) + some_samples(2, domain="words", shift=words))


def test_the_best_other_is_chosen_in_each_domain_and_the_worst_domain_is_where_most_is_lost():
    merged = two_domains("merged", 0.4, 0.1)
    others = [two_domains("a", 0.0, 0.5), two_domains("b", 0.6, 0.0)]
    found = differences_to_best(merged, others)
    by_domain = {each.domain: each for each in found if each.metric == "bits_per_byte"}
    assert {domain: each.other for domain, each in by_domain.items()} == {"sums": "a", "words": "b", "mean": "a"}
    worst = worst_of(found, "bits_per_byte")
    assert (worst.domain, worst.other, worst.mark) == ("sums", "a", "▼")
    of_sums = [[s for s in each.samples if s.domain == "sums"] for each in (merged, others[0])]
    assert worst.difference.value == pytest.approx(paired_interval(*of_sums, "bits_per_byte").value)
    assert mean_of(found, "bits_per_byte").difference == compare(merged, others[0])["mean"]["bits_per_byte"]


def test_a_domain_in_which_least_is_gained_is_the_worst_where_nothing_is_lost():
    found = differences_to_best(two_domains("merged", 0.1, 0.2), [two_domains("base", 0.5, 0.3)])
    assert (worst_of(found, "bits_per_byte").domain, worst_of(found, "bits_per_byte").lost < 0) == ("words", True)
    assert {each.mark for each in found if each.metric == "bits_per_byte"} == {"★"}


def test_of_right_answers_more_are_better():
    def answered(model, right):
        samples = [sample(f"{i}", exact_match=i < right) for i in range(40)]
        return result(model, samples)

    found = differences_to_best(answered("merged", 20), [answered("a", 5), answered("b", 39)])
    worst = worst_of(found, "exact_match")
    assert (worst.other, worst.lost, worst.mark) == ("b", pytest.approx(19 / 40), "▼")
    assert worst_of(found, "accuracy") is None
    assert mean_of(found, "accuracy") is None
