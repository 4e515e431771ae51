"""The alignment audit on texts whose classes and matches are known by hand."""

import pytest
import torch

from fusion.alignment import MatchRate, audit, match_prefixes
from fusion.alignment.audit import text_class
from fusion.alignment.token_spans import token_spans
from fusion.core.rows import Pairs
from tests.helpers.alignment_cases import rows, rows_of_texts
from tests.helpers.tiny_tokenizers import byte_level, gemma_style


@pytest.mark.parametrize(
    ("text", "piece", "kind"),
    [
        ("it is 12", "12", "numeral"),
        ("it is 12", " 12", "numeral"),
        ("x = 1.5", "1.5", "mixed"),
        ("½ cup", "½", "numeral"),
        ("so 👩\u200d👧", "👩\u200d👧", "emoji"),
        ("so ☀\ufe0f", " ☀\ufe0f", "emoji"),
        ("日本語。", "語", "CJK"),
        ("한국", "국", "CJK"),
        ("（x）", "）", "CJK"),
        ("the end", " end", "word"),
        ("naïve", "naïve", "word"),
        ("cafe\u0301", "e\u0301", "word"),
        ("слово", "сло", "word"),
        ("a2", "a2", "mixed"),
        ("f(x):", "):", "punctuation"),
        ("a + b", " +", "punctuation"),
        ("x\n    y", "    ", "indent"),
        ("x\n\t\ty", "\t\t", "indent"),
        ("x\n  y", "\n  ", "indent"),
        ("  x", "  ", "indent"),
        ("x\r\ny", "\r\n", "line break"),
        ("x  \ny", "  \n", "line break"),
        ("a  b", "  ", "space"),
        ("a\tb", "\t", "space"),
    ],
)
def test_the_class_of_a_piece_of_text(text, piece, kind):
    raw = text.encode()
    start = raw.rindex(piece.encode())
    assert text_class(raw, start, start + len(piece.encode())) == kind


def test_a_piece_of_a_character_has_the_class_of_the_character():
    raw = "a👩日".encode()
    assert [text_class(raw, *piece) for piece in [(1, 2), (2, 3), (4, 5), (5, 6), (7, 8)]] == ["emoji"] * 3 + [
        "CJK"
    ] * 2


def test_no_bytes_are_the_end_of_turn_behind_the_text_and_nothing_elsewhere():
    assert [text_class(b"ab", place, place) for place in (0, 1, 2)] == ["nothing", "nothing", "end of turn"]


def test_spans_run_to_the_next_known_prefix_of_the_same_example():
    found = token_spans(rows([4, 4, 4, 4, 2, 2], [0, -1, 3, 4, 0, 1]), {4: "日x".encode(), 2: b"a"})
    assert found == [(0, 3), None, (3, 4), (4, 4), (0, 1), (1, 1)]


def test_the_text_behind_the_last_row_of_a_cut_example_is_not_known():
    assert token_spans(rows([0, 0], [0, 2]), {0: b"abcd"}) == [(0, 2), None]
    assert token_spans(rows([0, 0], [0, -1]), {0: b"abcd"}) == [None, None]


PIVOT = rows([1] * 6 + [8] * 3, [0, 3, 4, 5, 6, 9, 0, 2, 3])

SOURCE = rows([1] * 4 + [8] * 2, [0, 3, 6, 9, 0, 3])
TEXTS = {1: b"sum 12end", 8: b"it!"}
DOMAINS = {1: "math", 8: "prose"}


def test_rates_by_domain_and_class_count_each_row_of_the_pivot_once():
    """Pivot `sum| |1|2|end|EOT` and `it|!|EOT`; source `sum| 12|end|EOT` and `it!|EOT`."""
    found = audit(PIVOT, SOURCE, match_prefixes(PIVOT, SOURCE), TEXTS, DOMAINS)
    assert found.total == MatchRate(6, 9)
    assert found.total.rate == pytest.approx(2 / 3)
    assert found.by_domain == {"math": MatchRate(4, 6), "prose": MatchRate(2, 3)}
    assert found.by_class == {
        "end of turn": MatchRate(2, 2),
        "numeral": MatchRate(0, 2),
        "punctuation": MatchRate(0, 1),
        "space": MatchRate(1, 1),
        "word": MatchRate(3, 3),
    }


def test_never_lists_texts_without_any_match_commonest_first():
    pivot = rows([0] * 7, [0, 1, 2, 3, 4, 5, 6])
    pairs = Pairs(torch.tensor([0, 2]), torch.tensor([0, 1]))
    found = audit(pivot, rows([0] * 2, [0, 2]), pairs, {0: b"a1b1a2"}, {0: "x"})
    assert found.unmatched_tokens == [("1", 2), ("2", 1)]  # `a` is matched once of twice, `b` always


def test_never_shows_parts_of_characters_without_losing_bytes():
    pivot = rows([0] * 3, [0, 1, 3])
    none = Pairs(torch.tensor([], dtype=torch.long), torch.tensor([], dtype=torch.long))
    assert set(audit(pivot, pivot, none, {0: "日".encode()}, {0: "x"}).unmatched_tokens) == {
        ("\\xe6", 1),
        ("\\x97\\xa5", 1),
    }


def test_rows_of_unknown_text_are_counted_as_such():
    pivot = rows([0] * 3, [0, -1, 2])
    found = audit(pivot, pivot, match_prefixes(pivot, pivot), {0: "é!".encode()}, {0: "x"})
    assert found.by_class == {"unknown": MatchRate(1, 2), "word": MatchRate(1, 1)}


def test_identical_tokenizers_are_matched_everywhere():
    texts = {3: "The café is at 12:30.\n", 5: "def f(x):\n    return x"}
    both = rows_of_texts(byte_level(), texts)
    encoded = {example: text.encode() for example, text in texts.items()}
    found = audit(both, both, match_prefixes(both, both), encoded, {3: "prose", 5: "code"})
    assert found.total.rate == 1.0
    assert found.unmatched_tokens == []
    assert {"word", "numeral", "punctuation", "line break", "indent", "end of turn"} <= found.by_class.keys()


def test_the_classes_and_the_domains_each_add_up_to_all_rows():
    texts = {3: "The café 👩 is at 12:30.\n", 5: "def f(x):\n    return 日本"}
    pivot, source = rows_of_texts(byte_level(), texts), rows_of_texts(gemma_style(), texts)
    encoded = {example: text.encode() for example, text in texts.items()}
    found = audit(pivot, source, match_prefixes(pivot, source), encoded, {3: "prose", 5: "code"})
    for shares in (found.by_class, found.by_domain):
        assert sum(share.rows for share in shares.values()) == found.total.rows == len(pivot)
        assert sum(share.matched for share in shares.values()) == found.total.matched < len(pivot)


def test_a_share_of_no_rows_has_no_rate():
    assert MatchRate(0, 0).rate != MatchRate(0, 0).rate


def test_an_example_without_a_domain_is_refused_by_number():
    with pytest.raises(ValueError, match=r"Examples \[8\] have rows but no domain"):
        audit(PIVOT, SOURCE, match_prefixes(PIVOT, SOURCE), TEXTS, {1: "math"})


def test_pairs_of_other_rows_are_refused():
    with pytest.raises(ValueError, match=r"name the source row 9, but there are 6"):
        audit(PIVOT, SOURCE, Pairs(torch.tensor([0]), torch.tensor([9])), TEXTS, DOMAINS)
    with pytest.raises(ValueError, match=r"rows of different examples"):
        audit(PIVOT, SOURCE, Pairs(torch.tensor([0]), torch.tensor([5])), TEXTS, DOMAINS)
