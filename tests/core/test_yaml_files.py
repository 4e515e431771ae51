"""YAML files as they are read everywhere: numbers, keys that stand twice, and what is no YAML."""

import pytest

from fusion.core.yaml_files import parse_yaml, read_yaml


def test_numbers_with_an_exponent_are_numbers():
    assert parse_yaml("a: 1e-4\nb: -2E3\nc: 1.5e2\nd: e5") == {"a": 1e-4, "b": -2000.0, "c": 150.0, "d": "e5"}


@pytest.mark.parametrize(
    ("text", "line"),
    [("seed: 1\nname: a\nseed: 2\n", 1), ("a: {b: 1, c: 2, b: 3}\n", 1), ("x:\n- {k: 1}\n- k: 1\n  j: 2\n  k: 3\n", 3)],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path, text, line):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(
        ValueError, match=rf"run\.yaml is not valid YAML: the key \w+ stands twice, first in line {line}.*\n.*line"
    ):
        read_yaml(tmp_path / "run.yaml")


def test_a_key_that_older_yaml_takes_for_a_truth_value_is_a_text():
    assert parse_yaml("{on: replay, no: 1, Yes: on, true: 2}") == {"on": "replay", "no": 1, "Yes": True, True: 2}


def test_a_merge_key_may_be_overridden():
    assert parse_yaml("base: &b {x: 1, y: 2}\nmine: {<<: *b, y: 3}")["mine"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"- a\n", "should hold keys and values, it holds list"),
        (b"a: [1", "is not valid YAML"),
        (b"a: caf\xe9", "is not UTF-8"),
    ],
)
def test_what_is_no_mapping_is_refused_with_the_file(tmp_path, raw, said):
    (tmp_path / "run.yaml").write_bytes(raw)
    with pytest.raises(ValueError, match=rf"run\.yaml {said}"):
        read_yaml(tmp_path / "run.yaml")
