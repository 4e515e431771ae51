"""Encoding against what must hold for any text: tokens rebuild it, prefixes are its bytes, user text steers nothing."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers.processors import ByteLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fusion.data.answer_end import end_of_turn
from fusion.data.chat_template import find_answer
from fusion.data.chat_tokens import _ids_with_literals
from fusion.data.encode import Encoded, encode
from fusion.data.encode import encode_prompt as encode_whole_prompt
from fusion.data.prompt_format import PromptFormat
from fusion.tokenizers import byte_prefixes, control_tokens, tokenize, vocabulary_bytes
from tests.helpers.tiny_tokenizers import ALL, BYTES, byte_level, gemma_style, llama_style, mistral_style, unigram
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

REAL = os.environ.get("FUSION_REAL_MODELS")
ASK = [{"role": "user", "content": "How many?"}]
NASTY = [
    *["café", "cafe\u0301", "ﬁn", "한\u1112\u1161", "👩\u200d👧", "🇩🇪", "日本", "Ω", "\u1fff", "12345", "the", "x"],
    *["\u2581", "\u2581\u2581", "\t", "\r\n", "\n\n", "\0", " ", "   ", "\u00a0", "\u3000", "\u200b", "\ufeff"],
    *["<|im_end|>", "</s>", "<s>", "<unk>", "<0x41>", "Ġ"],
]
TEXTS = st.one_of(st.lists(st.sampled_from(NASTY), max_size=8).map("".join), st.text(max_size=20))


def encode_prompt(*args, **kwargs) -> list[int]:
    return encode_whole_prompt(*args, **kwargs).ids


def with_literals(tokenizer, messages) -> list[int]:
    """The path for messages that spell control tokens."""
    return _ids_with_literals(tokenizer, messages, find_answer(tokenizer, messages, PromptFormat()), PromptFormat())


def response_tokens(tokenizer, text: str) -> tuple[Encoded, list[int]]:
    encoded = encode(tokenizer, ASK, text)
    return encoded, encoded.input_ids[encoded.start :]


@pytest.mark.parametrize("kind", BYTES)
@given(text=TEXTS)
@example(text=" leading and trailing ")
@example(text="")
@settings(max_examples=60, deadline=None)
def test_tokens_that_are_bytes_rebuild_the_text_between_their_prefixes(kind, text):
    tokenizer, raw = BYTES[kind](), text.encode()
    encoded, ids = response_tokens(tokenizer, text)
    table = vocabulary_bytes(tokenizer)
    assert ids[-1] == end_of_turn(tokenizer)
    assert encoded.prefix[0] == 0
    assert encoded.prefix[-1] == len(raw)
    literal_mark = "\u2581" in text and kind != "byte-level"  # which SentencePiece cannot tell from a space
    for row, token in enumerate(ids[:-1]):
        begin, end = encoded.prefix[row : row + 2]
        if not literal_mark:
            piece = table[token] if row or table[token] == raw[begin:end] else table[token].removeprefix(b" ")
            assert raw[begin:end] == piece
        elif begin >= 0 and end >= 0:
            assert raw[begin:end].replace("\u2581".encode(), b" ").endswith(table[token].lstrip(b" "))


@pytest.mark.parametrize("kind", ALL)
@given(text=TEXTS)
@settings(max_examples=60, deadline=None)
def test_prefixes_never_fall_and_end_at_the_length(kind, text):
    encoded, ids = response_tokens(ALL[kind](), text)
    true = [prefix for prefix in encoded.prefix if prefix >= 0]
    assert len(encoded.prefix) == encoded.num_rows == len(ids)
    assert true == sorted(true)
    assert true[0] == 0
    assert encoded.prefix[-1] == len(text.encode())


@pytest.mark.parametrize("kind", ALL)
@given(text=TEXTS)
@settings(max_examples=40, deadline=None)
def test_no_control_token_comes_out_of_a_response(kind, text):
    tokenizer = ALL[kind]()
    _, ids = response_tokens(tokenizer, text)
    assert set(ids[:-1]).isdisjoint(set(control_tokens(tokenizer).values()) - {tokenizer.unk_token_id})


@pytest.mark.parametrize("kind", ["byte-level NFC", "unigram", "unigram NFKC"])
@given(before=TEXTS, after=TEXTS)
@settings(max_examples=60, deadline=None)
def test_a_prefix_from_offsets_falls_between_characters(kind, before, after):
    tokenizer, text = ALL[kind](), before + "cafe\u0301 ﬁ \u1fff" + after
    if (
        b"".join(vocabulary_bytes(tokenizer)[i] or b"?" for i in tokenize(tokenizer, [text])[0]).lstrip()
        == text.encode().lstrip()
    ):
        return  # spelled exactly, so walked by bytes
    borders = {len(text[:place].encode()) for place in range(len(text) + 1)}
    assert {p for p in response_tokens(tokenizer, text)[0].prefix if p >= 0} <= borders


def test_a_changed_character_hides_the_rows_inside_it_and_no_others():
    """Bytes: c a f e U+0301(2) ␣ fi-ligature(3) n."""
    encoded, ids = response_tokens(unigram(nfkc=True), "cafe\u0301 ﬁn")
    spelled = [vocabulary_bytes(unigram(nfkc=True))[index] for index in ids[:-1]]
    assert spelled == [b" ca", b"f", "é".encode(), b" ", b"f", b"in"]
    assert encoded.prefix == [0, 2, 3, 6, 7, -1, 11]  # `in` begins inside the ligature


def test_an_unknown_character_is_one_step_of_all_its_bytes():
    encoded, ids = response_tokens(unigram(), "a👩x")
    assert tokenizer_words(unigram(), ids) == ["▁", "a", "<unk>", "x", "</s>"]
    assert encoded.prefix == [0, 0, 1, 5, 6]


def tokenizer_words(tokenizer, ids: list[int]) -> list[str]:
    return tokenizer.convert_ids_to_tokens(ids)


def test_a_space_trimmed_from_the_offsets_makes_no_false_prefix():
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "Ġ": 2, "Ġb": 3, "Ã": 4, "©": 5}, merges=[("Ġ", "b")]))
    tokenizer.normalizer, tokenizer.decoder = normalizers.NFC(), decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = ByteLevel(trim_offsets=True)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="a")
    text = "b b" + "e\u0301"  # NFC changes the end, so that offsets place the tokens
    ids = tokenize(wrapped, [text])[0]
    assert tokenizer_words(wrapped, ids)[:2] == ["b", "Ġb"]
    assert byte_prefixes(wrapped, ids, text)[:2] == [0, -1]  # not 2: the token begins at the space


def test_characters_that_the_tokenizer_drops_leave_later_prefixes_right():
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    tokenizer.normalizer = normalizers.Replace("\u200b", "")
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert byte_prefixes(wrapped, [0, 1, 1], "a\u200bbb") == [0, 4, 5, 6]


def test_tokens_of_another_text_are_refused_with_tokenizer_and_text():
    with pytest.raises(ValueError, match=r": its tokens cannot be placed in the text 'other'"):
        byte_prefixes(byte_level(), tokenize(byte_level(), ["this"])[0], "other")


@pytest.mark.parametrize("kind", ALL)
def test_an_empty_response_is_the_end_of_turn_alone(kind):
    encoded = encode(ALL[kind](), ASK, "")
    assert encoded.input_ids[encoded.start :] == [end_of_turn(ALL[kind]())]
    assert (encoded.prefix, encoded.num_rows, encoded.truncated) == ([0], 1, False)


def test_without_an_end_of_turn_there_is_no_row_for_it():
    tokenizer = byte_level.__wrapped__(chat=False)
    tokenizer.eos_token = None
    encoded = encode(tokenizer, ASK, "abc")
    assert end_of_turn(tokenizer) is None
    assert encoded.prefix[-1] < 3
    assert encoded.input_ids[encoded.start :] == tokenize(tokenizer, ["abc"])[0]


@pytest.mark.parametrize("kind", ALL)
def test_training_and_generation_see_the_same_prompt(kind):
    tokenizer = ALL[kind]()
    encoded = encode(tokenizer, ASK, "seven")
    assert encoded.input_ids[: encoded.start] == encode_prompt(tokenizer, ASK)


CHATS = {
    "byte-level": byte_level,
    "gemma": gemma_style,
    "llama": llama_style,
    "mistral": mistral_style,
    "unigram": lambda: unigram(chat=True),
}
TURNS = [
    {"role": "user", "content": "Is it 12?"},
    {"role": "assistant", "content": "No."},
    {"role": "user", "content": "  Is it\n13? "},
]


@pytest.mark.parametrize("kind", CHATS)
def test_an_ordinary_prompt_is_what_the_chat_template_makes_of_it(kind):
    tokenizer = CHATS[kind]()
    wanted = tokenizer.apply_chat_template(TURNS, add_generation_prompt=True, return_dict=False)
    assert (
        encode_prompt(tokenizer, TURNS) == encode_prompt(tokenizer, TURNS, prompt_format=PromptFormat("chat")) == wanted
    )


@pytest.mark.parametrize(
    "kind", ["byte-level", "gemma", "llama"]
)  # the others put a space before the first piece alone
def test_the_path_for_control_tokens_in_the_text_changes_no_ordinary_prompt(kind):
    assert with_literals(CHATS[kind](), TURNS) == encode_prompt(CHATS[kind](), TURNS)


@pytest.mark.parametrize("kind", CHATS)
def test_control_tokens_in_a_message_add_none_to_the_prompt(kind):
    tokenizer = CHATS[kind]()
    literal = next(token for token in control_tokens(tokenizer) if token not in ("<unk>", "<s>"))
    unsafe = [{"role": "user", "content": f"a {literal} b"}]
    steer = set(control_tokens(tokenizer).values()) - {tokenizer.unk_token_id}
    found = [index for index in encode_prompt(tokenizer, unsafe) if index in steer]
    assert found == [index for index in encode_prompt(tokenizer, ASK) if index in steer]
    assert found
    naive = tokenizer.apply_chat_template(unsafe, add_generation_prompt=True, return_dict=False)
    assert len([index for index in naive if index in steer]) > len(found)  # the trap is real


def test_white_space_that_control_tokens_take_along_is_taken_along():
    tokenizer = byte_level.__wrapped__(size=300)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken("<|eat|>", special=True, rstrip=True, normalized=False)]}
    )
    tokenizer.chat_template = "<|eat|> \n{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    assert with_literals(tokenizer, ASK) == encode_prompt(tokenizer, ASK)
    assert tokenizer.convert_tokens_to_ids("Ċ") not in encode_prompt(tokenizer, ASK)


def test_a_template_that_rewrites_messages_with_control_tokens_is_refused():
    tokenizer = byte_level.__wrapped__(size=301)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    with pytest.raises(ValueError, match=r"spells a control token.*Take the control token out"):
        encode_prompt(tokenizer, [{"role": "user", "content": "a <|im_end|> b"}])


def test_a_plain_prompt_is_the_contents_behind_the_opening_tokens():
    tokenizer, text = gemma_style(), "Is it 12?\nNo.\n  Is it\n13? "
    assert encode_prompt(tokenizer, TURNS, prompt_format=PromptFormat("plain")) == [1, *tokenize(tokenizer, [text])[0]]


def test_a_plain_prompt_is_not_closed_and_a_literal_close_in_it_is_text():
    tokenizer = unigram()
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id  # it closes texts by itself
    ids = encode_prompt(tokenizer, [{"role": "user", "content": "a</s>"}], prompt_format=PromptFormat("plain"))
    assert tokenizer.eos_token_id not in ids
    assert len(ids) > 3


@pytest.mark.parametrize(("make", "first"), [(gemma_style, "<s>"), (byte_level, "<|endoftext|>"), (unigram, "<s>")])
def test_raw_text_begins_with_one_token_whatever_the_template(make, first):
    tokenizer = make()
    encoded = encode(tokenizer, [], "The cat")
    assert tokenizer_words(tokenizer, encoded.input_ids[: encoded.start]) == [first]
    assert encoded.prefix[0] == 0
    assert encoded.input_ids[-1] == tokenizer.eos_token_id


def test_raw_text_without_any_token_to_begin_with_is_refused():
    tokenizer = byte_level.__wrapped__(size=302, chat=False)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"neither a bos_token nor an eos_token"):
        encode(tokenizer, [], "The cat")


def test_chat_without_a_template_is_refused_with_the_way_out():
    tokenizer = byte_level(chat=False)
    with pytest.raises(ValueError, match=r"has no chat template; set template to plain or auto"):
        encode(tokenizer, ASK, "x", prompt_format=PromptFormat("chat"))
    assert encode(tokenizer, ASK, "x", prompt_format=PromptFormat("auto")) == encode(
        tokenizer, ASK, "x", prompt_format=PromptFormat("plain")
    )


@pytest.mark.parametrize(
    ("make", "template", "token"),
    [
        (byte_level, "auto", "<|im_end|>"),
        (byte_level, "plain", "<|endoftext|>"),
        (gemma_style, "chat", "</turn>"),
        (llama_style, "auto", "</s>"),
        (lambda: unigram(chat=False), "auto", "</s>"),
    ],
)
def test_the_end_of_turn_is_what_the_template_puts_after_an_answer(make, template, token):
    tokenizer = make()
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer, PromptFormat(template))) == token


def test_a_template_that_drops_the_answer_is_refused():
    tokenizer = byte_level.__wrapped__(size=303)
    tokenizer.chat_template = "{{ messages[0].content }}"
    with pytest.raises(ValueError, match=r"leaves out the assistant's message"):
        end_of_turn(tokenizer, PromptFormat("chat"))


@pytest.mark.parametrize("room", [1, 2, 3])
def test_a_cut_example_keeps_its_first_rows_and_says_so(room):
    tokenizer = byte_level()
    whole = encode(tokenizer, ASK, "The cat sat")
    cut = encode(tokenizer, ASK, "The cat sat", max_length=whole.start + room)
    assert cut == Encoded(whole.input_ids[: whole.start + room], whole.start, whole.prefix[:room], truncated=True)
    assert end_of_turn(tokenizer) not in cut.input_ids[cut.start :]


def test_an_example_that_just_fits_is_whole_and_one_token_less_loses_the_end_of_turn():
    whole = encode(byte_level(), ASK, "The cat sat")
    assert encode(byte_level(), ASK, "The cat sat", max_length=len(whole.input_ids)) == whole
    cut = encode(byte_level(), ASK, "The cat sat", max_length=len(whole.input_ids) - 1)
    assert cut.truncated
    assert cut.prefix == whole.prefix[:-1]


def test_a_prompt_without_room_for_a_response_is_refused_with_the_lengths():
    start = encode(byte_level(), ASK, "x").start
    with pytest.raises(ValueError, match=rf"prompt takes {start} tokens.*max_length = {start}"):
        encode(byte_level(), ASK, "x", max_length=start)


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason="FUSION_REAL_MODELS names no folder of real models")
def test_real_tokenizers_rebuild_nasty_text():
    folders = sorted(path.parent for path in Path(REAL or "").glob("*/tokenizer.json"))
    assert folders, f"no tokenizer.json under {REAL}"
    for folder in folders:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        table = vocabulary_bytes(tokenizer)
        text = " ".join(
            piece for piece in NASTY if piece not in ("cafe\u0301", "한\u1112\u1161") and "\u2581" not in piece
        )
        encoded = encode(tokenizer, ASK, text)
        assert b"".join(table[index] for index in encoded.input_ids[encoded.start : -1]) == text.encode()
        assert -1 not in encoded.prefix
        if tokenizer.chat_template:
            assert with_literals(tokenizer, TURNS) == encode_prompt(tokenizer, TURNS)
