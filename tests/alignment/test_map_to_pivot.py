"""What a source says in the pivot's tokens, against a slow search over all its rows, and on cases worked by hand."""

import pytest
import torch

from fusion.alignment import map_entries, map_to_pivot, match_prefixes
from fusion.alignment.map_to_pivot import token_ends
from fusion.core.rows import LogitRows
from tests.helpers.rows import random_rows

LENGTH = 12


def cut(example, boundaries, V=20, seed=0, k=4):
    """Rows of one text of LENGTH bytes cut at `boundaries`, the end-of-turn row last."""
    prefix = [0, *boundaries, LENGTH]
    rows = random_rows(len(prefix), k, V, torch.float64, seed)
    token = torch.arange(len(prefix)) % V
    return LogitRows(
        **{**vars(rows), "prefix": torch.tensor(prefix), "example": torch.full_like(token, example), "token": token}
    )


def random_cut(example, seed):
    generator = torch.Generator().manual_seed(seed)
    return cut(
        example, sorted((torch.randperm(LENGTH - 1, generator=generator)[: 3 + seed % 5] + 1).tolist()), seed=seed
    )


IDENTITY = torch.arange(20)


@pytest.mark.parametrize("seed", range(30))
def test_the_mapped_rows_are_what_a_slow_search_finds(seed):
    pivot = LogitRows.cat([random_cut(e, 3 * seed + e) for e in range(3)])
    source = LogitRows.cat([random_cut(e, 1000 + 3 * seed + e) for e in (2, 0, 1)])
    pairs = match_prefixes(pivot, source)
    chosen, rows = map_to_pivot(pivot, source, pairs, IDENTITY)
    (ids, logprobs, _), expected = map_entries(source, IDENTITY), {}
    for m, (t, u) in enumerate(zip(pairs.pivot.tolist(), pairs.source.tolist(), strict=True)):
        here = [v for v in range(len(source)) if source.example[v] == pivot.example[t]]
        if pivot.prefix[t] == LENGTH or (source.prefix[u] < LENGTH and source.prefix[u + 1] >= pivot.prefix[t + 1]):
            expected[m] = (ids[u].tolist(), logprobs[u].tolist())
        elif closing := [v for v in here if source.prefix[v] == pivot.prefix[t + 1]]:
            total = sum(source.gold[v].item() for v in range(u, closing[0]))
            expected[m] = ([pivot.token[t].item(), -1, -1, -1], [total, *[-torch.inf] * 3])
    assert chosen.tolist() == list(expected)
    for row, (ids, logprobs) in enumerate(expected.values()):
        assert rows.ids[row].tolist() == ids
        torch.testing.assert_close(rows.logprobs[row], torch.tensor(logprobs, dtype=torch.float64))


def test_the_three_cases_by_hand():
    pivot, source = cut(0, [4, 8], seed=1), cut(0, [2, 4, 10], seed=2)
    #  pivot   0...4...8...12    source  0.2.4.....10..12      pairs at 0, 4 and 12
    chosen, rows = map_to_pivot(pivot, source, match_prefixes(pivot, source), IDENTITY)
    assert chosen.tolist() == [0, 1, 2]
    assert rows.ids[0].tolist() == [pivot.token[0].item(), -1, -1, -1]  # 0.2.4 spells 0...4
    assert rows.logprobs[0, 0] == pytest.approx((source.gold[0] + source.gold[1]).item())
    assert torch.equal(rows.ids[1], source.ids[2])  # 4.....10 reaches beyond 4...8
    chosen, _ = map_to_pivot(source, pivot, match_prefixes(source, pivot), IDENTITY)
    assert chosen.tolist() == [0, 2]  # 4...8 ends within 4.....10, and nothing of the source ends at 10


def test_equal_tokens_are_mapped_row_by_row():
    rows = LogitRows.cat([random_cut(e, e) for e in range(3)])
    chosen, mapped = map_to_pivot(rows, rows, match_prefixes(rows, rows), IDENTITY)
    assert chosen.tolist() == list(range(len(rows)))
    assert torch.equal(mapped.ids, rows.ids)


def test_probability_of_the_pivots_token_is_kept_by_splitting_it():
    """A source that spells a token in two says of it what one that writes it whole says."""
    pivot, whole = cut(0, [6], seed=1), cut(0, [6], seed=2)
    split = cut(0, [3, 6], seed=3)
    gold = split.gold.clone()
    gold[0], gold[1] = -0.25, whole.gold[0] + 0.25
    split = LogitRows(**{**vars(split), "gold": gold})
    _, rows = map_to_pivot(pivot, split, match_prefixes(pivot, split), IDENTITY)
    assert rows.logprobs[0, 0] == pytest.approx(whole.gold[0].item())


def test_a_cut_source_says_nothing_beyond_its_end():
    pivot, source = cut(0, [4, 8], seed=1), cut(0, [4, 8], seed=2)
    short = source.select(slice(0, 2))  # its second row predicts text of unknown length
    chosen, _ = map_to_pivot(pivot, short, match_prefixes(pivot, short), IDENTITY)
    assert chosen.tolist() == [0]


def test_rows_at_no_true_boundary_are_not_compared():
    pivot, source = cut(0, [4, 8], seed=1), cut(0, [4, 8], seed=2)
    prefix = pivot.prefix.clone()
    prefix[1] = -1
    pivot = LogitRows(**{**vars(pivot), "prefix": prefix})
    chosen, _ = map_to_pivot(pivot, source, match_prefixes(pivot, source), IDENTITY)
    assert match_prefixes(pivot, source).pivot[chosen].tolist() == [2, 3]


def test_token_ends_are_the_next_prefix():
    assert token_ends(cut(0, [4, 8])).tolist()[:-1] == [4, 8, 12]


def test_the_pivot_tokens_logprob_is_what_the_source_gives_to_the_pivots_token():
    """An entry of it; else the source's own token, which begins with it, if that is left over; else unknown."""
    pivot, source = cut(0, [4, 8], seed=1), cut(0, [4, 8], seed=2, k=3)
    pairs = match_prefixes(pivot, source)

    def golds(own, token):
        given = LogitRows(**{**vars(source), "gold": torch.full((4,), own, dtype=torch.float64)})
        pivot_rows = LogitRows(**{**vars(pivot), "token": token})
        _, rows = map_to_pivot(pivot_rows, given, pairs, IDENTITY)
        assert torch.equal(rows.token, token)
        return rows.pivot_token_logprob

    named = source.ids[:, 1]
    torch.testing.assert_close(golds(-50.0, named), source.logprobs[:, 1])
    absent = torch.tensor([next(i for i in range(20) if i not in ids) for ids in source.ids.tolist()])
    torch.testing.assert_close(golds(-50.0, absent), torch.full((4,), -50.0, dtype=torch.float64))
    least = source.logprobs.min(-1).values
    rest = torch.log1p(-source.logprobs.exp().sum(-1))
    barely = golds(least.min().item() - 1e-6, absent)
    assert (barely <= rest + 1e-12).all()  # no more than there is
    assert golds(source.logprobs.max().item(), absent).isnan().all()  # it is an entry, but one that maps elsewhere


def test_the_logprob_of_a_token_in_pieces_is_the_product_that_spells_it():
    pivot, source = cut(0, [4, 8], seed=1), cut(0, [2, 4, 10], seed=2)
    _, rows = map_to_pivot(pivot, source, match_prefixes(pivot, source), IDENTITY)
    assert rows.pivot_token_logprob[0] == pytest.approx((source.gold[0] + source.gold[1]).item())


def test_a_row_that_does_not_know_its_text_spoils_no_other():
    """Backends may not know the log-probability of a token: no product over it, and all the others as they are."""
    pivot = LogitRows.cat([cut(e, [4, 8], seed=1) for e in range(2)])
    source = LogitRows.cat([cut(e, [2, 4, 10], seed=2) for e in range(2)])
    pairs = match_prefixes(pivot, source)
    chosen, rows = map_to_pivot(pivot, source, pairs, IDENTITY)
    gold = source.gold.clone()
    gold[1] = torch.nan  # within 0.2.4, which spells the pivot's 0...4 of the first example
    fewer, others = map_to_pivot(pivot, LogitRows(**{**vars(source), "gold": gold}), pairs, IDENTITY)
    assert fewer.tolist() == chosen.tolist()[1:]
    torch.testing.assert_close(others.logprobs, rows.logprobs[1:])
    assert torch.equal(others.ids, rows.ids[1:])
