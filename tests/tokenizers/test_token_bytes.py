"""Token bytes against each tokenizer's own decoder, on small tokenizers of each kind and, where given, on real ones."""

import os
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast

from fusion.tokenizers import byte_prefixes, control_tokens, decode_text, tokenize, vocabulary_bytes
from tests.helpers import tiny
from tests.helpers.tiny_tokenizers import ALL, BYTES, byte_level, gemma_style, llama_style, unigram
from tokenizers import Tokenizer, decoders, models

REAL = os.environ.get("FUSION_REAL_MODELS")


@pytest.mark.parametrize("kind", ALL)
def test_every_ordinary_token_is_spelled_as_its_decoder_writes_it_inside_a_text(kind):
    tokenizer = ALL[kind]()
    decoder, compared = tokenizer.backend_tokenizer.decoder, 0
    for index, piece in enumerate(vocabulary_bytes(tokenizer)):
        if piece is not None:
            token = tokenizer.convert_ids_to_tokens(index)
            # behind an `a`, so that no decoder takes the token for the beginning of a text and drops its space
            assert decoder.decode(["a", token])[1:] == piece.decode(errors="replace")
            compared += 1
    assert compared > 90


@pytest.mark.parametrize("kind", ALL)
def test_only_control_tokens_and_the_unknown_token_have_no_bytes(kind):
    tokenizer = ALL[kind]()
    nothing = {index for index, spelled in enumerate(vocabulary_bytes(tokenizer)) if spelled is None}
    assert nothing == set(tokenizer.all_special_ids) | {
        i for i, t in tokenizer.added_tokens_decoder.items() if t.special
    }
    assert nothing == set(control_tokens(tokenizer).values())
    assert len(nothing) >= 3


@pytest.mark.parametrize("kind", BYTES)
def test_every_byte_can_be_spelled_by_one_token(kind):
    assert {bytes([byte]) for byte in range(256)} <= set(vocabulary_bytes(BYTES[kind]()))


def test_the_same_word_has_the_same_bytes_in_every_scheme():
    words = [set(vocabulary_bytes(make())) for make in (byte_level, llama_style, unigram)]
    assert {b" the", "é".encode(), b"s", b"."} <= words[0] & words[1] & words[2]


def test_a_token_that_holds_part_of_a_character_is_that_part():
    parts = []
    for piece in vocabulary_bytes(byte_level()):
        try:
            (piece or b"").decode()
        except UnicodeDecodeError:
            parts.append(piece)
    assert "の".encode() + "テ".encode()[:2] in parts


def test_an_added_token_that_is_text_is_spelled_as_it_is():
    tokenizer = byte_level.__wrapped__(chat=False)
    tokenizer.add_tokens(["<tool>", "Ġé "])  # the second looks like the byte alphabet and is not
    assert vocabulary_bytes(tokenizer)[-2:] == [b"<tool>", "Ġé ".encode()]


def test_ids_without_a_token_have_no_bytes():
    model = models.BPE(vocab={"a": 0, "b": 5}, merges=[])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
    assert vocabulary_bytes(tokenizer) == [b"a", None, None, None, None, b"b"]


def test_the_unknown_token_of_a_bare_unigram_model_has_no_bytes():
    tokenizer = Tokenizer(models.Unigram([("?", 0.0), ("a", -1.0)], unk_id=0, byte_fallback=False))
    assert vocabulary_bytes(PreTrainedTokenizerFast(tokenizer_object=tokenizer)) == [None, b"a"]


def test_a_mark_that_the_decoder_does_not_turn_into_a_space_is_itself():
    tokenizer = Tokenizer(models.BPE(vocab={"▁": 0}, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    assert vocabulary_bytes(PreTrainedTokenizerFast(tokenizer_object=tokenizer)) == ["▁".encode()]


def test_a_scheme_that_is_not_known_is_refused_by_name():
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match=r"WordPiece.*byte-level or SentencePiece"):
        vocabulary_bytes(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def test_a_tokenizer_without_a_backend_is_refused_by_name():
    class Slow(PreTrainedTokenizer):
        vocab_size = 1

        def get_vocab(self):
            return {"a": 0}

    with pytest.raises(ValueError, match=r"some/model: Slow has no `tokenizers` backend.*tokenizer\.json"):
        vocabulary_bytes(Slow(name_or_path="some/model"))


@pytest.mark.parametrize("kind", ALL)
def test_no_control_token_comes_out_of_a_text(kind):
    tokenizer = ALL[kind]()
    control = control_tokens(tokenizer)
    steer = set(control.values()) - {tokenizer.unk_token_id}
    texts = [f"a {token}{token} b{token}" for token in control] + list(control)
    ids = tokenize(tokenizer, texts)
    assert len(ids) == len(texts) >= 6
    assert all(row and steer.isdisjoint(row) for row in ids)
    assert all(byte_prefixes(tokenizer, row, text)[-1] == len(text) for row, text in zip(ids, texts, strict=True))


def test_a_control_token_that_cannot_be_written_as_text_is_refused():
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "</s>": 1}, merges=[], ignore_merges=True))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    with pytest.raises(ValueError, match=r"holds the control token '</s>'.*Take it out"):
        tokenize(wrapped, ["</s>"])


def test_no_texts_give_no_ids():
    assert tokenize(gemma_style(), []) == []


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason="FUSION_REAL_MODELS names no folder of real models")
def test_real_vocabularies_are_spelled_as_their_decoders_write_them():
    folders = sorted(path.parent for path in Path(REAL or "").glob("*/tokenizer.json"))
    assert folders, f"no tokenizer.json under {REAL}"
    for folder in folders:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        decoder, table = tokenizer.backend_tokenizer.decoder, vocabulary_bytes(tokenizer)
        tokens = tokenizer.convert_ids_to_tokens(range(len(table)))
        ordinary = set(tokenizer.added_tokens_decoder) ^ set(range(len(table)))
        wrong = [
            (token, spelled)
            for index, (token, spelled) in enumerate(zip(tokens, table, strict=True))
            if index in ordinary and spelled and decoder.decode(["a", token])[1:] != spelled.decode(errors="replace")
        ]
        assert wrong == []
        assert sum(spelled is not None for spelled in table) > 40_000


@pytest.mark.parametrize("text", [" the lazy dog", "  two", " naïve café, 北京 🙂"])
@pytest.mark.parametrize("kind", tiny.TOKENIZERS)
def test_tokens_of_a_text_spell_it_with_the_space_it_begins_with(kind, text):
    tokenizer = tiny.TOKENIZERS[kind](tiny.TEXTS)
    assert decode_text(tokenizer, tokenize(tokenizer, [text])[0]) == text


def test_control_tokens_and_ids_without_a_token_spell_nothing():
    tokenizer = tiny.TOKENIZERS["gpt_neox"](tiny.TEXTS)
    ids = tokenize(tokenizer, ["fox"])[0]
    assert decode_text(tokenizer, [tokenizer.eos_token_id, *ids, 10**6]) == "fox"
    half = tokenize(tokenizer, ["北"])[0][:1]
    assert decode_text(tokenizer, half) in ("北", "\ufffd")
