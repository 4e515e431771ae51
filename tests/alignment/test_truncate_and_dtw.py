"""The two alignments kept for comparison: by place, and by time warping against every possible path."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.alignment import dtw, truncate
from fusion.alignment.dtw import _costs, _path, _tokens_by_example, edit_distance
from tests.alignment.test_prefix import listed
from tests.helpers.alignment_cases import rows, rows_of_texts
from tests.helpers.tiny_tokenizers import byte_level, gemma_style


def test_truncate_pairs_by_place_up_to_the_shorter_in_any_order_of_examples():
    pivot = rows([7, 7, 7, 2, 5, 5], [0, 1, 2, 0, 0, 4])
    source = rows([5, 5, 5, 7, 7, 1], [0, 1, 4, 0, 2, 0])
    assert listed(truncate(pivot, source)) == [(0, 3), (1, 4), (4, 0), (5, 1)]


def test_truncate_looks_at_no_prefix():
    assert listed(truncate(rows([0, 0], [0, -1]), rows([0, 0], [-1, 9]))) == [(0, 0), (1, 1)]


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (b"", b"", 0),
        (b"", b"abc", 3),
        (b"kitten", b"sitting", 3),
        (b"flaw", b"lawn", 2),
        (b"\0", b"", 1),
        (b"ab", b"ba", 2),
    ],
)
def test_edit_distance_of_known_words(a, b, distance):
    assert edit_distance(a, b) == edit_distance(b, a) == distance


def all_paths(rows_, columns):
    if rows_ == columns == 1:
        return [[(0, 0)]]
    before = [(rows_ - 1, columns - 1), (rows_ - 1, columns), (rows_, columns - 1)]
    paths = itertools.chain.from_iterable(all_paths(i, j) for i, j in before if i and j)
    return [[*path, (rows_ - 1, columns - 1)] for path in paths]


WORDS = st.lists(st.sampled_from([b"", b"a", b"ab", b"abc", b"the", b"\0"]), min_size=1, max_size=4)


@given(left=WORDS, right=WORDS)
@settings(max_examples=100, deadline=None)
def test_the_path_is_the_cheapest_of_all_paths(left, right):
    costs = _costs(left, right)
    assert costs.tolist() == [[edit_distance(a, b) for b in right] for a in left]
    cheapest = min(sum(costs[step] for step in path) for path in all_paths(len(left), len(right)))
    assert sum(costs[step] for step in _path(costs)) == cheapest
    assert _path(costs) in all_paths(len(left), len(right))


def test_dtw_keeps_only_what_is_matched_one_to_one():
    """Pivot `the| cat|ss| entirely|EOT`, source `the| catss| entirely|EOT`: two tokens share one, so none is kept."""
    pivot, source = rows([4] * 5, [0, 3, 7, 9, 18]), rows([4] * 4, [0, 3, 9, 18])
    assert listed(dtw(pivot, source, {4: b"the catss entirely"})) == [(0, 0), (3, 2), (4, 3)]


def test_dtw_of_identical_tokenizers_is_the_identity_in_any_order_of_examples():
    texts = {2: "The cat sat on the mat.", 1: "def f(x):\n    return 12"}
    encoded = {example: text.encode() for example, text in texts.items()}
    pivot = rows_of_texts(byte_level(), texts)
    assert listed(dtw(pivot, pivot, encoded)) == [(n, n) for n in range(len(pivot))]
    source = rows_of_texts(byte_level(), dict(reversed(texts.items())))
    pairs = dtw(pivot, source, encoded)
    assert len(pairs) == len(pivot)
    assert pivot.prefix[pairs.pivot].equal(source.prefix[pairs.source])
    assert pivot.example[pairs.pivot].equal(source.example[pairs.source])


def test_dtw_compares_tokens_without_the_spaces_around_them():
    """Pivot `a|    b|EOT` and source `a    |b|EOT` are the same words."""
    sides = rows([0] * 3, [0, 1, 6]), rows([0] * 3, [0, 5, 6])
    words = [dict(_tokens_by_example(side, {0: b"a    b"}))[0][1] for side in sides]
    assert words == [[b"a", b"b", b""]] * 2


def test_rows_without_known_text_take_no_part_in_dtw():
    """The first model hides a row inside a character, the second is cut off: its last row's text is not known."""
    hidden, cut = rows([0] * 4, [0, -1, 3, 4]), rows([0] * 2, [0, 3])
    assert listed(dtw(hidden, cut, {0: "日x".encode()})) == []
    assert listed(dtw(hidden, rows([0] * 3, [0, 3, 4]), {0: "日x".encode()})) == [(0, 0), (2, 1), (3, 2)]


def test_dtw_finds_most_of_what_the_byte_join_finds_on_plain_words():
    text = {0: "The cat sat on the mat, then she said nothing."}
    pivot, source = rows_of_texts(byte_level(), text), rows_of_texts(gemma_style(), text)
    pairs = dtw(pivot, source, {0: text[0].encode()})
    same = (pivot.prefix[pairs.pivot] == source.prefix[pairs.source]).double().mean()
    assert len(pairs) > 5
    assert float(same) > 0.9


def test_an_example_without_a_text_is_refused_by_number():
    with pytest.raises(ValueError, match=r"Example 6 has rows but no text"):
        dtw(rows([6], [0]), rows([6], [0]), {5: b""})
