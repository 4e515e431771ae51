"""Rows of real models are accepted at every precision, and each way to write other numbers is refused with its cause."""

import pytest
import torch

from fusion.sources.listed import ListedRows, SourceCheck, check_numbers
from tests.helpers.listed_rows import CORRUPTED, ROUNDED


def judge(rows, vocabulary, name="dump.jsonl"):
    check = SourceCheck(vocabulary)
    for each in rows:
        check_numbers(each)
        check.add(each)
    check.conclude(name)


def rounded(rows, change):
    return [ListedRows(r.tokens, change(r.logprobs), r.ids, r.first_position, origin=r.origin) for r in rows]


@pytest.mark.parametrize("k", [1, 2, 10, 64])
@pytest.mark.parametrize("precision", ROUNDED)
def test_what_a_model_says_is_accepted_however_it_was_rounded(trained, capsys, k, precision):
    judge(rounded(trained.rows(k), ROUNDED[precision]), trained.vocabulary)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("k", [1, 2, 10, 64, 300])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_untrained_model_is_accepted(untrained, k, precision):
    judge(rounded(untrained.rows(k), ROUNDED[precision]), untrained.vocabulary)


@pytest.mark.parametrize("k", [1, 10, 500])
def test_a_uniform_model_is_accepted(trained, k):
    rows = trained.rows(k, lambda whole, top: torch.full_like(top, 1 / 500).log())
    for each in rows:
        each.ids.copy_(torch.arange(k).expand_as(each.ids))
    judge(rows, 500)


def test_a_model_that_is_sure_of_every_token_is_accepted(trained):
    def sure(whole, top):
        return torch.tensor([[-1e-9, *[-25.0] * 9]], dtype=torch.float64).expand(len(whole), 10)

    rows = trained.rows(10, sure)
    for each in rows:  # the token itself comes first
        others = torch.stack([(each.next_tokens() + n) % trained.vocabulary for n in range(10)], 1)
        each.ids.copy_(others)
    judge(rows, trained.vocabulary)


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
@pytest.mark.parametrize("k", [2, 10])
@pytest.mark.parametrize("what", CORRUPTED)
def test_other_numbers_are_refused_with_their_cause(trained, what, k, precision):
    if what == "normalised over the entries" and precision == "bfloat16":
        pytest.skip("rounding hides that nothing is left over")
    change, cause = CORRUPTED[what]
    with pytest.raises(ValueError, match=f"dump.jsonl.*{cause}"):
        judge(rounded(trained.rows(k, change), ROUNDED[precision]), trained.vocabulary)


@pytest.mark.parametrize("what", [name for name in CORRUPTED if name != "normalised over the entries"])
def test_other_numbers_of_an_untrained_model_are_refused_with_their_cause(untrained, what):
    change, cause = CORRUPTED[what]
    with pytest.raises(ValueError, match=cause):
        judge(untrained.rows(64, change), untrained.vocabulary)


@pytest.mark.parametrize(("moved", "direction"), [(1, "one row earlier"), (-1, "one row later")])
@pytest.mark.parametrize("k", [1, 10])
def test_rows_that_stand_one_too_early_or_late_are_refused(trained, moved, direction, k):
    with pytest.raises(ValueError, match=f"dump.jsonl: the rows are shifted, {direction} than their tokens"):
        judge(trained.rows(k, moved=moved), trained.vocabulary)


def test_rows_of_texts_of_another_kind_are_refused(trained):
    order = [(number + 13) % len(trained.texts) for number in range(len(trained.texts))]
    with pytest.raises(
        ValueError, match="dump.jsonl: .*the rows belong to another text, or were computed with other tokens"
    ):
        judge(trained.rows(10, order=order), trained.vocabulary)


def test_confident_rows_of_texts_that_are_not_there_are_refused(trained):
    backwards = trained.rows(10)
    for each in backwards:
        each.ids.copy_(each.ids.flip(0))
        each.logprobs.copy_(each.logprobs.flip(0))
    with pytest.raises(ValueError, match=r"the rows belong to another text, or were computed with other tokens"):
        judge(backwards, trained.vocabulary)


def test_a_warning_is_said_once_and_counts_the_rows(capsys):
    check = SourceCheck(100)
    for _ in range(2):
        ids, gold = torch.arange(1, 11).expand(40, -1), torch.full((40,), -9.0)
        check.add(ListedRows([5, *[0] * 40], torch.full((40, 10), -4.6), ids, gold=gold))
        check.conclude("x.jsonl")
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("uniform guess") == 1
    assert "x.jsonl: the text's own tokens have about -9.00 nats on average" in said
    assert "40 of 40 rows are below it" in said


def test_ids_of_a_padded_head_are_accepted_and_those_of_another_tokenizer_refused():
    def rows(first, second):
        return ListedRows(
            [1, 2], torch.tensor([[-0.1, -8.0]]), torch.tensor([[first, second]]), origin="x.jsonl, line 1"
        )

    judge([rows(3, 50_300)], 50_257)
    with pytest.raises(
        ValueError, match=r"x.jsonl, line 1, row 0 .*the id 90000 belongs to no token: the tokenizer has"
    ):
        judge([rows(3, 90_000)], 50_257)
    with pytest.raises(ValueError, match="ids from 50257 on, which belong to no token, have 0.9"):
        judge([rows(50_300, 3)], 50_257)


def test_a_file_that_is_wrong_is_found_behind_one_that_is_right(trained):
    check, other = SourceCheck(trained.vocabulary), SourceCheck(trained.vocabulary)
    for each in trained.rows(10):
        check.add(each)
    for each in trained.rows(10, moved=1):
        other.add(each)
    check.conclude()
    with pytest.raises(ValueError, match="shifted"):
        other.conclude()


@pytest.mark.parametrize("change", [lambda whole, top: top - 30, lambda whole, top: 3 * top])
def test_masses_that_no_model_leaves_are_refused_even_in_few_rows(trained, change):
    [first, *_] = trained.rows(10, change)
    with pytest.raises(
        ValueError, match=r"dump.jsonl, line 1, row \d+ .* all other tokens of the vocabulary cannot have the rest"
    ):
        judge([first.span(0, 3)], trained.vocabulary)


def test_entries_that_are_not_all_of_the_likeliest_are_not_held_to_their_mass():
    rows = ListedRows([1, 2], torch.tensor([[-20.0]]), torch.tensor([[2]]), likeliest=False)
    judge([rows], 50_000)


def test_a_token_that_is_listed_beside_the_likeliest_does_not_count_as_one_of_them():
    values, ids = torch.tensor([[-3.0, -3.1, -30.0]]), torch.tensor([[4, 5, 2]])
    judge([ListedRows([1, 2], values, ids)], 50_000)
    with pytest.raises(ValueError, match="cannot have the rest"):
        judge([ListedRows([1, 6], values, ids)], 50_000)


def test_rounding_does_not_put_a_uniform_model_below_its_bound():
    values = torch.full((30, 10), 1 / 500).log().bfloat16().float()
    assert values[0, 0] < torch.tensor(1 / 500).log()
    judge([ListedRows([499] * 31, values, torch.arange(10).expand(30, 10), head_size=500)], 500)


def test_rows_that_are_unsure_and_always_right_are_refused(trained):
    with pytest.raises(
        ValueError, match=r"in \d+ of 381 rows the text's token is among the entries, .* no model is so unsure"
    ):
        judge(trained.rows(10, lambda whole, top: torch.full_like(top, 1 / 500).log()), trained.vocabulary)


def test_golds_that_no_model_reading_the_text_gives_are_refused():
    ids, gold = torch.arange(1, 11).expand(40, -1), torch.full((40,), -20.0)
    with pytest.raises(
        ValueError, match=r"-20.00 nats on average over 40 rows, .* these numbers are not about this text"
    ):
        judge([ListedRows([5, *[0] * 40], torch.full((40, 10), -4.6), ids, gold=gold)], 100)


def test_checks_of_parts_are_judged_together(trained):
    together = SourceCheck(trained.vocabulary)
    for each in trained.rows(10, moved=1):
        part = SourceCheck(trained.vocabulary)
        part.add(each)
        part.conclude()  # too few rows to tell
        together.absorb(part)
    with pytest.raises(ValueError, match="shifted"):
        together.conclude()
