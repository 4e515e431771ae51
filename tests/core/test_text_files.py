"""Texts, JSON and the errors of the system: each names the file, the place in it, and what to do."""

import errno

import pytest
import yaml

from fusion.core.system_errors import naming
from fusion.core.text_files import read_json, read_object, read_text
from fusion.core.yaml_files import parse_assignment, parse_yaml


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n "b"', "x.json, line 2, is not JSON \\(Expecting ':' delimiter\\); copy or make it again"),
        (b"", "x.json, line 1, is not JSON"),
        (b'{"a":\n "\xe9"}', "x.json, line 2, is not UTF-8 \\(byte 8\\); save it as UTF-8"),
        (b"[1]", "x.json should hold keys and values, it holds list"),
        (b"[" * 100_000, "x.json is nested too deeply"),
    ],
)
def test_a_json_file_that_is_none_is_named_with_the_line(tmp_path, content, message):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_object(tmp_path / "x.json")


def test_what_a_file_holds_comes_back(tmp_path):
    (tmp_path / "x.json").write_text('["é", 1]')
    assert read_json(tmp_path / "x.json") == ["é", 1]
    assert read_text(tmp_path / "x.json") == '["é", 1]'


def test_a_read_that_the_system_refuses_names_its_file(tmp_path):
    with pytest.raises(IsADirectoryError) as refused:
        read_text(tmp_path)
    assert str(refused.value.filename) == str(tmp_path)


class SafetensorError(Exception):
    """As safetensors has it."""


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (SafetensorError("Error while serializing: IoError: File too large (os error 27)"), errno.EFBIG),
    ],
)
def test_a_full_disk_is_an_os_error_with_the_place_whichever_library_met_it(tmp_path, error, number):
    with pytest.raises(OSError) as named, naming(tmp_path):
        raise error
    assert (named.value.errno, named.value.filename) == (number, str(tmp_path))


def test_a_write_of_torch_that_failed_names_the_place(tmp_path):
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
    with pytest.raises(OSError, match=f"{tmp_path}: torch could not write a file there"), naming(tmp_path):
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), KeyError("a"), ValueError("b"), FileNotFoundError(2, "No", "y")]
)
def test_other_errors_pass_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as passed, naming(tmp_path):
        raise error
    assert passed.value is error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2020-13-45", "'2020-13-45' is no timestamp.*\n.*line 2"),
        ("a: !!int abc", "'abc' is no int"),
        ("a: !!timestamp x", "'x' is no timestamp"),
        ('a: "\\uD800"', "a text holds '\\\\ud800', which no file can hold"),
        ('a: "x\\0y"', "a text holds '\\\\x00'"),
        ("[" * 5000, "nested more deeply than any setting"),
    ],
)
def test_yaml_that_no_setting_can_be_is_a_yaml_error_with_its_line(text, message):
    with pytest.raises(yaml.YAMLError, match=message):
        parse_yaml(text)


@pytest.mark.parametrize("text", ["a=[", "a=!!python/object:os.system", "a=2020-13-45"])
def test_an_assignment_whose_value_is_no_yaml_is_named(text):
    with pytest.raises(ValueError, match="--set a=.*the value is not YAML .*; put a text into quotes"):
        parse_assignment(text, "a=1")


@pytest.mark.parametrize("text", ["a", "=1", ""])
def test_an_assignment_without_name_or_value_is_named_with_an_example(text):
    with pytest.raises(ValueError, match=f"--set {text}: write it as a=1"):
        parse_assignment(text, "a=1")
