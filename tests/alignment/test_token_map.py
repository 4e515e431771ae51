"""Vocabulary maps against a slow search, on small vocabularies by hand and on trained tokenizers; mass under a map."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from fusion.alignment import coverage, exact_map, first_piece_map, map_entries
from fusion.core.rows import LogitRows
from fusion.tokenizers import tokenize, vocabulary_bytes
from tests.helpers.alignment_cases import rows
from tests.helpers.tiny_tokenizers import ALL, BYTES, byte_level, gemma_style, unigram
from tokenizers import Tokenizer, decoders, models, normalizers

BARE = [bytes([byte]) for byte in range(256)]


def test_exact_map_finds_equal_bytes_and_nothing_else():
    source = [None, b"a", b" the", b"ab", b"", "é".encode()]
    pivot = ["é".encode(), None, b"ab", b"a", b"", b" th"]
    assert exact_map(source, pivot).tolist() == [-1, 3, -1, 2, -1, 0]


def test_exact_map_takes_the_lowest_id_of_equals():
    assert exact_map([b"a"], [b"b", b"a", b"a"]).tolist() == [1]


def test_exact_map_prefers_an_ordinary_token_to_one_for_a_bare_byte():
    pivot = [None, *BARE, b"b", b"a"]
    assert exact_map([b"a", b"b", b"c"], pivot).tolist() == [258, 257, 1 + ord("c")]


def test_a_run_of_bytes_that_is_not_all_of_them_has_no_say():
    assert exact_map([b"a"], [*BARE[:255], b"a"]).tolist() == [ord("a")]


def test_roles_join_control_tokens_and_overrule_bytes():
    assert exact_map([None, b"a"], [b"a", None], control_tokens=[(0, 1)]).tolist() == [1, 0]
    assert first_piece_map([None, b"a"], [b"a", None], lambda texts: [[0] for _ in texts], [(0, 1)]).tolist() == [1, 0]


def test_control_tokens_are_not_mapped_without_a_role():
    assert exact_map([None, b"a"], [None, b"a"]).tolist() == [-1, 1]


def slow_exact(source, pivot):
    run = next((n for n in range(len(pivot)) if list(pivot[n : n + 256]) == BARE), None)
    bare = set() if run is None else set(range(run, run + 256))
    found = []
    for word in source:
        same = [n for n, other in enumerate(pivot) if word and other == word]
        found.append(min(same, key=lambda n: (n in bare, n), default=-1))
    return found


@pytest.mark.parametrize(("one", "two"), itertools.permutations(ALL, 2))
def test_exact_map_of_trained_vocabularies_matches_a_slow_search(one, two):
    source, pivot = (vocabulary_bytes(ALL[kind]()) for kind in (one, two))
    found = exact_map(source, pivot)
    assert found.tolist() == slow_exact(source, pivot)
    assert (found >= 0).sum() > 50


@pytest.mark.parametrize("kind", ["byte-level", "gemma", "unigram"])
def test_a_vocabulary_maps_to_itself(kind):
    """Bare bytes of byte fallback aside: those that have an ordinary twin map to the twin."""
    table = vocabulary_bytes(ALL[kind]())
    found = exact_map(table, table)
    assert all(table[there] == word for word, there in zip(table, found.tolist(), strict=True) if word)
    assert sum(there == here for here, there in enumerate(found.tolist())) > 0.6 * len(table)


def pieces_of(tokenizer):
    return lambda texts: tokenize(tokenizer, texts)


@pytest.mark.parametrize(("one", "two"), itertools.product(ALL, BYTES))
def test_first_pieces_begin_the_token_and_leave_none_out(one, two):
    source, pivot = vocabulary_bytes(ALL[one]()), vocabulary_bytes(BYTES[two]())
    found = first_piece_map(source, pivot, pieces_of(BYTES[two]())).tolist()
    assert len(found) == len(source)
    for word, piece in zip(source, found, strict=True):
        assert (piece == -1) if word is None else word.startswith(pivot[piece])


def test_first_piece_is_what_the_pivots_tokenizer_writes_first():
    pivot, tokenizer = vocabulary_bytes(byte_level()), byte_level()
    source = [b" nothing", b"123", " café".encode(), b"\r\n\r\n"]
    firsts = [tokenize(tokenizer, [word.decode()])[0][0] for word in source]
    assert first_piece_map(source, pivot, pieces_of(tokenizer)).tolist() == firsts


def test_a_space_that_the_pivots_tokenizer_adds_is_not_taken_for_the_first_piece():
    tokenizer = Tokenizer(models.BPE(vocab={"▁": 0, "t": 1, "▁t": 2}, merges=[("▁", "t")]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Metaspace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert tokenize(wrapped, [" t", "t"]) == [[0, 2], [2]]  # the trap: both begin with a space that is not theirs
    assert first_piece_map([b" t", b"t", b" ", b"  t"], vocabulary_bytes(wrapped), pieces_of(wrapped)).tolist() == [
        2,
        1,
        0,
        0,
    ]


def test_bytes_that_are_no_text_go_to_the_longest_beginning():
    table = vocabulary_bytes(byte_level())
    part = max((word for word in table if word and not _is_text(word)), key=len)
    found = first_piece_map([part, part + b"\xff", b"\xff\xfe"], table, pieces_of(byte_level()))
    assert [table[index] for index in found.tolist()] == [part, part, b"\xff"]
    bare = first_piece_map([part], vocabulary_bytes(gemma_style()), pieces_of(gemma_style())).tolist()
    assert part.startswith(vocabulary_bytes(gemma_style())[bare[0]])


def _is_text(word: bytes) -> bool:
    try:
        return bool(word.decode())
    except UnicodeDecodeError:
        return False


def test_what_the_pivot_cannot_write_has_no_first_piece():
    found = first_piece_map(["👩".encode(), b"the"], vocabulary_bytes(unigram()), pieces_of(unigram())).tolist()
    assert found[0] == -1
    assert vocabulary_bytes(unigram())[found[1]] == b"the"[: len(vocabulary_bytes(unigram())[found[1]])]


def test_a_tokenizer_of_another_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"gives ids beyond 1, the last of the pivot's vocabulary"):
        first_piece_map([b"a"], [b"a", b"b"], lambda texts: [[2] for _ in texts])


def test_coverage_is_the_share_of_ids_with_a_target():
    assert coverage(torch.tensor([-1, 0, 5, 0])) == 0.75
    assert coverage(torch.tensor([], dtype=torch.long)) == 0.0


def rows_with(ids: list[list[int]], probabilities: list[list[float]], **fields) -> LogitRows:
    base = rows([0] * len(ids), list(range(len(ids))))
    values = torch.tensor(probabilities, dtype=torch.float64).log()
    return LogitRows(**{**vars(base), "ids": torch.tensor(ids, dtype=torch.int32), "logprobs": values, **fields})


def test_entries_that_land_on_one_id_become_one_with_the_mass_of_all():
    ids, logprobs, _ = map_entries(rows_with([[0, 1, 2, 3]], [[0.4, 0.3, 0.2, 0.05]]), torch.tensor([7, 9, 7, -1]))
    assert ids.tolist() == [[7, 9, -1, -1]]
    torch.testing.assert_close(logprobs.exp(), torch.tensor([[0.6, 0.3, 0.0, 0.0]], dtype=torch.float64))
    assert logprobs[0, 2:].tolist() == [-math.inf, -math.inf]


def test_empty_entries_stay_empty_and_take_no_mass():
    ids, logprobs, _ = map_entries(rows_with([[1, -1, -1]], [[0.5, 0.0, 0.0]]), torch.tensor([3, 4]))
    assert ids.tolist() == [[4, -1, -1]]
    assert logprobs.exp().tolist() == [[0.5, 0.0, 0.0]]


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_map_keeps_the_mass_of_every_pivot_id(data):
    k, size, number = data.draw(st.integers(1, 6)), 9, data.draw(st.integers(0, 5))
    ids = [data.draw(st.permutations(range(size)))[:k] for _ in range(number)]
    weights = [[1.0 / (2 + 3 * slot) ** 9 for slot in range(k)] for _ in range(number)]
    table = data.draw(st.lists(st.integers(-1, 3), min_size=size, max_size=size))
    given_rows = rows_with(ids, weights) if number else rows([], [])
    found_ids, logprobs, _ = map_entries(given_rows, torch.tensor(table))
    for before, after, mass, values in zip(ids, found_ids.tolist(), weights, logprobs.exp().tolist(), strict=True):
        wanted = [sum(m for i, m in zip(before, mass, strict=True) if table[i] == target) for target in range(4)]
        got = [sum(v for i, v in zip(after, values, strict=True) if i == target) for target in range(4)]
        assert got == pytest.approx(wanted, rel=1e-12)
        kept = [index for index in after if index >= 0]
        assert len(kept) == len(set(kept))


def test_merging_is_exact_where_probabilities_would_underflow():
    values = torch.tensor([[-1.0, -900.0, -900.0]])
    _, logprobs, _ = map_entries(rows_with([[0, 1, 2]], [[1.0] * 3], logprobs=values), torch.tensor([0, 1, 1]))
    torch.testing.assert_close(logprobs[0, 1], torch.tensor(-900.0 + math.log(2)))


def test_counts_of_sampled_rows_are_added_up():
    given_rows = rows_with([[0, 1, 2]], [[0.5, 0.25, 0.25]], sample_counts=torch.tensor([[5, 2, 1]]))
    assert map_entries(given_rows, torch.tensor([4, -1, 4]))[2].tolist() == [[6, 0, 0]]


def test_ids_keep_their_type():
    given_rows = rows_with([[0, 1]], [[0.5, 0.25]])
    assert map_entries(given_rows, torch.tensor([4, 5]))[0].dtype == given_rows.ids.dtype


def test_ids_that_the_map_does_not_reach_are_refused():
    with pytest.raises(ValueError, match=r"token id 2, the vocabulary map ends at 1"):
        map_entries(rows_with([[2]], [[1.0]]), torch.tensor([0, 1]))
