"""Entries drawn at random, through the cache: ids and counts as they were, whatever else is kept how."""

import dataclasses

import pytest
import torch

from fusion.cache import Cache, CacheWriter, sampled_entries
from fusion.cache.codec import bytes_per_row, encode
from fusion.core.rows import LogitRows
from fusion.models.head.sampling import sample_ids

IDS = [f"id{i:02d}" for i in range(11)]
V = 49_152


def rows_of(ids, tau=1.0, draws=20):
    """Example i has i % 3 + 1 rows; drawn from 60 ids all over the vocabulary."""
    example = torch.tensor([n for n, id in enumerate(ids) for _ in range(int(id[2:]) % 3 + 1)])
    generator = torch.Generator().manual_seed(len(ids))
    logits = torch.randn(len(example), 60, generator=generator) * 2
    found = sample_ids(logits, torch.rand(len(example), draws, generator=generator), tau)
    statistics = [torch.randn(len(example), generator=generator).abs() + shift for shift in (0.5, 2, 1)]
    gold, mean, std = -statistics[0], -statistics[1], statistics[2]
    prefix = torch.tensor([7 * r for id in ids for r in range(int(id[2:]) % 3 + 1)])
    ids_ = torch.where(found.ids >= 0, found.ids * 800, -1)
    return LogitRows(found.logprobs, ids_, gold, mean, std, prefix=prefix, example=example, sample_counts=found.counts)


def written(folder, values, tau=1.0, shard=4):
    writer = CacheWriter(folder, {"model": "abc"}, IDS, shard, values, vocabulary=V)
    rows = rows_of(IDS, tau)
    for number in writer.missing():
        names = writer.examples(number)
        parts = [rows.select(rows.example == IDS.index(id)) for id in names]
        parts = [dataclasses.replace(p, example=torch.full_like(p.example, n)) for n, p in enumerate(parts)]
        writer.write(number, LogitRows.cat(parts))
    return writer.finalize(), rows


@pytest.mark.parametrize("values", ["packed", "float16", "float32"])
@pytest.mark.parametrize(("tau", "tolerance"), [(1.0, 1e-6), (0.8, 0.003)])
def test_counts_and_ids_come_back_without_loss_in_any_order(tmp_path, values, tau, tolerance):
    cache, rows = written(tmp_path, values, tau)
    wanted = [IDS[i] for i in (7, 0, 10, 3, 4)]
    got = cache.rows(wanted)
    for number, id in enumerate(wanted):
        mine, theirs = got.select(got.example == number), rows.select(rows.example == IDS.index(id))
        k = int((theirs.sample_counts > 0).sum(-1).max())
        assert torch.equal(mine.ids[:, :k], theirs.ids[:, :k])
        assert torch.equal(mine.sample_counts[:, :k], theirs.sample_counts[:, :k])
        torch.testing.assert_close(mine.logprobs[:, :k], theirs.logprobs[:, :k], atol=tolerance, rtol=0)
        assert (mine.sample_counts[:, k:] == 0).all()
        assert (mine.ids[:, k:] == -1).all()
        assert mine.logprobs[:, k:].isneginf().all()
        assert torch.equal(mine.prefix, theirs.prefix)
        torch.testing.assert_close(mine.gold, theirs.gold, atol=0 if values != "packed" else 0.015, rtol=0)


def test_at_tau_one_a_target_has_mass_one(tmp_path):
    cache, _ = written(tmp_path, "packed")
    got = cache.rows(IDS)
    torch.testing.assert_close(got.logprobs.exp().sum(-1), torch.ones(len(got)))
    assert torch.equal(got.sample_counts.sum(-1), torch.full((len(got),), 20))


def test_no_wider_than_the_widest_row_that_is_read(tmp_path):
    cache, rows = written(tmp_path, "packed")
    for id in IDS:
        mine = rows.select(rows.example == IDS.index(id))
        assert cache.rows([id]).k == (mine.sample_counts > 0).sum(-1).max()


def test_the_size_of_shards_changes_nothing_that_is_read(tmp_path):
    one, other = written(tmp_path / "a", "packed")[0].rows(IDS), written(tmp_path / "b", "packed", shard=3)[0].rows(IDS)
    for name in ("ids", "sample_counts", "logprobs", "gold", "prefix", "example"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_an_entry_takes_three_bytes_and_a_row_one_more():
    rows = rows_of(IDS)
    tensors = encode(rows, "packed", V)
    different = int((rows.sample_counts > 0).sum())
    assert tensors["drawn"].shape == (different, 3)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    each = bytes_per_row(0, "packed", V) + sampled_entries.bytes_per_row(different / len(rows), V)
    assert size == pytest.approx(each * len(rows))


def test_127_draws_of_one_id_fit_and_128_are_refused():
    rows = rows_of(IDS[:1]).top(2)
    fits = dataclasses.replace(
        rows,
        logprobs=torch.tensor([[0.0, -torch.inf]]),
        ids=torch.tensor([[5, -1]]),
        sample_counts=torch.tensor([[127, 0]]),
    )
    assert sampled_entries.decode([sampled_entries.encode(fits, V)], V)[2].tolist() == [[127]]
    with pytest.raises(ValueError, match=r"drawn 128 times .* at most 127 \(extract.sampling.draws\)"):
        sampled_entries.encode(dataclasses.replace(fits, sample_counts=fits.sample_counts + torch.tensor([1, 0])), V)


def test_a_cache_of_drawn_entries_says_so(tmp_path):
    cache, _ = written(tmp_path, "packed")
    assert Cache(tmp_path).is_sampled
    assert cache.is_sampled
    cache.verify()
