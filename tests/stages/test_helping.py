"""*Is this source helping?* on rows whose answer is known."""

import pytest
import torch

from fusion.core.rows import LogitRows
from fusion.stages.helping import Batch, helping
from fusion.weighting import Eligibility, GoldPosterior, Sum


def text(example, prefix, gold):
    """Rows of one text; the last row predicts the end of the turn."""
    n = len(prefix)
    nan, gold = torch.full((n,), torch.nan), torch.tensor(gold)
    ids = torch.zeros(n, 1, dtype=torch.long)
    return LogitRows(gold[:, None], ids, gold, nan, nan, prefix=torch.tensor(prefix), example=torch.full((n,), example))


def test_every_figure_by_hand():
    pivot = LogitRows.cat([text(0, [0, 2, 6], [-1.0, -2.0, -9.0]), text(1, [0, 4], [-4.0, -9.0])])
    source = LogitRows.cat([text(0, [0, 3, 6], [-0.5, -0.25, -7.0]), text(1, [0, 4], [-1.0, -7.0])])
    one, two = helping([Batch(pivot, {"s": source}, ["a", "b"], {0: b"abcdef", 1: b"abcd"})], "prefix", Sum())
    assert (one.source, one.domain, one.rows, two.domain, two.rows) == ("s", "a", 3, "b", 2)
    assert one.match_rate == pytest.approx(2 / 3)  # at 0 and at 6 of 0, 2, 6
    assert one.gold_pivot == pytest.approx(-3 / 6)  # nats a byte, the end of turn left out
    assert one.gold_source == pytest.approx(-0.75 / 6)
    assert (two.gold_pivot, two.gold_source, two.match_rate, two.weight) == pytest.approx((-1.0, -0.25, 1.0, 1.0))


def test_the_source_that_knows_gets_the_weight():
    pivot = text(0, [0, 2, 4], [-3.0, -3.0, -1.0])
    good, bad = text(0, [0, 2, 4], [-0.1, -0.1, -0.1]), text(0, [0, 2, 4], [-5.0, -5.0, -5.0])
    found = helping([Batch(pivot, {"good": good, "bad": bad}, ["a"], {0: b"abcd"})], "prefix", GoldPosterior())
    weight = {row.source: row.weight for row in found}
    assert weight["good"] > 0.95
    assert weight["good"] + weight["bad"] == pytest.approx(1)


def test_a_source_without_a_match_is_said_to_have_none():
    pivot, source = text(0, [0, 2, 4], [-1.0, -1.0, -1.0]), text(1, [0, 3], [-1.0, -1.0])
    rows = helping([Batch(pivot, {"s": source}, ["a", "b"], {0: b"abcd", 1: b"abc"})], "prefix", Sum())
    assert [(row.match_rate, row.weight) for row in rows] == [(0, 0), (0, 0)]


def test_the_size_of_the_batches_changes_nothing():
    texts = {0: b"abcdef", 1: b"abcd", 2: b"ab"}
    pivot = [text(0, [0, 2, 6], [-1.0, -2.0, -9.0]), text(1, [0, 4], [-4.0, -9.0]), text(2, [0, 2], [-1.0, -3.0])]
    source = [text(0, [0, 3, 6], [-0.5, -0.2, -7.0]), text(1, [0, 4], [-1.0, -7.0]), text(2, [0, 2], [-2.0, -3.0])]
    domains, sources = ["a", "b", "a"], {"s": LogitRows.cat(source), "t": LogitRows.cat(pivot)}
    whole = helping([Batch(LogitRows.cat(pivot), sources, domains, texts)], "prefix", GoldPosterior())
    renumbered = [[LogitRows(**{**vars(r), "example": r.example * 0}) for r in side] for side in (pivot, source)]
    one_by_one = [
        Batch(p, {"s": s, "t": p}, [domain], {0: texts[i]})
        for i, (p, s, domain) in enumerate(zip(*renumbered, domains, strict=True))
    ]
    again = helping(one_by_one, "prefix", GoldPosterior())
    assert [(row.source, row.domain) for row in whole] == [("s", "a"), ("s", "b"), ("t", "a"), ("t", "b")]
    for row, other in zip(whole, again, strict=True):
        assert vars(row) == pytest.approx(vars(other))


def test_a_source_counts_where_it_answered_rightly():
    pivot = LogitRows.cat([text(0, [0, 2, 4], [-1.0] * 3), text(1, [0, 4], [-1.0] * 2)])
    sources = {"s": pivot, "t": pivot}
    shares = [(0.0, 0.5), (1.0, 0.5)]
    batch = Batch(pivot, sources, ["a", "a"], {0: b"abcd", 1: b"abcd"}, shares)
    weights = [row.weight for row in helping([batch], "prefix", Eligibility())]
    assert weights == pytest.approx(
        [(3 * 0 + 2 * 2 / 3) / 5, (3 * 1 + 2 * 1 / 3) / 5]
    )  # three rows of the first example, two of the second
