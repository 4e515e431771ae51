"""Plain values come out of the encoding as they went in, and nothing else comes out of anything."""

import collections
import datetime
import decimal
import enum
import fractions
import json
import math
import os

import numpy as np
import pytest

from fusion.grading.sandbox import crossing

VALUES = [
    None, True, 0, -(2**63), 2**200, 1.5, math.inf, "", "\ud800 é", b"\x00\xff", bytearray(b"a"), [], [[1, [2]]], (), (1, (2,)),
    {1: "a", (2,): None}, {1, 2.5}, frozenset({"a"}), 1 + 2j, range(2, 9, 3), collections.deque([1]), int, dict,
    fractions.Fraction(2**80, 3), decimal.Decimal("1.10"), datetime.date(2020, 1, 2), datetime.time(3, 4),
    datetime.datetime(2020, 1, 2, 3, 4), datetime.timedelta(1, 2, 3),
]  # fmt: skip


def refuse(*value):
    raise LookupError(value)


def there_and_back(value):
    return crossing.decode(json.loads(json.dumps(crossing.encode(value, refuse))), refuse)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_plain_value_comes_back_as_it_was(value):
    back = there_and_back(value)
    assert back == value
    assert type(back) is type(value)


def test_not_a_number_crosses():
    assert math.isnan(there_and_back(math.nan))


def test_a_subclass_crosses_as_the_plain_type_below():
    class Text(str):
        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    point = collections.namedtuple("point", "x y")
    color = enum.IntEnum("color", "red")
    for value, plain in [
        (Text("a"), "a"),
        (point(1, 2), (1, 2)),
        (color.red, 1),
        (collections.Counter("aa"), {"a": 2}),
    ]:
        back = there_and_back(value)
        assert type(back) is type(plain)
        assert back == plain


@pytest.mark.parametrize(
    "value", [object(), print, iter([]), math, enum.Enum("e", "a")], ids=lambda value: type(value).__name__
)
def test_other_objects_do_not_cross(value):
    with pytest.raises(LookupError):
        crossing.encode(value, refuse)


@pytest.mark.parametrize(
    "data",
    [
        {}, {"a": 1, "b": 2}, {"int": "x"}, {"set": [[1]]}, {"Fraction": [1, 0]}, {"range": "abc"}, {"builtin": "eval"},
        {"builtin": "object"}, {"dict": [1]}, {"dict": [[[], 1]]}, {"bytes": 3}, {"Decimal": "x"}, {"date": "2020"},
        {"complex": ["x"]}, {"no such": 1},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_what_encode_does_not_write_is_malformed(data):
    with pytest.raises(crossing.MalformedError):
        crossing.decode(data, refuse)


@pytest.mark.parametrize(
    "data",
    [b"\xff\xff\xff\xff", b"\0\0\0\1{", b"\0\0\0\2{}", b"\0\0\0\2[]", b"\0\0\0\3[1]", b"\0\1\x86\xa0" + b"[" * 100_000],
)
def test_what_is_no_message_is_malformed(data, tmp_path):
    """Read from a file, which ends: what is waited for in vain is an EOFError, and no test that never ends."""
    (tmp_path / "written").write_bytes(data)
    with (tmp_path / "written").open("rb") as stream, pytest.raises(crossing.MalformedError):
        crossing.Channel(stream.fileno(), -1).receive()


def test_a_message_that_breaks_off_is_the_end():
    read_from, write_to = os.pipe()
    os.write(write_to, b"\0\0\0\5[")
    os.close(write_to)
    with pytest.raises(EOFError):
        crossing.Channel(read_from, -1).receive()


def test_a_message_that_is_too_long_is_not_sent():
    with pytest.raises(ValueError, match="too large to cross"):
        crossing.Channel(-1, -1).send(["x" * crossing.MESSAGE_BYTES])


@pytest.mark.parametrize("kind", ["?", "<i8", ">f4", "<c16", "<U3", "S2", "<M8[D]"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 2), (2, 3)])
def test_an_array_comes_back_with_type_shape_and_bytes(kind, shape):
    value = np.arange(math.prod(shape)).reshape(shape).astype(kind)
    back = there_and_back(value)
    assert (back.dtype, back.shape, back.tobytes()) == (value.dtype, value.shape, value.tobytes())
    assert back.flags.writeable


def test_a_truth_of_numpy_crosses_as_pythons_and_arrays_that_are_more_than_their_bytes_stay():
    assert there_and_back(np.bool_(True)) is True
    assert there_and_back([np.float64(0.5), np.int8(3)]) == [0.5, 3]
    for value in (np.array([{}]), np.ma.array([1], mask=[True]), np.zeros(1, "i4,f8")):
        with pytest.raises(LookupError):
            there_and_back(value)


@pytest.mark.parametrize("content", [["|O", [1], "00" * 8], ["<i8", [2], "00"], ["<i8", [-1], ""], ["<i8"], 3])
def test_an_array_that_is_none_is_malformed(content):
    with pytest.raises(crossing.MalformedError):
        crossing.decode({"ndarray": content}, refuse)
