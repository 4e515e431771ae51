"""Data files as people have them: damaged, replaced, in parts, with rows that make no example; and what is said of them."""

import bz2
import gzip
import json
import lzma
import os

import pyarrow
import pytest
from pyarrow import parquet

from fusion.config import DataSettings
from fusion.config.loading import ConfigError, load, parse
from fusion.data import datasets
from fusion.pipeline import introduce
from fusion.runtime.console import console
from fusion.stages.context import RunContext
from fusion.stages.data_sets import data_facts, describe_data
from tests.helpers import runs

ROW = '{"prompt": "q", "response": "a"}\n'


def read(file, **settings):
    return datasets.read(str(file), domain="d", **settings)


def responses(file, **settings):
    return [example.response for example in read(file, **settings).examples]


@pytest.fixture
def ten(tmp_path):
    file = tmp_path / "ten.jsonl"
    file.write_text("".join(json.dumps({"prompt": "q", "response": str(n)}) + "\n" for n in range(10)))
    return file


def test_texts_that_all_look_like_dates_or_numbers_stay_texts(tmp_path):
    texts = ["2020-01-01", "1e5", "007", "NaN", "null", "1,000", "0x1F", "12:30", "true", " padded ", "\u2028"]
    for name, content in {
        "x.jsonl": "".join(json.dumps({"prompt": "q", "response": text}) + "\n" for text in texts),
        "x.json": json.dumps([{"prompt": "q", "response": text} for text in texts]),
        "x.csv": "prompt,response\n" + "".join(f'q,"{text}"\n' for text in texts),
        "x.tsv": "prompt\tresponse\n" + "".join(f"q\t{text}\n" for text in texts),
    }.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert responses(tmp_path / name) == texts


def test_a_float_in_a_list_of_objects_of_parquet_has_the_digits_of_its_type(tmp_path):
    kind = pyarrow.list_(pyarrow.struct([("x", pyarrow.float32())]))
    table = pyarrow.table({"prompt": ["q"], "response": pyarrow.array([[{"x": 0.1}, {"x": None}]], kind)})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert responses(tmp_path / "x.parquet") == ['[{"x": 0.1}, {"x": null}]']


def test_bytes_and_nan_are_refused_with_the_row_where_they_would_be_learned_and_only_there(tmp_path):
    table = pyarrow.table(
        {"prompt": ["q", "r"], "response": ["a", "b"], "image": [b"x", b"y"], "score": [0.5, float("nan")]}
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    assert responses(tmp_path / "x.parquet") == ["a", "b"]
    with pytest.raises(ValueError, match=r"x.parquet, row 1: image holds bytes, which is no text"):
        read(tmp_path / "x.parquet", prompt="{prompt}", response="{image}")
    with pytest.raises(ValueError, match=r"x.parquet, row 2: score is nan"):
        read(tmp_path / "x.parquet", prompt="{prompt}", response="{score}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"prompt": "café"}'.encode("latin-1"), "x.jsonl, line 1, is not UTF-8: byte 0xe9"),
        ("x.json", b'[{"prompt": "q"},\n{"prompt": "caf\xe9"}]', "x.json, line 2, is not UTF-8: byte 0xe9"),
        ("x.csv", b"prompt,response\nq,caf\xe9\n", "x.csv, line 2, is not UTF-8"),
        ("x.jsonl", ROW.encode("utf-16"), r"x.jsonl, line 1, .* it begins like UTF-16.*iconv -f utf-16 -t"),
        ("x.jsonl.gz", gzip.compress(ROW.encode() * 999)[:-9], "x.jsonl.gz is no whole gz file: Compressed file ended"),
        ("x.jsonl.gz", ROW.encode(), "x.jsonl.gz is no whole gz file: Not a gzipped file"),
        ("x.jsonl.bz2", bz2.compress(ROW.encode())[:-4], "x.jsonl.bz2 is no whole bz2 file"),
        ("x.jsonl.xz", lzma.compress(ROW.encode())[:-4], "x.jsonl.xz is no whole xz file"),
        ("x.jsonl.zst", b"nothing", "x.jsonl.zst is no whole zst file"),
        ("x.parquet", b"PAR1", "x.parquet is no whole Parquet file"),
        ("x.json", b'[{"prompt": "q", "response": "a"},]', "x.json, line 1, column 34: a comma stands before ]"),
        ("x.json", b'[{"prompt": "q", "response": "a"}', "x.json, line 1, column 34: the text is cut off here"),
        ("x.json", b'{"train": [{"a": 1}], "test": [{"a": 1}]}', "x.json has lists of objects under train, test"),
        ("x.json", b'{"prompt": {"0": "q"}, "response": {"0": "a"}}', "x.json holds columns, as pandas writes them"),
        ("x.json", b'{"prompt": ["q"], "response": ["a"]}', "x.json holds columns, as pandas writes them"),
        ("x.json", b'["q"]', "x.json, row 1: it holds a text"),
        ("x.jsonl", b"[" * 100_000, "x.jsonl, line 1, column 1: it is not JSON .Nested too deeply"),
        ("x.jsonl", ROW.encode() + b'{"prompt": "r", "response": 1e999}', "x.jsonl, line 2: response is inf"),
        ("x.csv", b"prompt,response\nq,a,b\n", r"x.csv, row 1 \(line 2\): it has 3 cells, and there are 2 columns"),
        ("x.csv", b'prompt,response\nq,a\nr,"b\n', r"x.csv, row 2 \(line 3\): unexpected end of data"),
        ("x.csv", b"prompt,prompt\nq,a\n", "x.csv has two columns named 'prompt'"),
        ("x.jsonl", b"", "x.jsonl .* gives no example: no row is there"),
        ("x.csv", b"prompt,response\n", "x.csv .* gives no example: no row is there"),
        ("x.txt", b"hello", "x.txt ends in .txt; data files end in .jsonl"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_said_in_a_sentence_with_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name)


def test_a_damaged_folder_of_save_to_disk_is_named(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match="saved is no whole folder of datasets' save_to_disk"):
        read(tmp_path / "saved")


def test_a_file_that_is_replaced_within_the_same_second_is_read_anew_and_nothing_of_it_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "x.jsonl"
    for answer in ("a", "b"):
        file.write_text(json.dumps({"prompt": "q", "response": answer}))
        os.utime(file, (0, 0))
        assert responses(file) == [answer]
    assert sorted(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", "0123456789"),
        ("train[:3]", "012"),
        ("train[-2:]", "89"),
        ("train[20%:40%]", "23"),
        ("train[:2]+train[-1:]", "019"),
    ],
)
def test_a_split_is_cut_as_datasets_cuts_it(ten, split, expected):
    from datasets import load_dataset

    assert "".join(responses(ten, split=split)) == expected
    theirs = load_dataset("json", data_files=str(ten), split=split)
    assert [str(row["response"]) for row in theirs] == list(expected)


def test_a_split_that_is_not_there_is_refused_with_those_that_are(ten, tmp_path):
    (tmp_path / "both").mkdir()
    for name in ("train-0.jsonl", "train-1.jsonl", "test.jsonl"):
        (tmp_path / "both" / name).write_text(ROW.replace("a", name[:7]))
    assert responses(tmp_path / "both") == ["train-0", "train-1"]
    assert responses(tmp_path / "both", split="test") == ["test.js"]
    for place, split, message in [
        (ten, "test", "has no split 'test'; it has train"),
        (ten, "train[:x]", "cannot be read"),
        (tmp_path / "both", "validation", "has no split 'validation'; it has test, train"),
    ]:
        with pytest.raises(ValueError, match=message):
            read(place, split=split)
    with pytest.raises(FileNotFoundError, match="names no data file"):
        read(tmp_path / "none-*.jsonl")


def test_rows_that_make_no_example_are_counted_by_reason_with_the_first_of_them(tmp_path):
    file = tmp_path / "x.jsonl"
    asked, said = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    lines = [[asked, said], [asked], [], None, [asked, {**said, "weight": 0}], [asked, {**said, "content": ""}]]
    file.write_text("".join(json.dumps({"id": 1, "messages": turns}) + "\n" for turns in lines))
    found = read(file)
    assert [(one.reason, one.count, one.first) for one in found.left_out] == [
        ("no turn of an assistant", 3, f"{file}, line 2"),
        ("each assistant turn has weight 0", 1, f"{file}, line 5"),
        ("no response", 1, f"{file}, line 6"),
    ]
    assert found.unused == ["id"]
    assert found.examples[0].origin == f"{file}, line 1"
    file.write_text('{"prompt": "", "response": "a"}\n{"response": "a"}\n{"prompt": "q"}\n' + ROW)
    assert [(one.reason, one.count) for one in read(file).left_out] == [("no prompt", 2), ("no response", 1)]


def test_prompts_alone_that_ask_nothing_are_left_out_and_counted(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"prompt": ""}\n{"prompt": "q"}\n')
    found = read(tmp_path / "x.jsonl", response=None)
    assert [example.prompt for example in found.examples] == ["q"]
    assert [(one.reason, one.count) for one in found.left_out] == [("no prompt", 1)]


def test_a_column_that_only_some_rows_have_is_empty_in_the_others_and_one_that_none_has_is_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"q": "a", "r": "b"}\n{"q": "c", "r": "d", "hint": "e"}\n')
    settings = {"prompt": "{q}{hint}", "response": "{r}"}
    assert [example.prompt for example in read(tmp_path / "x.jsonl", **settings).examples] == ["a", "ce"]
    with pytest.raises(ValueError, match="no column 'note'; the columns are q, r, hint"):
        read(tmp_path / "x.jsonl", prompt="{note}", response="{r}")


def test_a_value_to_choose_rows_by_may_be_spelled_in_a_cell(tmp_path):
    (tmp_path / "x.csv").write_text("prompt,response,level,ok\nq,a,5,true\nr,b,6,false\n")
    assert responses(tmp_path / "x.csv", where={"level": 5}) == ["a"]
    assert responses(tmp_path / "x.csv", where={"ok": False}) == ["b"]


def test_a_system_message_stands_before_a_conversation_that_has_none(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    own = [{"role": "system", "content": "own"}, *turns]
    (tmp_path / "x.jsonl").write_text(
        "".join(json.dumps({"messages": each, "tone": "kind"}) + "\n" for each in (turns, own))
    )
    found = read(tmp_path / "x.jsonl", messages="messages", system="Be {tone}.").examples
    assert [example.messages[0]["content"] for example in found] == ["Be kind.", "own"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"messages": "talk", "prompt": "{q}"}, "prompt says what messages says already"),
        ({"messages": "talk", "response": "{r}"}, "response says what messages says already"),
        ({"name": "main"}, "name is for data sets of the hub only"),
        ({"revision": "abc"}, "revision is for data sets of the hub only"),
        ({"label_noise": 0.1}, "label_noise is for built-in data only"),
        ({"response": None, "response_chars": 5}, "response_chars cuts a response, and response is null"),
        ({"response": None, "as_raw_text": True}, "as_raw_text makes a response of the prompt too"),
        ({"prompt": "{q"}, "has a brace without its pair"),
        ({"prompt": "{}"}, "has braces without a column"),
        ({"prompt": 'as JSON {"x": 1}: {q}'}, "has braces without a column; write {{ and }} for braces"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        DataSettings(path="x.jsonl", domain="d", **settings)


@pytest.fixture
def raw(tmp_path):
    """A run whose training data have a row without a response, a column that nothing reads, and one held-out question."""
    raw = runs.raw(tmp_path)
    train = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"number {n}", "response": f"{n}", "id": n} for n in range(6)]
    rows[2]["response"] = None
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw["data"]["train"] = [{"path": str(train), "domain": "mine"}]
    heldout = tmp_path / "held.jsonl"
    heldout.write_text(json.dumps({"prompt": " NUMBER  4 ", "response": "vier", "system": "s"}) + "\n" + ROW)
    raw["data"]["heldout"] = [{"path": str(heldout), "domain": "mine"}]
    raw["evaluation"] = {"exact_match": ["mine"]}
    return raw


def test_a_held_out_question_is_found_in_training_whatever_its_answer_case_system_message_and_space(raw):
    with pytest.raises(ValueError, match=r"1 of 2 held-out examples ask .*held.jsonl, line 1; .*mine.jsonl, line 5"):
        _ = RunContext(parse(raw, "test")).heldout_examples


def test_what_is_left_out_is_said_in_the_plan_and_kept_for_the_report(raw):
    raw["data"]["decontaminate"] = True
    context = RunContext(parse(raw, "test"))
    assert [example.response for example in context.train_examples] == ["0", "1", "3", "5"]
    left_out = data_facts(context)[0]["left_out"]
    assert [(one["reason"], one["count"], one["first"].rsplit(", ")[-1]) for one in left_out] == [
        ("no response", 1, "line 3"),
        ("its question is held out", 1, "line 5"),
    ]
    with console.capture() as said:
        introduce(context)
    assert "1 row left out: no response (first: " in said.get()
    assert "1 row left out: its question is held out" in said.get()
    assert "not used: id" in said.get()
    lines = list(describe_data(context))
    assert "4 examples; prompt from prompt, response from response" in lines[0]
    assert "number 0" in lines[1]
    assert "-> '0" in lines[1]


def test_a_plan_of_a_file_that_cannot_be_read_names_the_place(raw, tmp_path):
    (tmp_path / "mine.jsonl").write_text(ROW + '{"prompt": "q"')
    with pytest.raises(ValueError, match="mine.jsonl, line 2, column 15"):
        _ = RunContext(parse(raw, "test")).train_examples
    with pytest.raises(ConfigError, match="label_noise is for built-in data only"):
        load("noisy_references", ["data.train.0.path=x.jsonl"])


def test_a_hub_data_set_that_cannot_be_reached_is_said_in_a_sentence(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match=r"my/missing \(split train\): no file or folder has that name here, and datasets cannot"
    ):
        read("my/missing")
