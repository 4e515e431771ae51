"""Rows as they are cut, moved and put together: every field and the class stay."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fusion.core.rows import EntryRows, LogitRows, MappedRows, Positions
from tests.helpers.rows import as_mapped, random_rows

N, K = 7, 5
PER_ENTRY = {"logprobs", "ids", "sample_counts"}


def logit_rows(seed: int = 0) -> LogitRows:
    """Rows with every field."""
    rows = random_rows(N, K, 11, seed=seed, examples=2)
    hidden, counts = torch.randn(N, 3), torch.arange(N * K).reshape(N, K)
    return dataclasses.replace(rows, hidden=hidden, sample_counts=counts)


def positions() -> Positions:
    return Positions(prefix=torch.arange(N), example=torch.arange(N) // 4, token=torch.arange(N) + 20)


ROWS = {"positions": positions(), "logit_rows": logit_rows(), "mapped_rows": as_mapped(logit_rows())}
ENTRY_ROWS = {name: rows for name, rows in ROWS.items() if isinstance(rows, EntryRows)}
every_class = pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS.keys())
every_class_with_entries = pytest.mark.parametrize("rows", ENTRY_ROWS.values(), ids=ENTRY_ROWS.keys())


def fields(rows: Positions) -> dict[str, torch.Tensor]:
    found = {field.name: getattr(rows, field.name) for field in dataclasses.fields(rows)}
    assert all(value is not None for value in found.values())
    return found


def assert_same(found: Positions, like: Positions, expected: dict[str, torch.Tensor]) -> None:
    assert type(found) is type(like)
    assert fields(found).keys() == expected.keys()
    for name, value in fields(found).items():
        assert value.dtype == expected[name].dtype, name
        assert torch.equal(value, expected[name]), name


@every_class
@pytest.mark.parametrize(
    "index", [torch.tensor([4, 0, 4]), torch.arange(N) % 2 == 0, slice(2, 5), slice(0, 0)], ids=repr
)
def test_select_takes_these_rows_of_every_field(rows, index):
    found = rows.select(index)
    assert_same(found, rows, {name: value[index] for name, value in fields(rows).items()})
    assert len(found) == len(torch.arange(N)[index])


@every_class
def test_to_moves_every_field(rows):
    moved = rows.to("meta")
    assert type(moved) is type(rows)
    assert {name: value.shape for name, value in fields(moved).items()} == {
        name: value.shape for name, value in fields(rows).items()
    }
    assert all(value.is_meta for value in fields(moved).values())
    assert_same(rows.to("cpu"), rows, fields(rows))


@every_class_with_entries
def test_cat_puts_every_field_one_after_another(rows):
    found = type(rows).cat([rows.select(slice(3, N)), rows.select(slice(0, 3))])
    order = torch.tensor([3, 4, 5, 6, 0, 1, 2])
    assert_same(found, rows, {name: value[order] for name, value in fields(rows).items()})


@every_class_with_entries
@pytest.mark.parametrize("name", ["token", "hidden", "sample_counts"])
def test_an_optional_field_survives_cat_only_where_every_part_has_it(rows, name):
    found = type(rows).cat([rows, dataclasses.replace(rows, **{name: None})])
    assert getattr(found, name) is None
    others = {field for field in fields(rows) if field != name}
    assert all(len(getattr(found, other)) == 2 * N for other in others)


@every_class_with_entries
@pytest.mark.parametrize("k", [0, 2, K])
def test_top_keeps_the_first_entries_and_every_other_field(rows, k):
    found = rows.top(k)
    cut = {name: value[:, :k] if name in PER_ENTRY else value for name, value in fields(rows).items()}
    assert_same(found, rows, cut)
    assert found.k == k


@every_class_with_entries
def test_more_entries_than_there_are_are_refused(rows):
    with pytest.raises(ValueError, match=r"keep 5 entries each, 6 were asked for; extract with top_k >= 6"):
        rows.top(K + 1)


@every_class_with_entries
def test_optional_fields_that_are_not_there_stay_so(rows):
    plain = dataclasses.replace(rows, token=None, hidden=None, sample_counts=None)
    for found in (plain.select(slice(0, 2)), plain.to("cpu"), plain.top(2), type(rows).cat([plain, plain])):
        assert (found.token, found.hidden, found.sample_counts) == (None, None, None)


@every_class_with_entries
def test_detach_keeps_the_numbers_and_forgets_their_history(rows):
    free = dataclasses.replace(rows, logprobs=rows.logprobs.clone().requires_grad_())
    assert free.select(slice(0, 2)).logprobs.requires_grad
    assert not free.detach().logprobs.requires_grad
    assert_same(free.detach(), rows, fields(rows))


def test_numbers_are_put_at_positions():
    rows, where = logit_rows(), positions()
    own = {field.name for field in dataclasses.fields(Positions)}
    numbers = {name: value for name, value in fields(rows).items() if name not in own}
    assert_same(LogitRows.at(where, **numbers), rows, {**fields(where), **numbers})
    found = LogitRows.at(as_mapped(rows, prefix=where.prefix, token=None), **numbers)  # any positions will do
    assert type(found) is LogitRows
    assert torch.equal(found.prefix, where.prefix)
    assert found.token is None


def test_the_last_row_of_each_example_is_known_by_the_next_ones_number():
    assert positions().is_last.tolist() == [False, False, False, True, False, False, True]
    assert positions().select(slice(0, 0)).is_last.tolist() == []


def test_mapped_rows_say_what_the_source_gives_to_the_pivots_token_and_have_no_gold():
    rows, mapped = logit_rows(), as_mapped(logit_rows())
    assert not hasattr(mapped, "gold")
    assert not hasattr(rows, "pivot_token_logprob")
    assert torch.equal(mapped.pivot_token_logprob, rows.gold)
    assert not isinstance(mapped, LogitRows)
    assert not isinstance(rows, MappedRows)
    with pytest.raises(TypeError, match="unexpected keyword argument 'gold'"):
        MappedRows(**vars(mapped), gold=rows.gold)
