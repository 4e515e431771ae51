"""Files of every format: right numbers are read at the precision of the file, other numbers are refused with line and cause."""

import json

import pytest
import torch

from fusion.sources.importers import find_files, match_to_examples, read_sequences
from tests.helpers import dump_writers
from tests.helpers.listed_rows import CODECS, CORRUPTED, EXACT, ROUNDED, K, megatron_dump, own_lines


def match(said, sequences):
    return match_to_examples(sequences, said.dump().texts, K, said.vocabulary)


@pytest.mark.parametrize("codec", CODECS)
def test_distillkits_codecs_are_read_however_much_they_lose(trained, tmp_path, codec, capsys):
    made = dump_writers.distillkit(tmp_path / "x", trained.dump(), CODECS[codec] | {"d": trained.vocabulary})
    _, counts = match(trained, read_sequences("distillkit", find_files("distillkit", [made])))
    assert counts == {"matched": len(trained.texts)}
    assert not capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_megatrons_values_are_read_in_every_type(trained, tmp_path, dtype, capsys):
    files, tokens = megatron_dump(trained, tmp_path, dtype)
    match(trained, read_sequences("megatron", files, tokens=tokens))
    assert not capsys.readouterr().out


@pytest.mark.parametrize("precision", ROUNDED)
def test_lines_are_read_however_they_were_rounded(trained, tmp_path, precision, capsys):
    file = own_lines(trained, tmp_path / "own.jsonl", lambda whole, top: ROUNDED[precision](top))
    match(trained, read_sequences("jsonl", [file]))
    assert not capsys.readouterr().out


@pytest.mark.parametrize("what", CORRUPTED)
def test_lines_with_other_numbers_are_refused_with_file_and_cause(trained, tmp_path, what):
    change, cause = CORRUPTED[what]
    with pytest.raises(ValueError, match=rf"own\.jsonl.*{cause}"):
        match(trained, read_sequences("jsonl", [own_lines(trained, tmp_path / "own.jsonl", change)]))


@pytest.mark.parametrize("what", ["logits", "negative logits", "base 10", "base 2", "-log p", "probabilities"])
def test_other_numbers_in_distillkits_and_megatrons_files_are_refused(trained, tmp_path, what):
    change, cause = CORRUPTED[what]
    made = dump_writers.distillkit(tmp_path / "x", trained.dump(change), EXACT | {"d": trained.vocabulary})
    with pytest.raises(ValueError, match=rf"data_0\.parquet.*{cause}"):
        match(trained, read_sequences("distillkit", find_files("distillkit", [made])))
    files, tokens = megatron_dump(trained, tmp_path, change=change)
    with pytest.raises(ValueError, match=rf"cache.*{cause}"):
        match(trained, read_sequences("megatron", files, tokens=tokens))


def test_rows_that_begin_a_token_later_than_they_say_are_refused(trained, tmp_path):
    with pytest.raises(ValueError, match=r"own\.jsonl: the rows are shifted, one row earlier than their tokens"):
        match_to_examples(
            read_sequences("jsonl", [own_lines(trained, tmp_path / "own.jsonl", moved=1)]),
            {id: cut(text) for id, text in trained.dump().texts.items()}, K, trained.vocabulary,
        )  # fmt: skip


def cut(text):
    """The text without its last token, of which shifted rows have none."""
    return type(text)(text.input_ids[:-1], text.start, text.prefix[:-1], truncated=True)


def test_megatrons_rows_in_another_order_than_the_tokens_are_refused(trained, tmp_path):
    files, tokens = megatron_dump(trained, tmp_path, padding=-6.0)
    lines = tokens.read_text().splitlines()
    tokens.write_text("\n".join([*lines[1:], lines[0]]))
    with pytest.raises(
        ValueError, match=r"rows belong to other texts: those of .*, tokens.jsonl line \d+ fit the tokens of"
    ):
        match(trained, read_sequences("megatron", files, tokens=tokens))


@pytest.mark.parametrize(("change", "message"), [
    ({"ids": [[9, 9], [2, 7]]}, r"line 2, row 0 \(about token 1 .*: the id 9 stands there more than once"),
    ({"ids": [[9, 4], [2, -3]]}, r"line 2, row 1 .*: an entry has the id -3 and the log-probability -2.500. Ids"),
    ({"ids": [[9, -1], [2, 7]]}, r"line 2, row 0 .*: an entry has the id -1 and the log-probability -3.000. .*marks"),
    ({"logprobs": [[-0.1, None], [-0.2, -2.5]]}, "line 2, row 0 .*: the log-probability of id 4 is NaN or null"),
    ({"logprobs": [[-0.1, float("nan")], [-0.2, -2.5]]}, "line 2, row 0 .*: the log-probability of id 4 is NaN or null"),
    ({"logprobs": [[-0.1, -3.0], [float("inf"), -2.5]]}, r"line 2, row 1 .*: the log-probability of id 2 is \+inf"),
    ({"logprobs": [[-0.1, -3.0], None]}, "line 2: row 1 is null, and only that of the first token"),
    ({"logprobs": [[-0.1, -3.0], [-0.2]]}, "line 2: there must be as many of each, and in row 1"),
    ({"gold": [-0.1, 0.7]}, "line 2, row 1 .*: gold is 0.700, and a log-probability is at most 0"),
    ({"gold": [-0.1, -2.5]}, r"line 2, row 1 .*: gold is -2.500, and the entries give the same token -0.200"),
    ({"gold": [float("nan"), -0.2]}, "line 2: gold of row 0 is NaN; write null"),
    ({"std": [2.0, -1.0]}, "line 2, row 1 .*: std is -1.0, and a standard deviation is at least 0"),
    ({"std": [2.0, float("nan")]}, "line 2: std of row 1 is NaN; write null"),
    ({"mean": [-9.0, 3.0]}, "line 2, row 1 .*: mean is 3.000, and the mean of the log-probabilities of V tokens is at most"),
    ({"mean": [float("-inf"), -9.0]}, "line 2, row 0 .*: mean is -inf"),
    ({"first": 0}, "line 2: first is 0, and the first token that a row can be about is token 1"),
])  # fmt: skip
def test_a_row_that_is_none_is_named(tmp_path, change, message):
    good = {"input_ids": [5, 9, 2], "ids": [[9, 4], [2, 7]], "logprobs": [[-0.1, -3.0], [-0.2, -2.5]]}
    file = dump_writers.lines(tmp_path / "x.jsonl", [good, good | change])
    with pytest.raises(ValueError, match=rf"x\.jsonl, {message}"):
        list(read_sequences("jsonl", [file]))


def test_what_is_not_known_may_be_null_and_the_first_token_has_no_row(tmp_path):
    line = {"input_ids": [5, 9, 2], "ids": [None, [9, 4], [2, -1]], "logprobs": [None, [-0.1, -3.0], [-0.2, None]],
            "gold": [None, None, -0.2], "mean": [None, -9.0, None], "std": [None, 2.0, None]}  # fmt: skip
    [read] = read_sequences("jsonl", [dump_writers.lines(tmp_path / "x.jsonl", [line])])
    assert (len(read), read.first_position) == (2, 1)
    assert read.gold.isnan().tolist() == [True, False]
    assert read.mean.isnan().tolist() == [False, True]


def test_moments_that_no_vocabulary_has_are_refused(tmp_path, trained):
    text = trained.texts[0]
    values, ids = (part.tolist() for part in trained.whole[0].topk(K))
    for field, message in (({"mean": [-5.9] * len(ids)}, "here -6.21"), (
        {"mean": [-9.0] * len(ids), "std": [0.01] * len(ids)}, "std is 0.0100, which is too small")):  # fmt: skip
        file = dump_writers.lines(
            tmp_path / "x.jsonl", [{"input_ids": text.input_ids, "ids": ids, "logprobs": values} | field]
        )
        with pytest.raises(ValueError, match=message):
            match_to_examples(read_sequences("jsonl", [file]), {"a": text}, K, trained.vocabulary)


@pytest.mark.parametrize(("listed", "message"), [
    ([None, {"9": -0.1}, None], r"nothing \(null\) is listed at token 2 of 3"),
    ([None, {"9": {"logprob": None}}, {"2": -0.1}], "the log-probability of id 9 is None, and must be a number"),
    ([None, {"7": -0.1}, {"2": -0.1}], r"it answered for other tokens than were sent"),
    ([None, {"4": -0.1, "2": -4.0}, {"8": -0.1, "6": -4.0}, {"1": -0.5}], r"one token earlier than the tokens they are about"),
    ([None, {"3": -0.1}, {"9": -0.1}, {"2": -0.5}], r"one token later than the tokens they are about"),
])  # fmt: skip
def test_vllms_lines_must_list_each_token_at_its_place(tmp_path, listed, message):
    tokens = [5, 9, 2] if len(listed) == 3 else [5, 9, 2, 6]
    file = dump_writers.lines(tmp_path / "x.jsonl", [{"prompt_token_ids": tokens, "prompt_logprobs": listed}])
    with pytest.raises(ValueError, match=f"x.jsonl, line 1: .*{message}"):
        list(read_sequences("vllm", [file]))


def test_ids_beyond_distillkits_own_vocabulary_are_refused(trained, tmp_path):
    how = EXACT | {"d": trained.vocabulary}
    made = dump_writers.distillkit(tmp_path / "x", trained.dump(), how)
    (made / "compression_config.yaml").write_text(json.dumps(how | {"d": 300}))
    with pytest.raises(ValueError, match=r"data_0.parquet, sequence \d+, row \d+ .*: the id \d+ belongs to no token"):
        match(trained, read_sequences("distillkit", find_files("distillkit", [made])))


@pytest.mark.parametrize("codec", ["a curve", "a curve and bins", "deltas in float16"])
def test_a_lossy_codec_does_not_hide_logits(trained, tmp_path, codec):
    change, cause = CORRUPTED["negative logits"]
    made = dump_writers.distillkit(tmp_path / "x", trained.dump(change), CODECS[codec] | {"d": trained.vocabulary})
    with pytest.raises(ValueError, match=rf"data_0\.parquet, sequence \d+, row \d+.*{cause}"):
        match(trained, read_sequences("distillkit", find_files("distillkit", [made])))


def test_files_too_small_to_tell_are_judged_together(trained, tmp_path):
    lines, files = own_lines(trained, tmp_path / "own.jsonl", moved=1).read_text().splitlines(), []
    for number, line in enumerate(lines):
        files.append(tmp_path / f"{number}.jsonl")
        files[-1].write_text(line)
    texts = {id: cut(text) for id, text in trained.dump().texts.items()}
    with pytest.raises(ValueError, match=r"36 files: the rows are shifted, one row earlier"):
        match_to_examples(read_sequences("jsonl", files), texts, K, trained.vocabulary)
