"""Megatron-LM's caches, from a writer of the tests' own: any split of the run, and what cannot be trusted is refused."""

import io
import tarfile

import pytest
import torch
import zstandard

from fusion.data.encode import Encoded
from fusion.sources.importers import match_to_examples, read_sequences
from fusion.sources.importers.megatron import read_megatron
from tests.helpers import dump_writers


def sequences(truth, k=6, length=80, many=2):
    """All texts, `many` times over, in one order: values and ids [S, K] behind which padding follows, and their tokens."""
    rows, tokens = [], []
    for id in list(truth.texts) * many:
        values, ids = truth.top(id, k)
        pad = length - len(values)
        rows.append((
            torch.cat([values.float(), torch.full((pad, k), -7.0)]), torch.cat([ids, torch.zeros(pad, k, dtype=torch.long)])
        ))  # fmt: skip
        tokens.append({"input_ids": truth.texts[id].input_ids})
    return rows, tokens


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("dp", "mbs", "micro", "per_tar", "named"), [
    (1, 1, 1, 1, "iteration"), (2, 1, 2, 1, "iteration"), (2, 2, 1, 2, "iteration"), (1, 2, 2, 1, "samples"),
    (4, 1, 1, 2, "iteration"),
])  # fmt: skip
def test_rows_are_those_that_were_saved_however_the_run_was_split(
    truth, tmp_path, version, dp, mbs, micro, per_tar, named
):
    rows, tokens = sequences(truth)
    shape = {"dp": dp, "mbs": mbs, "micro": micro, "per_tar": per_tar, "first": 3, "named": named}
    folder = dump_writers.megatron(tmp_path / "cache", rows, version=version, **shape)
    file = dump_writers.lines(tmp_path / "tokens.jsonl", tokens)
    found, counts = match_to_examples(
        read_sequences("megatron", sorted(folder.glob("*.tar")), tokens=file), truth.texts, 6, truth.vocabulary
    )
    assert counts == {"matched": 8}
    for id in truth.texts:
        values, ids, _ = truth.expected(id, 6)
        torch.testing.assert_close(found[id].logprobs.double(), values, atol=0.01, rtol=0)
        assert torch.equal(found[id].ids, ids)
        assert found[id].mean.isnan().all()


def test_ids_have_seventeen_bits_and_what_top_p_cut_off_is_no_entry(tmp_path):
    values = torch.tensor([[-0.5, -1.0, -1e4], [-0.25, -1e3, -1e3]])
    ids = torch.tensor([[131_070, 65_536, -1], [65_535, -1, -1]])
    folder = dump_writers.megatron(tmp_path / "cache", [(values, ids)], version=1, dp=1, mbs=1, micro=1)
    file = dump_writers.lines(tmp_path / "tokens.jsonl", [{"input_ids": [1, 2, 3]}])
    told = next(read_megatron(list(folder.glob("*.tar")), file))
    assert told.ids[0, :2].tolist() == [131_070, 65_536]
    assert told.ids[1, 0] == 65_535
    rows = told.rows_for(Encoded([1, 2, 3], 1, [0, 1], False), 3, 131_072)
    assert rows.ids.tolist() == [[131_070, 65_536, -1], [65_535, -1, -1]]
    assert rows.logprobs.tolist() == [[-0.5, -1.0, -torch.inf], [-0.25, -torch.inf, -torch.inf]]


def test_without_tokens_the_way_out_is_named(tmp_path):
    with pytest.raises(ValueError, match="Megatron's caches hold no tokens. Give --tokens FILE"):
        list(read_sequences("megatron", [tmp_path / "dp0__1.tar"]))


@pytest.mark.parametrize(("names", "message"), [
    (["dp0__1.tar", "dp2__1.tar"], r"data-parallel ranks \[0, 2\] are there; those of the others are missing"),
    (["cp1_dp0__1.tar"], "split by context parallelism"),
    (["logits.tar"], "is not named as Megatron names its caches"),
])  # fmt: skip
def test_archives_that_are_not_a_whole_run_are_refused(tmp_path, names, message):
    file = dump_writers.lines(tmp_path / "tokens.jsonl", [])
    with pytest.raises(ValueError, match=message):
        list(read_sequences("megatron", [tmp_path / name for name in names], tokens=file))


def test_a_missing_archive_is_found_out(truth, tmp_path):
    rows, tokens = sequences(truth)
    folder = dump_writers.megatron(tmp_path / "cache", rows, version=1, dp=2, mbs=1, micro=1)
    file = dump_writers.lines(tmp_path / "tokens.jsonl", tokens)
    (folder / "cp0_dp0__2.tar").rename(tmp_path / "away0")
    with pytest.raises(
        ValueError, match=r"cp0_dp0__3.tar goes on at 3, where 2 is due: the archive between is missing"
    ):
        list(read_sequences("megatron", sorted(folder.glob("*.tar")), tokens=file))
    (tmp_path / "away0").rename(folder / "cp0_dp0__2.tar")
    (folder / "cp0_dp1__3.tar").unlink()
    with pytest.raises(ValueError, match="different iterations: 3, none at the same place"):
        list(read_sequences("megatron", sorted(folder.glob("*.tar")), tokens=file))


@pytest.mark.parametrize(("change", "message"), [
    (lambda tokens: tokens[:-1], "has 7 lines, and the cache has more sequences than that"),
    (lambda tokens: [*tokens, tokens[0]], r"has more lines than the cache has sequences \(8\)"),
    (lambda tokens: [{"ids": [1]}, *tokens[1:]], "tokens.jsonl, line 1 must be an object with input_ids"),
    (lambda tokens: [{"input_ids": [1] * 99}, *tokens[1:]], "line 1: 99 tokens, and the cache has 80 positions"),
])  # fmt: skip
def test_tokens_of_another_run_are_refused(truth, tmp_path, change, message):
    rows, tokens = sequences(truth)
    folder = dump_writers.megatron(tmp_path / "cache", rows, version=2, dp=1, mbs=2, micro=1)
    file = dump_writers.lines(tmp_path / "tokens.jsonl", change(tokens))
    with pytest.raises(ValueError, match=message):
        list(read_sequences("megatron", sorted(folder.glob("*.tar")), tokens=file))


def test_a_later_format_is_refused(truth, tmp_path, monkeypatch):
    rows, tokens = sequences(truth)
    folder = dump_writers.megatron(tmp_path / "cache", rows, version=1, dp=1, mbs=1, micro=1)
    file = dump_writers.lines(tmp_path / "tokens.jsonl", tokens)
    monkeypatch.setattr(
        "fusion.sources.importers.megatron._tensors", lambda data: {"format_version": 3, "tokens": None}
    )
    with pytest.raises(ValueError, match="has format 3 with format_version, tokens; formats 1 and 2 are read"):
        list(read_sequences("megatron", sorted(folder.glob("*.tar")), tokens=file))


def test_a_pickle_that_would_run_something_is_not_read(tmp_path):
    buffer = io.BytesIO()
    torch.save({"values": print}, buffer)
    data = zstandard.ZstdCompressor().compress(buffer.getvalue())
    with tarfile.open(tmp_path / "dp0__1.tar", "w") as tar:
        info = tarfile.TarInfo("1.pt.zst")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    with pytest.raises(Exception, match="[Ww]eights.only"):
        list(read_sequences("megatron", [tmp_path / "dp0__1.tar"], tokens=dump_writers.lines(tmp_path / "t.jsonl", [])))
