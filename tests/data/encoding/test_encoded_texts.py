"""Texts in flat arrays are those that went in: one by one, in slices, chosen, and from a folder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.data.encode import Encoded, tokens_digest
from fusion.data.encoding import EncodedTexts
from fusion.data.encoding.encoded_texts import DTYPES
from fusion.data.encoding.kept_texts import SIZES, read_texts, write_texts


@st.composite
def texts(draw):
    """The fields of texts as `encode` makes them: at least one token of prompt and one row."""
    ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=9))
    start = draw(st.integers(1, len(ids) - 1))
    prefix = draw(st.lists(st.integers(-1, 2**31 - 1), min_size=len(ids) - start, max_size=len(ids) - start))
    return ids, start, prefix, draw(st.booleans())


SOME = st.lists(texts(), max_size=6)


def made(fields) -> list[Encoded]:
    """The texts themselves, which are checked as they are made."""
    return [Encoded(*each) for each in fields]


@given(SOME)
def test_what_went_in_comes_out(some):
    some = made(some)
    kept = EncodedTexts.from_texts(some)
    assert list(kept) == some
    assert [kept[number - len(some)] for number in range(len(some))] == some
    assert kept.lengths.tolist() == [len(text.input_ids) for text in some]
    assert kept.rows.tolist() == [text.num_rows for text in some]
    assert tokens_digest(kept) == tokens_digest(some)
    with pytest.raises(IndexError):
        kept[len(some)]


@given(SOME, st.slices(6), st.slices(6))
def test_slices_are_those_of_a_list(some, first, second):
    some = made(some)
    kept = EncodedTexts.from_texts(some)
    assert list(kept[first]) == some[first]
    assert list(kept[first][second]) == some[first][second]
    assert kept[first].lengths.tolist() == [len(text.input_ids) for text in some[first]]


@given(SOME, SOME, st.lists(st.integers(0, 5), max_size=8))
def test_parts_follow_one_another_and_are_chosen_by_number(some, others, numbers):
    some, others = made(some), made(others)
    kept, whole = EncodedTexts.cat([EncodedTexts.from_texts(some), EncodedTexts.from_texts(others)]), some + others
    assert list(kept) == whole
    assert {name: array.dtype for name, array in kept.arrays().items()} == DTYPES
    known = [number for number in numbers if number < len(whole)]
    assert list(kept.select(known)) == [whole[number] for number in known]
    assert list(kept.select(known)[1:]) == [whole[number] for number in known][1:]
    assert list(kept.select(range(len(some)))) == some


A, B = Encoded([1, 2, 3], 1, [0, 4], False), Encoded([7, 8], 1, [0], True)


def test_parts_are_written_and_read_where_they_lie(tmp_path):
    parts = [EncodedTexts.from_texts([A]), EncodedTexts.from_texts([]), EncodedTexts.from_texts([B, A])]
    written, read = write_texts(tmp_path / "a" / "key", iter(parts)), read_texts(tmp_path / "a" / "key")
    assert read is not None
    assert list(written) == list(read) == [A, B, A]
    assert isinstance(read.input_ids, np.memmap)
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["key"]
    assert write_texts(tmp_path / "none", iter([])).lengths.tolist() == []


def test_what_is_cut_off_or_absent_is_not_read_and_is_made_again(tmp_path):
    assert read_texts(tmp_path / "key") is None
    write_texts(tmp_path / "key", [EncodedTexts.from_texts([A, B])])
    for name in (*DTYPES, SIZES):
        whole = (tmp_path / "key" / name).read_bytes()
        (tmp_path / "key" / name).write_bytes(whole[:-4] if name != "truncated" else b"")
        assert read_texts(tmp_path / "key") is None, name
        (tmp_path / "key" / name).write_bytes(bytes([whole[0] ^ 1]) + whole[1:])  # as long as it was
        assert read_texts(tmp_path / "key") is None, name
        assert list(write_texts(tmp_path / "key", [EncodedTexts.from_texts([A, B])])) == [A, B]


def test_nothing_is_left_of_what_could_not_be_written(tmp_path):
    def parts():
        yield EncodedTexts.from_texts([A])
        raise ValueError("a.jsonl, line 2: refused")

    with pytest.raises(ValueError, match="line 2"):
        write_texts(tmp_path / "key", parts())
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_that_write_the_same_texts_the_slower_reads_those_of_the_quicker(tmp_path):
    texts = EncodedTexts.from_texts([A, B])
    quicker = []

    def parts():
        yield texts
        write_texts(tmp_path / "kept", [texts])
        quicker.append((tmp_path / "kept" / SIZES).stat().st_ino)

    assert list(write_texts(tmp_path / "kept", parts())) == list(texts)
    assert [(tmp_path / "kept" / SIZES).stat().st_ino] == quicker
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
