"""The same rows give the same examples from a list, a file of any format, a dataset in any format and a table of pandas."""

import json

import numpy
import pandas
import pytest
from datasets import Dataset, Features, IterableDataset, Json, List, Value

import fusion
from fusion.data.reading.memory_rows import plain_values


def tool(name, argument, **more):
    properties = {argument: {"type": "string"} | more}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def row(number):
    calls = [call(f"f{number}", **{f"p{number}": "x"}), call("g", other="y")]
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "t"},
        {"role": "assistant", "content": f"a{number}"},
    ]
    return {"messages": turns, "tools": [tool(f"f{number}", f"p{number}", enum=["x"]), tool("g", "other")]}


ROWS = [row(number) for number in range(3)]
JSON_TOOLS = Features({"messages": List({"role": Value("string"), "content": Value("string")}), "tools": List(Json())})


def written(folder, name):
    data = Dataset.from_list(ROWS)
    if name == "saved":
        data.save_to_disk(str(folder / name))
    elif name == "x.parquet":
        data.to_parquet(str(folder / name))
    else:
        (folder / name).write_text("\n".join(map(json.dumps, ROWS)))
    return str(folder / name)


FORMS = {
    "JSON lines": lambda folder: written(folder, "x.jsonl"),
    "Parquet": lambda folder: written(folder, "x.parquet"),
    "save_to_disk": lambda folder: written(folder, "saved"),
    "dataset": lambda _: Dataset.from_list(ROWS),
    "dataset in numpy": lambda _: Dataset.from_list(ROWS).with_format("numpy"),
    "dataset in torch": lambda _: Dataset.from_list(ROWS).with_format("torch"),
    "dataset in pandas": lambda _: Dataset.from_list(ROWS).with_format("pandas"),
    "streamed dataset": lambda _: Dataset.from_list(ROWS).to_iterable_dataset(),
    "generated dataset": lambda _: IterableDataset.from_generator(lambda: iter(ROWS)),
    "rows of a dataset": lambda _: list(Dataset.from_list(ROWS)),
    "pandas": lambda _: pandas.DataFrame(ROWS),
    "pandas' read_parquet": lambda folder: pandas.read_parquet(written(folder, "x.parquet")),
    "tuples": lambda _: [{"messages": tuple(each["messages"]), "tools": tuple(each["tools"])} for each in ROWS],
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_the_same_examples_in_every_form(tmp_path, form):
    expected = fusion.read_examples(ROWS)
    assert expected[1].tools == tuple(ROWS[1]["tools"])
    assert expected[1].messages[1]["tool_calls"] == ROWS[1]["messages"][1]["tool_calls"]
    found = fusion.read_examples(FORMS[form](tmp_path))
    assert [(each.messages, each.response, each.tools) for each in found] == [
        (each.messages, each.response, each.tools) for each in expected
    ]


def test_objects_that_datasets_keeps_as_json_are_objects(tmp_path):
    rows = [{"messages": [each["messages"][0], each["messages"][-1]], "tools": each["tools"]} for each in ROWS]
    data = Dataset.from_list(rows, features=JSON_TOOLS)
    data.to_parquet(str(tmp_path / "x.parquet"))
    for source in (data, str(tmp_path / "x.parquet")):
        assert [each.tools for each in fusion.read_examples(source)] == [tuple(each["tools"]) for each in ROWS]


def test_a_null_of_a_tool_is_kept_in_a_text_of_json_and_is_nothing_elsewhere():
    nothing, turns = tool("f", "p", default=None), ROWS[0]["messages"]
    (example,) = fusion.read_examples([{"messages": turns, "tools": [nothing]}])
    assert example.tools == (tool("f", "p"),)
    (example,) = fusion.read_examples([{"messages": turns, "tools": json.dumps([nothing])}])
    assert example.tools == (nothing,)


SMALL = Features({"prompt": Value("string"), "response": Value("float32")})
SHORT = {
    "dataset": lambda folder: Dataset.from_list([{"prompt": "q", "response": 0.1}], features=SMALL),
    "dataset in numpy": lambda folder: SHORT["dataset"](folder).with_format("numpy"),
    "streamed dataset": lambda folder: SHORT["dataset"](folder).to_iterable_dataset(),
    "pandas": lambda _: pandas.DataFrame({"prompt": ["q"], "response": numpy.array([0.1], "float32")}),
    "pandas' float16": lambda _: pandas.DataFrame({"prompt": ["q"], "response": numpy.array([0.1], "float16")}),
    "pandas' Float32": lambda _: pandas.DataFrame({"prompt": ["q"], "response": pandas.array([0.1], "Float32")}),
    "numpy": lambda _: [{"prompt": "q", "response": numpy.float32(0.1)}],
}


@pytest.mark.parametrize("form", SHORT)
def test_a_number_of_32_bits_has_the_digits_that_say_which_it_is(tmp_path, form):
    (example,) = fusion.read_examples(SHORT[form](tmp_path))
    assert example.response == "0.1"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (numpy.int64(3), 3),
        (numpy.float64(0.1), 0.1),
        (numpy.bool_(True), True),
        (numpy.str_("z"), "z"),
        (numpy.array(5), 5),
        (numpy.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (numpy.array([0.1, 0.25], "float32"), [0.1, 0.25]),
        ({"a": (numpy.array([{"b": numpy.int8(1)}]),)}, {"a": [[{"b": 1}]]}),
        (None, None),
    ],
)
def test_arrays_tuples_and_numbers_of_numpy_become_pythons(value, plain):
    found = plain_values(value)
    assert found == plain
    assert type(found) is type(plain)


def test_a_time_of_numpy_is_written_as_a_time():
    moment = numpy.datetime64("2020-01-01T03:00:00.000000000")
    (example,) = fusion.read_examples([{"prompt": "q", "response": moment}])
    assert example.response == "2020-01-01T03:00:00"


def test_nan_of_a_table_is_nothing_there():
    table = pandas.DataFrame({"prompt": ["q", "r"], "response": numpy.array([0.1, numpy.nan], "float32")})
    assert [example.response for example in fusion.read_examples(table)] == ["0.1"]
