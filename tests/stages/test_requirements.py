"""What rows lack is said before training: objective or weighting, source, how many rows, and the way out."""

import dataclasses

import pytest
import torch

from fusion.cache.known_fields import KnownFields, count_known_fields
from fusion.core.rows import LogitRows
from fusion.objectives import GLD, Affinity, CrossEntropy, ForwardKL, InfiFusion
from fusion.stages.requirements import lacking
from fusion.transforms import LogitSwap, Power
from fusion.weighting import WEIGHTINGS as WEIGHTINGS
from fusion.weighting import GoldPosterior, MinimumCrossEntropy, Sum, Uncertainty
from tests.helpers.contract import EXAMPLES as EVERY

WHOLE = KnownFields(rows=10, gold=10, moments=10, min_entries=10)
EXAMPLES = [CrossEntropy(), ForwardKL(), InfiFusion(), GLD()]
PLAIN = [kind() for kind in WEIGHTINGS if not any(f.is_required() for f in kind.model_fields.values())]


def rows(gold, mean, ids):
    gold, mean, ids = torch.tensor(gold), torch.tensor(mean), torch.tensor(ids)
    number = torch.zeros(len(gold), dtype=torch.long)
    return LogitRows(-ids.float(), ids, gold, mean, mean, prefix=number, example=number)


def test_known_counts_what_is_there():
    nan = float("nan")
    first = count_known_fields(rows([-1.0, nan, -2.0], [nan, nan, -3.0], [[5, 6], [5, -1], [3, 4]]))
    assert first.tolist() == [3, 2, 1, 1, 0]
    assert KnownFields.from_shards([first.tolist(), [4, 4, 4, 2, 0]]) == KnownFields(
        rows=7, gold=6, moments=5, min_entries=1
    )


def test_known_counts_finite_hidden_states():
    some = rows([-1.0, -2.0], [0.0, 0.0], [[5], [6]])
    some = dataclasses.replace(some, hidden=torch.tensor([[1.0, 2.0], [3.0, float("inf")]]))
    assert count_known_fields(some).tolist() == [2, 2, 2, 1, 1]


def test_nothing_is_lacking_where_all_is_known():
    for weighting in (Sum(), GoldPosterior(), MinimumCrossEntropy()):
        assert lacking(EXAMPLES, weighting, {"a": WHOLE, "b": WHOLE}) == []


@pytest.mark.parametrize(
    ("source", "weighting", "message"),
    [
        (
            KnownFields(10, 10, 4, 10),
            Sum(),
            "objectives[3] (gld) needs the mean of the logits, which 6 of 10 rows of source b",
        ),
        (
            KnownFields(10, 7, 10, 10),
            GoldPosterior(),
            "weighting (gold_posterior) needs the log-probability of the true token, which 3",
        ),
        (
            KnownFields(10, 7, 10, 10),
            MinimumCrossEntropy(),
            "weighting (minimum_cross_entropy) needs the log-probability",
        ),
        (
            KnownFields(10, 10, 10, 9),
            Sum(),
            "objectives[2] (infifusion) reads 10 entries of each row, and some of source b have only 9",
        ),
        (
            KnownFields(10, 10, 10, 0),
            Uncertainty(),
            "weighting (uncertainty) reads 1 entries of each row, and some of source b have only 0",
        ),
    ],
)
def test_what_is_lacking_is_named_with_reader_source_and_way_out(source, weighting, message):
    found = lacking(EXAMPLES, weighting, {"a": WHOLE, "b": source})
    assert any(sentence.startswith(message) for sentence in found), found
    assert all("source b" in sentence for sentence in found)
    assert all("backend" in sentence for sentence in found)


def test_hidden_states_that_are_lacking_are_extracted_again():
    (found,) = lacking([CrossEntropy(), Affinity()], Sum(), {"a": WHOLE})
    assert found.startswith(
        "objectives[1] (affinity) needs the hidden state, which 10 of 10 rows of source a do not have"
    )
    assert "Set extract.hidden_states to true and extract the source again, or" in found
    assert lacking([Affinity()], Sum(), {"a": dataclasses.replace(WHOLE, hidden=10)}) == []


def test_what_nobody_reads_may_be_lacking():
    nothing = KnownFields(10, 0, 0, 10)
    assert lacking([CrossEntropy(), ForwardKL(), InfiFusion(), GLD(input="raw")], Sum(), {"a": nothing}) == []


@pytest.mark.parametrize("reader", [*EVERY, *PLAIN], ids=repr)
def test_needs_are_fields_of_rows(reader):
    assert reader.required_source_fields <= {"gold", "mean", "std", "hidden"}


def test_a_transform_that_reads_the_true_tokens_probability_needs_it_of_its_own_source_alone():
    unknown = KnownFields(rows=9, gold=4, moments=9, min_entries=10)
    transforms = {"a": [Power(gamma=0.5, tail="single")], "b": [LogitSwap()]}
    assert lacking([CrossEntropy()], Sum(), {"a": unknown, "b": WHOLE}, transforms) == []
    (found,) = lacking([CrossEntropy()], Sum(), {"a": WHOLE, "b": unknown}, transforms)
    assert found.startswith("transforms[0] (logit_swap) needs the log-probability of the true token, which 5 of 9 rows")
